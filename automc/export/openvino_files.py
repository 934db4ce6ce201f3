"""The network as OpenVINO's IR: two files, converted from a QDQ graph of the searched codes and scales."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automc.errors import ModelError, ProofError, one_line
from automc.export.formats import OPENVINO, Source


def write(folder: Path, source: Source) -> None:
    """Write the IR and its weights.

    OpenVINO has integer convolutions that give floats, so no sum is rounded: the file computes what was searched. It
    runs weights in integers only where they are int8 in the file, so codes of few bits take a byte each.

    Raises:
        ModelError: the network cannot be written as ONNX, or OpenVINO cannot convert it.
        OSError: a file cannot be written.
    """
    import openvino

    from automc.export.onnx.writing import write_onnx

    with tempfile.TemporaryDirectory(prefix="automc-") as temporary:
        path = Path(temporary) / "model.onnx"
        write_onnx(source.model, source.example, path, baked=source.baked, plain=True)
        try:
            model = openvino.Core().read_model(path)
            openvino.save_model(model, str(folder / OPENVINO[0]), compress_to_fp16=False)
        except RuntimeError as error:
            name = type(source.model).__name__
            raise ModelError(f"model {name}: OpenVINO cannot convert it: {one_line(error)}") from error


class Runner:
    """An IR, compiled for the CPU: one thread, in float32 where it is not in integers.

    Raises:
        ProofError: OpenVINO cannot load it, or it does not take one input.
    """

    def __init__(self, path: Path) -> None:
        import openvino

        self.path = path
        settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        try:
            self._compiled: Any = openvino.Core().compile_model(str(path), "CPU", settings)
        except RuntimeError as error:
            raise ProofError(f"{path}: OpenVINO cannot load it: {one_line(error)}") from error
        if len(self._compiled.inputs) != 1:
            raise ProofError(f"{path}: must take one input, not {len(self._compiled.inputs)}")
        self._kind: np.dtype[Any] = np.dtype(self._compiled.inputs[0].element_type.to_dtype())

    def outputs(self, inputs: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """See formats.Network."""
        try:
            found = self._compiled({0: inputs.astype(self._kind, copy=False)})
        except RuntimeError as error:
            raise ProofError(f"{self.path}: OpenVINO cannot run it: {one_line(error)}") from error
        return {slot.any_name: np.array(found[slot]) for slot in self._compiled.outputs}


def opened(folder: Path) -> Runner:
    """The network of format ``openvino``. Raises as ``Runner``."""
    return Runner(folder / OPENVINO[0])
