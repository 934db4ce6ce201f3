"""What is read of very many trials by columns and records is what reading all of them gives."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from automc.app import importance, listing, solving
from automc.app.reporting import found as finding
from automc.app.reporting import growth as growing
from automc.app.study import Study
from automc.core.metrics import Constraint, Measurement, Objective, losses
from automc.core.pareto import covered, front, ranks
from automc.core.policy import Policy, Site
from automc.core.ports import Proposal
from automc.core.rules import Rule
from automc.core.rungs import _first
from automc.core.space import Choice
from automc.core.study import ModelSpec, Part, Rung, StudySpec
from automc.core.tally import tally
from automc.core.trial import Trial, TrialState
from automc.stores import open_store
from automc.stores.columns import of_trials
from automc.stores.paging import Listing, row_of

SITES = [Site("quantize", layer, "weight_bits") for layer in ("a", "b", "c")]
SPEC = StudySpec(
    "s",
    ModelSpec("resnet20"),
    Part("digits"),
    (Rule("quantize", {"weight_bits": Choice((2, 4, 8))}),),
    ("quantize",),
    (Objective("top1"), Objective("size_bytes")),
    (Constraint.parse("macs_ratio <= 0.7"),),
    rungs=(Rung(), Rung(10, share=0.5)),
)
BASELINE = {"top1": 1.0, "size_bytes": 1000.0, "macs_ratio": 1.0}


def measurement(draw: random.Random) -> Measurement:
    """Few different values, so that some are equal; some lack a metric or have none that is a number."""
    metrics = {"top1": draw.randrange(20) / 20, "size_bytes": draw.randrange(1, 20) * 50.0, "macs_ratio": draw.random()}
    if draw.random() < 0.1:
        metrics[draw.choice(list(metrics))] = math.nan
    if draw.random() < 0.1:
        del metrics[draw.choice(list(metrics))]
    seconds = math.nan if draw.random() < 0.05 else draw.random()
    return Measurement(metrics, seconds=seconds, errors={"top1": 0.01} if "top1" in metrics else {}, samples=100)


@pytest.fixture(params=["memory", "sqlite"])
def study(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Study]:
    """A study of 150 trials on two rungs in all states, finished out of order, its front recorded as a search does."""
    storage = "memory:" if request.param == "memory" else str(tmp_path / "s.db")
    with closing(open_store(storage)) as store:
        store.create(SPEC, {"baseline": BASELINE, "layers": {"layers": [], "groups": [], "input_shape": [1]}})
        draw, members, open_ = random.Random(3), list[Trial](), list[Trial]()
        for _ in range(150):
            policy = Policy({site: draw.choice((2, 4, 8)) for site in SITES})
            open_.append(store.add("s", Proposal(policy), draw.randrange(2)))
            while len(open_) > 4:
                trial, kind = open_.pop(draw.randrange(len(open_))), draw.random()
                if kind < 0.06:
                    continue  # it waits
                if kind < 0.16:  # answered from the store
                    done = trial.to(TrialState.COMPLETE, measurement=measurement(draw), twin=0)
                else:
                    running = store.move("s", trial.to(TrialState.RUNNING))
                    if kind < 0.2:
                        continue
                    found, reason = measurement(draw), draw.choice(("oom", "nan"))
                    done = running.to(TrialState.COMPLETE, measurement=found)
                    if kind < 0.3:
                        done = running.to(TrialState.FAILED, reason=reason, message=f"as {trial.number}")
                    elif kind < 0.4:
                        done = running.to(TrialState.STOPPED, measurement=found, reason="dominated")
                before = {member.number for member in members}
                members = front(sorted([*members, done], key=lambda t: t.number), SPEC.objectives, SPEC.constraints)
                after = {member.number for member in members}
                changes = {**dict.fromkeys(before - after, False), **dict.fromkeys(after - before, True)}
                store.move("s", done, None, changes)
        yield Study("s", store, storage)


def test_the_columns_are_those_of_all_trials(study: Study) -> None:
    trials, names = study.records(), ["top1", "size_bytes", "seconds", "loss"]
    order = list(study.store.finishing("s"))
    found = study.store.numbers("s", names)
    plain = of_trials(trials, {number: place for place, number in enumerate(order, 1)}, names)
    assert [column.tolist() for column in found[:4]] == [column.tolist() for column in plain[:4]]
    assert repr({k: v.tolist() for k, v in found.values.items()}) == repr(
        {k: v.tolist() for k, v in plain.values.items()}
    )
    assert 0 < found.answered.sum() < len(found.number) < len(trials)
    got, want = study.store.tally("s"), tally(trials)
    assert [count[:5] for count in got] == [count[:5] for count in want]
    assert [count.seconds for count in got] == pytest.approx([count.seconds for count in want])


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_seconds_are_summed_in_order_of_finishing(study: Study, step: int) -> None:
    own = [study.trial(number) for number in study.store.finishing("s")]
    seconds = [t.measurement.seconds if t.measurement and t.twin is None else 0.0 for t in own]
    sums = [np.nansum(seconds[at : at + step]) for at in range(0, len(own), step)]
    assert study.store.spent("s", step) == pytest.approx(sums)


@pytest.mark.parametrize("parts", [1000, 9])
def test_the_growth_of_the_front_follows_from_all_trials(
    study: Study, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growing, "PARTS", parts)
    done = [study.trial(number) for number in study.store.finishing("s")]
    steps = growing.growth(study, study.store.tally(study.name))
    assert len(steps) > (5 if parts > 9 else 2)
    for step in steps:
        so_far = done[: step.done]
        assert step.share == covered(so_far, SPEC.objectives, SPEC.constraints, BASELINE)
        spent = [t.measurement.seconds for t in so_far if t.measurement and t.twin is None]
        assert step.seconds == pytest.approx(np.nansum(spent))
    assert steps[-1].share == covered(done, SPEC.objectives, SPEC.constraints, BASELINE)
    assert growing.replayed(SPEC, done) == study.store.front_changes("s")


def test_a_report_of_some_trials_has_the_figures_of_all(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "MOST", 20)
    found, trials = finding.find(study, "knee"), study.records()
    assert found.front == front(trials, SPEC.objectives, SPEC.constraints)
    assert len(found.trials) == 20
    assert {t.number for t in found.front} <= {t.number for t in found.counted}
    assert {c.number for c in study.store.front_changes("s")} <= {t.number for t in found.counted}
    assert repr(found.counted) == repr([trials[t.number] for t in found.counted])
    last = {(t.state, t.reason): t for t in trials if t.reason}
    assert repr(sorted(found.ended, key=lambda t: t.number)) == repr(sorted(last.values(), key=lambda t: t.number))
    spent = [t.measurement.seconds for t in trials if t.measurement and t.twin is None]
    assert finding.work(found.counts) == pytest.approx(np.nansum(spent))


@pytest.mark.parametrize("sort", [(), ("-number",), ("-top1",), ("reason", "size_bytes"), ("top1_error",)])
@pytest.mark.parametrize("where", ["", "top1 >= 0.4 and size_bytes < 700", "seconds > 0.5 or reason == nan"])
def test_a_list_of_a_few_columns_is_cut_out_of_the_whole_one(study: Study, sort: tuple[str, ...], where: str) -> None:
    names = ("trial", "top1", "top1_error", "seconds", "samples", "state", "reason", "twin", "fingerprint", "loss")
    rows = study.store.page("s", Listing(where, sort, columns=names)).rows
    whole = [row_of(trial) for trial in study.store.query("s", where, sort)]
    assert repr(rows) == repr([{n: row.get({"trial": "number"}.get(n, n)) for n in names} for row in whole])
    assert rows


@pytest.mark.parametrize("bound", ["size_bytes <= 300", "top1 >= 0.9", "macs_ratio <= 0.2"])
def test_the_best_trial_under_a_bound_is_that_of_all(study: Study, bound: str) -> None:
    bounds = [Constraint.parse(bound)]
    found = solving.solve(study, bounds)
    limits = [*bounds, *(c for c in SPEC.constraints if c.metric != bounds[0].metric)]
    trials = [t for t in study.records() if t.state is TrialState.COMPLETE and t.measurement]
    keeping = [(t, t.measurement.metrics) for t in trials if t.measurement]
    keeping = [(t, m) for t, m in keeping if all(limit.violation(m) == 0.0 for limit in limits)]
    assert found.trial == min(keeping, key=lambda one: (losses(SPEC.objectives, one[1]), one[0].number))[0].number


def test_what_mattered_is_asked_of_the_same_trials(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importance, "MOST", 25)
    monkeypatch.setattr(importance, "TREES", 5)
    assert importance.mattered(study, "top1") == importance.importance("s", study.records(), "top1")


def test_what_mattered_in_a_revised_study_is_asked_of_what_still_counts(study: Study) -> None:
    study.revise(replace(SPEC, constraints=(Constraint.parse("macs_ratio <= 0.5"),), revision=1, first_trial=150))
    assert importance.mattered(study, "top1") == importance.importance("s", study.counted(), "top1")
    members = front(study.counted(), study.spec.objectives, study.spec.constraints)
    assert [t.number for t in finding.find(study, "knee").front] == [t.number for t in members]
    assert growing.growth(study, study.store.tally(study.name))[-1].share == covered(
        members, SPEC.objectives, SPEC.constraints, BASELINE
    )
    assert [t.number for t in listing.some(study, 150, 4)] == [0, 49, 99, 149]


@pytest.mark.parametrize("seed", range(20))
def test_the_first_free_rows_are_those_of_the_least_rank(seed: int) -> None:
    draw = np.random.default_rng(seed)
    points = draw.integers(0, 6, (30, 2)).astype(float)
    points[draw.random(30) < 0.2, 0] = np.nan
    free = draw.random(30) < 0.15
    free[seed] = True
    rank = ranks(points)
    assert _first(points, free).tolist() == [i for i in range(30) if free[i] and rank[i] == rank[free].min()]
