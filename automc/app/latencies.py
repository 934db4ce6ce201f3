"""Latency tables between a study's evaluator and its database, and how well predictions were."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from automc.core.store import LatencyStore
from automc.core.trial import Trial
from automc.errors import StoreError
from automc.stores import open_store

Known = Callable[[str], Mapping[str, float]]


def known_in(storage: str) -> Known:
    """The latencies that a database knows of a device; none where there is no database yet. Writes nothing."""

    def known(device: str) -> Mapping[str, float]:
        try:
            store = open_store(storage, create=False)
        except StoreError:
            return {}
        try:
            return store.latencies(device)
        finally:
            store.close()

    return known


def keep(store: LatencyStore, evaluator: Any) -> None:
    """Put what the evaluator measured of its device's layers into the database."""
    stopwatch = getattr(evaluator, "stopwatch", None)
    if stopwatch is None or stopwatch.lookup is None:
        return
    known = store.latencies(stopwatch.device)
    new = {key: ms for key, ms in stopwatch.lookup.table.rows.items() if key not in known}
    if new:
        store.keep_latencies(stopwatch.device, new)


def prediction_error(trials: Sequence[Trial]) -> tuple[float, int] | None:
    """The median of ``|predicted / measured - 1|`` over the trials that have both latencies, and how many these are;
    None where none has. Answers from the store count once.

    The ratios to the original are compared: it is measured in turn with every trial, so that a machine that is slower
    than when its table was made is not taken for a wrong prediction.
    """
    metrics = [t.measurement.metrics for t in trials if t.measurement is not None and t.twin is None]
    errors = [
        abs(m["latency_predicted_ratio"] / m["latency_ratio"] - 1)
        for m in metrics
        if m.get("latency_ratio") and "latency_predicted_ratio" in m
    ]
    return (statistics.median(errors), len(errors)) if errors else None
