"""Latency inside a trial: one at a time on a machine, in turn with the original network."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor, nn

LOCK = Path(tempfile.gettempdir()) / f"automc-latency-{os.getuid()}.lock"
ROUNDS = 50


def onnx_bytes(model: nn.Module, example: Tensor) -> bytes:
    """The network as an ONNX file's content (torch's faster exporter).

    Raises:
        ModelError: it cannot be exported.
    """
    from automc.export.onnx_file import write_onnx

    with tempfile.TemporaryDirectory(prefix="automc-") as folder:
        path = Path(folder) / "model.onnx"
        write_onnx(model, example, path, fast=True)
        return path.read_bytes()


def latencies(files: list[bytes], input_shape: tuple[int, ...]) -> list[float]:
    """Median milliseconds of one input for each ONNX file, measured in turn, one thread.

    Waits while another process of this user measures: two measurements at a time would slow each other down.

    Raises:
        EvaluationError: ONNX Runtime cannot run a file.
    """
    from automc.measure.latency import onnx_latency

    with tempfile.TemporaryDirectory(prefix="automc-") as folder:
        paths = [Path(folder) / f"{i}.onnx" for i in range(len(files))]
        for path, content in zip(paths, files, strict=True):
            path.write_bytes(content)
        with _alone():
            return [stats.median for stats in onnx_latency(paths, input_shape, rounds=ROUNDS)]


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Hold the machine-wide lock; the system frees it when the process dies."""
    with LOCK.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)
