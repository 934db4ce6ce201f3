"""The ONNX file: written, put into integers, checked, and run."""
