"""Latency inside a trial: measured alone on its device, in turn with the original network, or predicted."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from automc.core.interleave import Timing, timings
from automc.core.required import EVALUATOR, require
from automc.errors import SpecError, WorkerError
from automc.evaluation.lookup import Lookup, Tools, device_name, lookup
from automc.evaluation.threads import one_thread
from automc.measure.forms import Form
from automc.measure.lock import computing, measuring
from automc.measure.walk import Walk, walk
from automc.operators.layers import Trace

MEASURED = ("latency_ms", "latency_ratio", "latency_torch_ms")
PREDICTED = ("latency_predicted_ms", "latency_predicted_ratio")


@dataclass(frozen=True)
class LatencySettings:
    """How latency is measured.

    Attributes:
        latency_batch: inputs of one run. latency_rounds: timed runs of each network.
        latency_device: who measures: "" for the machine that evaluates, else the name of a Ray node's resource
            ``device:NAME``.

    Raises:
        SpecError: a value is out of range.
    """

    latency_batch: int = 1
    latency_rounds: int = 50
    latency_device: str = ""

    @property
    def device(self) -> str:
        """What its latencies are kept under."""
        return self.latency_device or device_name()

    def require_device(self, wanted: frozenset[str]) -> None:
        """Raises SpecError where nobody is the device, or where it cannot measure a metric that is wanted."""
        if self.latency_device:
            from automc.workers.devices import find_device

            if "latency_torch_ms" in wanted:
                raise SpecError(f"{EVALUATOR}.latency_device: latency_torch_ms is measured on this machine only")

            try:
                find_device(self.latency_device)
            except WorkerError as error:
                raise SpecError(f"{EVALUATOR}.latency_device: {error}") from error

    def __post_init__(self) -> None:
        require(self, {name: (getattr(self, name) >= 1, "at least 1") for name in ("latency_batch", "latency_rounds")})


Known = Callable[[str], Mapping[str, float]]
"""Latencies of single layers that are known of a device, as core.store.LatencyStore.latencies."""


class Stopwatch:
    """Latencies of one network's compressed forms, as far as a study asks for them.

    Where it asks for predictions, every trial is predicted and those of higher rungs are measured as well; where it
    asks for measurements only, every trial is measured.

    Args:
        original: in eval mode, canonical. example: normalised inputs, shape (n, ...). wanted: metrics of the study.
        lookup: predicts, where the study asks for that.

    Attributes:
        baseline: the original's latency metrics.
    """

    def __init__(
        self,
        original: nn.Module,
        example: Tensor,
        wanted: frozenset[str],
        settings: LatencySettings,
        lookup: Lookup | None = None,
    ) -> None:
        self._original, self._example, self._settings, self.lookup = original, example, settings, lookup
        self._wanted = wanted
        self.baseline: dict[str, float] = {}
        self._file = b""
        if self._asked:
            with self.computing():
                self._file = onnx_bytes(original, example)
            if wanted.intersection(MEASURED):
                self.baseline, _ = self.timed(original, 0, self._file)()

    @property
    def device(self) -> str:
        """What latencies are kept under."""
        return self._settings.device

    @property
    def batch(self) -> int:
        """Inputs of one run."""
        return self._settings.latency_batch

    @property
    def _asked(self) -> bool:
        return bool(self._wanted.intersection((*MEASURED, *PREDICTED)))

    def computing(self) -> contextlib.AbstractContextManager[None]:
        """Around everything but measurements: nobody measures on this machine meanwhile."""
        return computing() if self._asked else contextlib.nullcontext()

    def learn(self, model: nn.Module) -> None:
        """Measure what the table does not know of this network; not to be called while computing."""
        if self.lookup is not None:
            self.lookup.learn(walk(model, self._example))

    def predicted(self, walked: Walk) -> dict[str, float]:
        """The predicted latency, where the study asks for it."""
        return {} if self.lookup is None else self.lookup.metrics(walked)

    def timed(
        self, model: nn.Module, rung: int, file: bytes = b""
    ) -> Callable[[], tuple[dict[str, float], dict[str, float]]]:
        """Prepare to measure a network, and return what measures it: metrics and their standard errors.

        Preparing computes, measuring must not be called while computing.
        """
        if not self._wanted.intersection(MEASURED) and not (self.lookup is not None and rung > 0):
            return lambda: ({}, {})
        file = file or onnx_bytes(model, self._example)
        call = self._torch_call(model) if "latency_torch_ms" in self._wanted else None

        def measure() -> tuple[dict[str, float], dict[str, float]]:
            shape, settings = tuple(self._example.shape[1:]), self._settings
            arguments = ([self._file, file], shape, settings.latency_rounds, settings.latency_batch)
            original, own = on(settings.latency_device, time_networks, *arguments)
            ratio = own.median / original.median
            spread = ((own.error / own.median) ** 2 + (original.error / original.median) ** 2) ** 0.5
            found = {"latency_ms": own.median, "latency_ratio": 1.0 if file is self._file else ratio}
            errors = {"latency_ms": own.error, "latency_ratio": ratio * spread}
            if call is not None:
                with one_thread(), measuring():
                    (plain,) = timings([call], settings.latency_rounds)
                found["latency_torch_ms"], errors["latency_torch_ms"] = plain.median, plain.error
            return found, errors

        return measure

    def _torch_call(self, model: nn.Module) -> Callable[[], object]:
        """One run in torch, batch norms folded as in the export."""
        from automc.export.baking.bake import bake

        baked = bake(model, self._example)
        inputs = self._example[:1].expand(self._settings.latency_batch, *self._example.shape[1:]).clone()

        def call() -> object:
            with torch.inference_mode():
                return baked(inputs)

        return call


def looked_up(
    original: nn.Module,
    found: Trace,
    example: Tensor,
    order: Sequence[str],
    wanted: frozenset[str],
    settings: LatencySettings,
    known: Known | None,
) -> Lookup | None:
    """What predicts latencies, where the study asks for that; see ``lookup.lookup``."""
    if not wanted.intersection(PREDICTED):
        return None
    rows = known(settings.device) if known is not None else {}
    return lookup(original, found, example, order, rows, tools(example, settings), settings.latency_batch)


def on(device: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function on a device: here, or as a Ray task on the node that declares it.

    Raises:
        WorkerError: no node does.
    """
    if not device:
        return function(*arguments)
    from automc.workers.devices import on_device

    return on_device(device, function, *arguments)


