"""Latency in ONNX Runtime on the CPU: one thread, files measured in turn, so that a busy moment hits all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from automc.errors import EvaluationError

WARM_UP = 5
"""Untimed runs of each file before the first round."""

_KINDS: dict[str, Callable[[Any], Any]] = {
    "tensor(int64)": lambda inputs: np.zeros(inputs.shape, np.int64),
    "tensor(int32)": lambda inputs: np.zeros(inputs.shape, np.int32),
    "tensor(float16)": lambda inputs: inputs.astype(np.float16),
    "tensor(double)": lambda inputs: inputs.astype(np.float64),
}


@dataclass(frozen=True)
class LatencyStats:
    """Milliseconds of one run: median, lower and upper quartile over ``rounds`` runs of ``batch`` inputs each."""

    median: float
    low: float
    high: float
    rounds: int
    batch: int = 1


def onnx_latency(
    paths: Sequence[Path], input_shape: Sequence[int], rounds: int = 50, *, batch: int = 1
) -> list[LatencyStats]:
    """Time each file once per round; the round's order turns by one each time.

    The inputs are standard normal numbers under a fixed seed, or zeros where a file takes whole numbers (an embedding
    has no more for certain): dense networks take the same time for any input.

    Args:
        paths: ONNX files with one input. input_shape: of one input, without the batch axis.
        rounds: timed runs of each file, at least 1. batch: inputs per run, at least 1.

    Returns:
        One LatencyStats per path, in order.

    Raises:
        EvaluationError: a file cannot be loaded or run, or rounds or batch is below 1.
    """
    if rounds < 1 or batch < 1:
        raise EvaluationError(f"latency: rounds and batch must be at least 1, not {rounds} and {batch}")
    inputs = np.random.default_rng(0).standard_normal((batch, *input_shape), dtype=np.float32)
    times = interleaved([_runner(path, inputs) for path in paths], rounds)
    quartiles = [np.percentile(row, (50, 25, 75)) for row in times]
    return [LatencyStats(float(q[0]), float(q[1]), float(q[2]), rounds, batch) for q in quartiles]


def interleaved(
    calls: Sequence[Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> list[list[float]]:
    """Milliseconds of every call in every round, shape (len(calls), rounds).

    Each round starts with another call, so that none always runs in the wake of the same neighbour.
    """
    for call in calls:
        for _ in range(WARM_UP):
            call()
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(rounds):
        for k in range(len(calls)):
            i = (turn + k) % len(calls)
            start = clock()
            calls[i]()
            times[i].append((clock() - start) * 1e3)
    return times


def _runner(path: Path, inputs: Any) -> Callable[[], object]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        slot = session.get_inputs()[0]
        feed = {slot.name: _KINDS[slot.type](inputs) if slot.type in _KINDS else inputs}
        session.run(None, feed)
    except Exception as error:  # ONNX Runtime's errors share no public base class
        raise EvaluationError(f"latency: {path}: {str(error).splitlines()[0]}") from error
    return lambda: session.run(None, feed)
