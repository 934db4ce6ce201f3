"""A network in the runtime a user would use: ONNX Runtime on the CPU, one thread. Loads no torch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from automc.errors import ProofError

BATCH = 100
"""Inputs per run when answers are collected: 50 to 100 is the fastest on a CPU."""

WARM_UP = 5

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


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one run of one input: median, lower and upper quartile."""

    median: float
    low: float
    high: float


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
        try:
            return np.asarray(self._session.run(None, {self._input: inputs.astype(self.kind, copy=False)})[0])
        except Exception as error:
            raise ProofError(f"{self.path}: ONNX Runtime cannot run it: {_line(error)}") from error

    def answers(self, raw: NDArray[Any], normalise: Normalisation) -> NDArray[np.int64]:
        """The highest output of each raw input, shape (n,); outputs must have shape (n, classes) and be finite."""
        found = []
        for start in range(0, len(raw), BATCH):
            outputs = self(normalise(raw[start : start + BATCH]))
            if outputs.ndim != 2 or not np.isfinite(outputs).all():
                raise ProofError(f"{self.path}: outputs must be finite, shape (n, classes), not {outputs.shape}")
            found.append(outputs.argmax(axis=1))
        return np.concatenate(found).astype(np.int64)


def latencies(runners: Sequence[Runner], input_shape: Sequence[int], rounds: int) -> list[Latency]:
    """Time the runners in turn on one input, so that a busy moment of the machine hits all of them.

    The input is standard normal; whole numbers are 0, which every embedding has.

    measure/latency.py does the same for trials; rooms of one floor do not import each other.
    """
    inputs = np.random.default_rng(0).standard_normal((1, *input_shape), dtype=np.float32)
    whole = np.zeros_like(inputs, np.int64)
    times: list[list[float]] = [[] for _ in runners]
    for turn in range(-WARM_UP, rounds):
        for k in range(len(runners)):
            i = (turn + k) % len(runners)
            given = whole if runners[i].kind.kind == "i" else inputs
            start = time.perf_counter()
            runners[i](given)
            if turn >= 0:
                times[i].append((time.perf_counter() - start) * 1e3)
    quartiles = [np.percentile(row, (50, 25, 75)) for row in times]
    return [Latency(float(q[0]), float(q[1]), float(q[2])) for q in quartiles]


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
