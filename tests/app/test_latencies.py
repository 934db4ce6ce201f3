"""Latency tables in the database, and the error of predictions."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from automc.app.latencies import keep, known_in, prediction_error
from automc.core.metrics import Measurement
from automc.core.policy import Policy
from automc.core.trial import Trial, TrialState
from automc.stores import open_store


def measured(number: int, twin: int | None = None, **metrics: float) -> Trial:
    return Trial(number, Policy({}), state=TrialState.COMPLETE, measurement=Measurement(metrics), twin=twin)


def test_the_error_is_the_median_over_the_trials_that_have_both() -> None:
    trials = [
        measured(0, latency_predicted_ratio=1.1, latency_ratio=1.0),
        measured(1, latency_predicted_ratio=0.3, latency_ratio=0.5),
        measured(2, latency_predicted_ratio=0.76, latency_ratio=0.8),
        measured(3, latency_predicted_ratio=9.0),
        measured(4, twin=1, latency_predicted_ratio=0.3, latency_ratio=0.5),
        Trial(5, Policy({})),
    ]
    assert prediction_error(trials) == (pytest.approx(0.1), 3)
    assert prediction_error(trials[3:]) is None


def test_only_new_rows_are_kept_and_all_are_known_again(tmp_path: Path) -> None:
    path = tmp_path / "studies.db"
    assert dict(known_in(str(path))("cpu")) == {}
    assert not path.exists()
    store = open_store(str(path))
    store.keep_latencies("cpu", {"a 1>1": 0.5})
    rows = {"a 1>1": 0.7, "b 2>3": 0.25}
    lookup = SimpleNamespace(table=SimpleNamespace(rows=rows))
    keep(store, SimpleNamespace(stopwatch=SimpleNamespace(device="cpu", lookup=lookup)))
    keep(store, SimpleNamespace())  # an evaluator without a stopwatch has nothing to keep
    store.close()
    assert dict(known_in(str(path))("cpu")) == {"a 1>1": 0.5, "b 2>3": 0.25}
    assert dict(known_in(str(path))("pi4")) == {}
