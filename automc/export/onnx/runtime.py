"""A network in the runtime a user would use: ONNX Runtime on the CPU, one thread. Loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from automc.errors import ProofError
from automc.export.formats import MODEL
from automc.export.onnx.check import checked

_KINDS: dict[str, np.dtype[Any]] = {
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(double)": np.dtype(np.float64),
}


def opened(folder: Path) -> Runner:
    """The network of format ``onnx``. Raises as ``Runner``."""
    return Runner(folder / MODEL)


class Runner:
    """One ONNX file, loaded.

    Raises:
        ProofError: the file is refused (see ``checked``), ONNX Runtime cannot load it, or it does not take one input.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        content = checked(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            (slot,) = self._session.get_inputs()
        except Exception as error:  # ONNX Runtime's errors share no public base class
            raise ProofError(f"{path}: ONNX Runtime cannot load it: {_line(error)}") from error
        self._input = slot.name
        self.kind: np.dtype[Any] = _KINDS.get(slot.type, np.dtype(np.float32))

    def __call__(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """The first output for normalised inputs of shape (n, ...), turned into the input's type (int64 for tokens)."""
        return next(iter(self.outputs(inputs).values()))

    def outputs(self, inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """All outputs by name, in the file's order, for the inputs of ``__call__``."""
        try:
            found = self._session.run(None, {self._input: inputs.astype(self.kind, copy=False)})
            return {slot.name: np.asarray(each) for slot, each in zip(self._session.get_outputs(), found, strict=True)}
        except Exception as error:
            raise ProofError(f"{self.path}: ONNX Runtime cannot run it: {_line(error)}") from error


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
