"""Latency on the CPU, one thread, in ONNX Runtime or torch; networks are measured in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from automc.core.interleave import Timing, timings
from automc.errors import EvaluationError

_KINDS: dict[str, Callable[[Any], Any]] = {
    "tensor(int64)": lambda inputs: np.zeros(inputs.shape, np.int64),
    "tensor(int32)": lambda inputs: np.zeros(inputs.shape, np.int32),
    "tensor(float16)": lambda inputs: inputs.astype(np.float16),
    "tensor(uint8)": lambda inputs: np.clip(np.abs(inputs) * 60, 0, 255).astype(np.uint8),
    "tensor(double)": lambda inputs: inputs.astype(np.float64),
}


def onnx_latency(
    files: Sequence[Path | bytes], input_shape: Sequence[int], rounds: int = 50, *, batch: int = 1
) -> list[Timing]:
    """Time each file once per round; the round's order turns by one each time.

    Args:
        files: ONNX files with one input, or their contents. input_shape: of one input, without the batch axis.
        rounds: timed runs of each file, at least 1. batch: inputs per run, at least 1.

    Returns:
        Milliseconds of one run of a batch, one Timing per file, in order.

    Raises:
        EvaluationError: a file cannot be loaded or run, or rounds or batch is below 1.
    """
    if rounds < 1 or batch < 1:
        raise EvaluationError(f"latency: rounds and batch must be at least 1, not {rounds} and {batch}")
    inputs = sample(input_shape, batch)
    return timings([runner(file, inputs) for file in files], rounds)


def sample(input_shape: Sequence[int], batch: int) -> Any:
    """Standard normal inputs under a fixed seed, shape (batch, *input_shape): dense networks take the same time for any
    input.
    """
    return np.random.default_rng(0).standard_normal((batch, *input_shape), dtype=np.float32)


def runner(file: Path | bytes, inputs: Any) -> Callable[[], object]:
    """A call that runs the file on these inputs once.

    Where the file takes whole numbers the inputs are zeros: an embedding has no more for certain.

    Raises:
        EvaluationError: it cannot be loaded or run.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            file if isinstance(file, bytes) else str(file), options, providers=["CPUExecutionProvider"]
        )
        slot = session.get_inputs()[0]
        feed = {slot.name: _KINDS[slot.type](inputs) if slot.type in _KINDS else inputs}
        session.run(None, feed)
    except Exception as error:  # ONNX Runtime's errors share no public base class
        where = "a network's ONNX file" if isinstance(file, bytes) else file
        raise EvaluationError(f"latency: {where}: {str(error).splitlines()[0]}") from error
    return lambda: session.run(None, feed)