def time_networks(files: Sequence[bytes], shape: Sequence[int], rounds: int, batch: int) -> list[Timing]:
    """Milliseconds of each ONNX file, measured in turn, one thread, while nobody else computes.

    Raises:
        EvaluationError: ONNX Runtime cannot run a file.
    """
    from automc.measure.latency import onnx_latency

    with measuring():
        return onnx_latency(files, shape, rounds, batch=batch)


def time_layers(rows: Mapping[str, float], wanted: Sequence[Form], batch: int) -> dict[str, float]:
    """The known rows of a latency table and those of the forms that it lacks, measured while nobody else computes."""
    from automc.measure.table import LatencyTable

    table = LatencyTable(rows, batch)
    with measuring():
        table.measure(wanted)
    return table.rows


def time_at_pace(rows: Mapping[str, float], files: Sequence[bytes], shape: Sequence[int], batch: int) -> list[float]:
    """Milliseconds of whole networks at the pace of a latency table, measured while nobody else computes."""
    from automc.measure.table import LatencyTable

    with measuring():
        return LatencyTable(rows, batch).networks(files, shape)


def tools(example: Tensor, settings: LatencySettings) -> Tools:
    """What measures on the device of these settings."""
    device, shape = settings.latency_device, tuple(example.shape[1:])
    return Tools(
        layers=partial(on, device, time_layers),
        networks=partial(_networks, device, shape),
        export=partial(onnx_bytes, example=example),
    )


def _networks(device: str, shape: Sequence[int], rows: Mapping[str, float], files: Sequence[bytes], batch: int) -> Any:
    return on(device, time_at_pace, rows, files, shape, batch)


def onnx_bytes(model: nn.Module, example: Tensor) -> bytes:
    """The network as an ONNX file's content (torch's faster exporter).

    Raises:
        ModelError: it cannot be exported.
    """
    from automc.export.onnx.writing import write_onnx

    with tempfile.TemporaryDirectory(prefix="automc-") as folder:
        path = Path(folder) / "model.onnx"
        write_onnx(model, example, path, fast=True)
        return path.read_bytes()
