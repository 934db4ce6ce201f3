"""A network in the runtime a user would use: ONNX Runtime on the CPU, one thread. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from automc.core.interleave import Timing, timings
from automc.errors import ProofError

BATCH = 100
"""Inputs per run when answers are collected: 50 to 100 is the fastest on a CPU."""

_KINDS: dict[str, np.dtype[Any]] = {
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(double)": np.dtype(np.float64),
}


@dataclass(frozen=True)
class Normalisation:
    """What turns raw inputs into the network's: ``(raw / scale - mean) / std``, mean and std per channel.

    Empty ``mean`` and ``std`` leave out the second step.
    """

    scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __call__(self, raw: NDArray[Any]) -> NDArray[np.float32]:
        """Raw inputs of shape (n, ...) as float32."""
        out = raw.astype(np.float32) / np.float32(self.scale)
        if not self.mean:
            return out
        shape = (1, -1, *[1] * (raw.ndim - 2))
        mean, std = (np.array(row, np.float32).reshape(shape) for row in (self.mean, self.std))
        return np.asarray((out - mean) / std, np.float32)


class Runner:
    """One ONNX file, loaded.

    Raises:
        ProofError: ONNX Runtime cannot load the file, or it does not take one input.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
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

    def batches(self, raw: NDArray[Any], normalise: Normalisation) -> Iterator[dict[str, NDArray[Any]]]:
        """All outputs for raw inputs, BATCH of them at a time.

        Raises:
            ProofError: one is NaN or infinite, or there is not one for each input.
        """
        for start in range(0, len(raw), BATCH):
            inputs = raw[start : start + BATCH]
            outputs = self.outputs(normalise(inputs))
            for name, each in outputs.items():
                if each.shape[:1] != inputs.shape[:1] or not np.isfinite(each).all():
                    raise ProofError(f"{self.path}: {name} must be finite, one for each input, not {each.shape}")
            yield outputs


def latencies(runners: Sequence[Runner], input_shape: Sequence[int], rounds: int, batch: int = 1) -> list[Timing]:
    """Time the runners in turn on so many inputs, so that a busy moment of the machine hits all of them.

    The inputs are standard normal; whole numbers are 0, which every embedding has.
    """
    inputs = np.random.default_rng(0).standard_normal((batch, *input_shape), dtype=np.float32)
    whole = np.zeros_like(inputs, np.int64)
    given = [whole if runner.kind.kind == "i" else inputs for runner in runners]
    return timings([partial(runner, x) for runner, x in zip(runners, given, strict=True)], rounds)


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
