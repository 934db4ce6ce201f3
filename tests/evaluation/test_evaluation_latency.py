"""Latency inside a trial: who is measured when, and what is predicted."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from automc.core.metrics import Objective
from automc.core.policy import Policy, Site
from automc.core.study import ModelSpec, Part, Rung, StudySpec
from automc.errors import SpecError
from automc.evaluation.evaluator import NetworkEvaluator, prepare
from automc.evaluation.lookup import calibration, wanted
from automc.evaluation.timing import LatencySettings
from automc.measure.walk import walk

SPEC = StudySpec(
    "s",
    ModelSpec("digits_net"),
    Part("digits", {"search_limit": 50, "calibration": 32}),
    (),
    ("prune",),
    (Objective("top1"), Objective("latency_predicted_ms")),
    rungs=(Rung(0), Rung(0)),
)
ROWS: dict[str, float] = {}


@pytest.fixture(scope="module")
def evaluator() -> NetworkEvaluator:
    """With a coarse grid, so that the table takes a second or two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("automc.measure.table.nodes", lambda width: sorted({1, 4, 16, width} & set(range(width + 1))))
        found = prepare(SPEC)
    ROWS.update(found.stopwatch.lookup.table.rows)
    return found


def halved(evaluator: NetworkEvaluator, ratio: float = 0.5) -> Policy:
    return Policy({Site("prune", group.name, "prune_ratio"): ratio for group in evaluator.table.groups})


def go_on(step: int, value: float) -> bool:
    return True


def test_every_trial_is_predicted_and_promoted_ones_are_measured(evaluator: NetworkEvaluator) -> None:
    first, second = (evaluator.evaluate(halved(evaluator), rung, go_on) for rung in (0, 1))
    assert "latency_ms" not in first.metrics
    assert first.metrics["latency_predicted_ms"] == second.metrics["latency_predicted_ms"] > 0
    assert second.metrics["latency_ms"] > 0
    assert 0 < second.errors["latency_ms"] < second.metrics["latency_ms"]
    assert evaluator.baseline["latency_predicted_ratio"] == 1.0


def test_less_work_is_predicted_to_take_less_time(evaluator: NetworkEvaluator) -> None:
    """By the layers' sums, which hold without the fitted correction; widths are multiples of 4 at both ratios."""
    from automc.measure.forms import forms
    from automc.measure.prediction import sums

    table = evaluator.stopwatch.lookup.table
    found = []
    for ratio in (0.0, 0.75):
        walked = walk(evaluator.build(halved(evaluator, ratio), 0), evaluator.example)
        evaluator.stopwatch.lookup.learn(walked)
        found.append(sums(table, [(form, calls) for _, form, calls in forms(walked)])[0])
    assert found[1] < found[0]


def test_known_rows_are_not_measured_again(evaluator: NetworkEvaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("automc.measure.table.nodes", lambda w: sorted({1, 4, 16, w} & set(range(w + 1))))
    monkeypatch.setattr("automc.measure.table.runner", refused)
    again = prepare(SPEC, known=lambda device: ROWS)
    assert again.baseline["latency_predicted_ms"] == evaluator.baseline["latency_predicted_ms"]
    assert again.stopwatch.lookup.correction == evaluator.stopwatch.lookup.correction


def test_what_the_table_lacks_is_measured_before_the_trial_goes_on(evaluator: NetworkEvaluator) -> None:
    factorized = replace(SPEC, order=("factorize",))
    other = prepare(factorized, known=lambda device: ROWS)
    policy = Policy({Site("factorize", other.table.layers[1].name, "rank_ratio"): 0.3})
    before = set(other.stopwatch.lookup.table.rows)
    assert other.evaluate(policy, 0, go_on).metrics["latency_predicted_ms"] > 0
    assert len(set(other.stopwatch.lookup.table.rows) - before) >= 1


def test_only_what_the_space_can_reach_is_measured(evaluator: NetworkEvaluator) -> None:
    walked = walk(evaluator.original().model, evaluator.example)
    plain = list(wanted(walked, evaluator.table, ("factorize",)))
    assert [f.arithmetic for f in plain] == ["float"] * len(evaluator.table.layers)
    both = set(wanted(walked, evaluator.table, ("prune", "quantize")))
    assert {f.arithmetic for f in both} == {"float", "int8"}
    stem = [f for f in both if f.inputs == 1]
    assert len({f.outputs for f in stem}) > 3  # a network's own inputs never become fewer, its first outputs do
    assert len(calibration(evaluator.table, ("factorize",))) == 1


def test_measured_where_the_study_asks_for_it_and_in_torch_too() -> None:
    spec = replace(SPEC, objectives=(Objective("top1"), Objective("latency_torch_ms")), rungs=(Rung(0),))
    spec = replace(spec, evaluator=Part("network", {"latency_batch": 4, "latency_rounds": 5}))
    found = prepare(spec)
    measured = found.evaluate(halved(found), 0, go_on)
    for name in ("latency_ms", "latency_torch_ms"):
        assert measured.metrics[name] > 0
        assert measured.errors[name] > 0
    assert found.baseline["latency_ratio"] == 1.0
    assert "latency_predicted_ms" not in measured.metrics


HOLDER = """
import sys, time
from pathlib import Path
from automc.measure.lock import measuring
folder = Path(sys.argv[1])
with measuring():
    (folder / "begun").touch()
    time.sleep(0.8)
    (folder / "ended").touch()
"""


def test_no_trial_computes_while_another_process_measures(
    evaluator: NetworkEvaluator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    built = evaluator._built
    monkeypatch.setattr(evaluator, "_built", lambda *a: (seen.append((tmp_path / "ended").exists()), built(*a))[1])
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)])
    while not (tmp_path / "begun").exists():
        assert process.poll() is None
        time.sleep(0.01)
    evaluator.evaluate(halved(evaluator), 0, go_on)
    assert process.wait(60) == 0
    assert seen == [True]


@pytest.mark.parametrize("settings", [{"latency_batch": 0}, {"latency_rounds": 0}])
def test_settings_out_of_range(settings: dict[str, int]) -> None:
    with pytest.raises(SpecError, match=rf"evaluator\.settings\.{next(iter(settings))}: must be at least 1, not 0"):
        LatencySettings(**settings)


def test_a_device_that_measures_cannot_run_torch() -> None:
    spec = replace(SPEC, objectives=(Objective("latency_torch_ms"),))
    with pytest.raises(SpecError, match="latency_torch_ms is measured on this machine only"):
        prepare(replace(spec, evaluator=Part("network", {"latency_device": "pi4"})))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
