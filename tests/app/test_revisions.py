"""Extensions that change space, objectives or constraints: what is reused and what is not; all of it or nothing."""

import json
import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import torch

import automc
from automc.app import catalog, report, revising, runs
from automc.app.config import study_from
from automc.cli import main
from automc.core.metrics import Measurement
from automc.core.pareto import front
from automc.core.policy import Site
from automc.core.search import Ending
from automc.core.trial import EXCLUDED, TrialState
from automc.errors import EvaluationError, LeaseHeld, SpecError, StoreError
from automc.evaluation.synthetic import SyntheticEvaluator, prepare_synthetic
from automc.stores.sql import SqlStore

PRUNE = {"operator": "prune", "settings": {"prune_ratio": {"low": 0.0, "high": 0.8, "step": 0.2}}}


def bits(*values):
    settings = {"weight_bits": list(values), "activation_bits": 8}
    return {"operator": "quantize", "layers": ["conv0", "conv1"], "settings": settings}


def space(*rules):
    return {"rules": list(rules)}


class Metered:
    """The synthetic network with a meter: energy is measured where the study needs it. ``drift`` changes top1."""

    drift = 0.0

    def __init__(self, spec):
        self.inner: SyntheticEvaluator = prepare_synthetic(
            replace(spec, evaluator=replace(spec.evaluator, settings={"layers": 4}))
        )
        self.table, self.damage = self.inner.table, self.inner.damage
        needed = {*(o.metric for o in spec.objectives), *(c.metric for c in spec.constraints)}
        self.metered = "energy_model_mj" in needed
        self.baseline = self._with(self.inner.baseline, 0.0)
        self.asked = []

    def _with(self, metrics, drift):
        return {**metrics, "top1": metrics["top1"] + drift} | (
            {"energy_model_mj": metrics["bops"] / 1e6} if self.metered else {}
        )

    def evaluate(self, policy, rung, monitor, rivals=None):
        self.asked.append(policy)
        found = self.inner.evaluate(policy, rung, monitor, rivals)
        return replace(
            found,
            metrics=self._with(found.metrics, self.drift),
            errors={"energy_model_mj": 0.5} if self.metered else {},
        )


@pytest.fixture(autouse=True)
def meter(monkeypatch):
    module = ModuleType("own_meter")
    module.Metered = Metered
    monkeypatch.setitem(sys.modules, "own_meter", module)
    monkeypatch.setitem(catalog.EVALUATORS, "metered", "own_meter:Metered")
    monkeypatch.setattr(Metered, "drift", 0.0)


@pytest.fixture
def storage(tmp_path):
    return str(tmp_path / "studies.db")


def given(storage, **changes):
    said = {
        "name": "s",
        "model": "digits_net",
        "data": "digits",
        "space": space(PRUNE, bits(2, 4, 8)),
        "objectives": {"top1": "maximize", "size_bytes": "minimize"},
        "evaluator": "metered",
        "proposer": "random",
        "budget": {"trials": 16},
        "workers": {"count": 0},
        "storage": storage,
    }
    return study_from(said | changes, "test")


@pytest.fixture
def study(storage):
    made = runs.start(given(storage))
    assert made.run() is Ending.DONE
    return made


def weight_bits(trial):
    return [v for s, v in trial.policy.items() if s.setting == "weight_bits"]


def test_a_narrower_domain_keeps_what_it_holds_and_says_what_not(study, storage, capsys):
    before = study.records()
    capsys.readouterr()
    narrow = automc.extend("s", 4, storage=storage, space=space(PRUNE, bits(4, 8)))
    said = capsys.readouterr().err
    inside = [t.number for t in before if 2 not in weight_bits(t)]
    first = next(t.number for t in before if 2 in weight_bits(t))
    assert 0 < len(inside) < 16
    assert "revision 1: budget.trials: 16 -> 20" in said
    assert "revision 1: space: quantize weight_bits: {2, 4, 8} -> {4, 8} (2 sites)" in said
    assert f"{len(inside)} earlier trials reused, {16 - len(inside)} excluded: " in said
    assert f"outside this space (first trial {first}: quantize(" in said
    assert narrow.run() is Ending.DONE
    assert narrow.records()[:16] == before, "nothing stored changes"
    assert all(set(weight_bits(t)) <= {4, 8} for t in narrow.records()[16:])
    counted = [t for t in narrow.records() if 2 not in weight_bits(t)]
    assert narrow.front() == front(counted, narrow.spec.objectives, ())
    assert len(narrow.trials()) == 20, "trials lists them all"
    summary = narrow.summary()
    assert summary["earlier"]["reused"] == len(inside)
    assert summary["earlier"]["excluded"] == {"outside this space": 16 - len(inside)}
    assert [r["first_trial"] for r in summary["revisions"]] == [16]
    assert "revision 1" in report.study_text(narrow)


def test_a_proposer_is_told_what_counts_and_nothing_else(study, storage, monkeypatch):
    told = []
    from automc.proposers.random import RandomProposer

    monkeypatch.setattr(RandomProposer, "tell", lambda self, trials: told.extend(trials))
    narrow = automc.extend("s", 2, storage=storage, space=space(PRUNE, bits(4, 8)))
    narrow.run()
    assert [t.number for t in told] == [t.number for t in study.records()[:16] if 2 not in weight_bits(t)]


def test_a_wider_domain_reuses_everything_and_answers_from_it(study, storage):
    wide = automc.extend("s", 6, storage=storage, changes=["space.rules[1].settings.weight_bits=[2, 3, 4, 6, 8]"])
    assert wide.run() is Ending.DONE
    assert wide.summary()["earlier"] == {"reused": 16, "excluded": {}, "examples": {}}
    assert wide.front() == front(wide.records(), wide.spec.objectives, ())
    assert {b for t in wide.records()[16:] for b in weight_bits(t)} & {3, 6}


def test_a_new_operator_is_neutral_in_older_trials_and_a_twin_is_not_measured_again(storage):
    one = {"operator": "prune", "settings": {"prune_ratio": [0.0, 0.4]}, "layers": "conv0"}
    first = runs.start(given(storage, space=space(one), budget={"trials": 6}))
    first.run()
    both = space(
        one, {"operator": "quantize", "settings": {"weight_bits": [8, 32], "activation_bits": 32}, "layers": "conv0"}
    )
    longer = automc.extend("s", 12, storage=storage, space=both)
    assert longer.run() is Ending.DONE
    site = Site("quantize", "conv0", "weight_bits")
    assert all(site not in t.policy for t in longer.records()[:6])
    untouched = [t for t in longer.records()[6:] if t.policy[site] == 32]
    assert untouched, "half of twelve draws"
    assert all(t.twin is not None and t.twin < 6 for t in untouched), "the older trials are the same networks"
    assert longer.summary()["earlier"]["reused"] == 6


def test_an_operator_that_is_taken_away_excludes_who_used_it(study, storage):
    bare = automc.extend("s", storage=storage, space=space(bits(2, 4, 8)))
    pruned = [t for t in study.records() if any(v for s, v in t.policy.items() if s.operator == "prune")]
    assert bare.summary()["earlier"]["excluded"] == {"outside this space": len(pruned)}


def test_a_constraint_that_nothing_keeps_empties_the_front_and_excludes_nobody(study, storage):
    assert study.front()
    strict = automc.extend("s", storage=storage, constraints=["top1 >= 0.9499"])
    assert strict.front() == strict.front(16) == []
    assert strict.summary()["earlier"]["excluded"] == {}
    loose = automc.extend("s", storage=storage, changes=["constraints=[]"])
    assert [t.number for t in loose.front()] == [t.number for t in study.front()], "and back again"
    assert loose.spec.revision == 2


def test_a_new_objective_is_computed_from_what_was_measured(study, storage):
    aims = {"top1": "maximize", "macs_ratio": "minimize"}
    before = study.front(16)
    other = automc.extend("s", storage=storage, objectives=aims)
    assert other.front() == front(study.records(), other.spec.objectives, ())
    assert other.front(16) == other.front() != before, "also while nobody has searched on"
    assert other.summary()["earlier"]["reused"] == 16


AIMS = {"top1": "maximize", "energy_model_mj": "minimize"}


def test_trials_without_a_new_metric_are_excluded_until_it_is_backfilled(study, storage, capsys):
    members = {t.number for t in study.front()}
    blind = automc.extend("s", storage=storage, objectives=AIMS)
    assert blind.front() == []
    assert blind.summary()["earlier"]["excluded"] == {"without energy_model_mj": 16}
    before = blind.records()
    filled = automc.extend("s", storage=storage, backfill=True)
    said = capsys.readouterr().err
    assert f"measured again: {len(members)} trials" in said
    assert f" {len(members)} earlier trials reused, {16 - len(members)} excluded" in said, "after it was measured"
    assert filled.summary()["earlier"]["reused"] == len(members)
    assert set(filled.evaluator.asked) == {t.policy for t in before if t.number in members}
    assert {t.number for t in filled.front()} <= members
    assert filled.front()
    for old, new in zip(before, filled.records(), strict=True):
        if old.number not in members:
            assert new == old
            continue
        energy = new.measurement.metrics["energy_model_mj"]
        assert energy == pytest.approx(new.measurement.metrics["bops"] / 1e6)
        kept = {k: v for k, v in new.measurement.metrics.items() if k != "energy_model_mj"}
        assert kept == old.measurement.metrics, "what was measured once stays as it is"
        assert new.measurement.errors == {"energy_model_mj": 0.5}
    with pytest.raises(SpecError, match="nothing to backfill"):
        automc.extend("s", storage=storage, backfill=True)


def test_a_backfill_that_does_not_repeat_what_is_stored_is_refused(study, storage, monkeypatch):
    before, spec = study.records(), study.spec

    def drift(self, policy, rung, monitor, rivals=None):
        return Measurement({"top1": 0.5, "size_bytes": 1.0, "energy_model_mj": 1.0})

    monkeypatch.setattr(Metered, "evaluate", drift)
    with pytest.raises(EvaluationError, match=r"backfill: trial \d+ had .* and now has .* nothing is stored"):
        automc.extend("s", storage=storage, objectives=AIMS, backfill=True)
    again = automc.open_study("s", storage)
    assert (again.records(), again.spec) == (before, spec)


def test_a_kill_between_backfill_and_revision_leaves_the_study_as_it_was(study, storage, monkeypatch):
    members = {t.number for t in study.front()}

    def killed(self, spec, facts=None):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SqlStore, "revise", killed)
        with pytest.raises(KeyboardInterrupt):
            automc.extend("s", storage=storage, objectives=AIMS, backfill=True)
    again = automc.open_study("s", storage)
    assert again.spec == study.spec
    assert {t.number for t in again.front()} == members
    done = automc.extend("s", storage=storage, objectives=AIMS, backfill=True)
    assert done.evaluator.asked == [], "what was measured once is not paid twice"
    assert done.front()


def test_the_same_study_with_a_longer_budget_asks_the_same(study, storage, tmp_path):
    """A law: the proposer draws each trial from its number."""
    longer = automc.extend("s", 8, storage=storage)
    longer.run()
    whole = runs.start(given(str(tmp_path / "whole.db"), budget={"trials": 24}))
    whole.run()
    assert [(t.policy, t.measurement.metrics) for t in longer.records()] == [
        (t.policy, t.measurement.metrics) for t in whole.records()
    ]
    spec = replace(longer.spec, budget=whole.spec.budget, revision=0, first_trial=0)
    assert spec == whole.spec


def test_who_waits_outside_the_space_fails_with_that_reason(storage):
    made = runs.start(given(storage))
    with runs.driving.Tenure(made.store, "s"):
        from automc.core.ports import Proposal

        for ratio in (0.2, 0.8):
            wanted = {d.site: d.domain.decode(0.0) for d in made.space.decisions}
            wanted |= {s: ratio for s in wanted if s.setting == "prune_ratio"}
            made.store.add("s", Proposal(made.space.policy(wanted)), 0)
    low = {"operator": "prune", "settings": {"prune_ratio": {"low": 0.0, "high": 0.4, "step": 0.2}}}
    narrow = automc.extend("s", storage=storage, space=space(low, bits(2, 4, 8)), changes=["budget.trials=6"])
    assert narrow.run() is Ending.DONE
    first, second, *rest = narrow.records()
    assert first.state is TrialState.COMPLETE
    assert (second.state, second.reason) == (TrialState.FAILED, EXCLUDED)
    assert "prune_ratio = 0.8 is not in 0..0.4 step 0.2" in second.message
    assert len(rest) == 4


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({}, "say what to change: --trials"),
        ({"changes": ["budget.trials=16"]}, "nothing changes"),
        ({"changes": ["budget.trials=3"]}, "3 is below the 16 trials there are"),
        ({"trials": 10**16}, "budget.trials: 10000000000000016 is above 10000000, the most that a study may have"),
        ({"trials": 5, "warm_start": ["s"]}, "warm start from 's': it is this study, which knows its own trials"),
        ({"seconds": 60}, "all 16 trials of the budget are there"),
        (
            {"changes": ["model=resnet20"]},
            r"model: cannot change: its trials were measured on this network; start a new ",
        ),
        ({"changes": ["evaluator.settings.layers=9"]}, "evaluator: cannot change: its trials were measured with these"),
        ({"changes": ["seed=7"]}, "seed: cannot change: .* with --from s"),
        ({"changes": ["rungs=[{steps: 5}]"]}, "rungs: cannot change: its trials were repaired for so many steps"),
        ({"changes": ["storage=other.db"]}, "storage: cannot change"),
        ({"changes": ["colour=1"]}, "unknown key 'colour'"),
        ({"objectives": {"top1": "maximize", "latency_ms": "minimize"}}, "measures no latency_ms"),
        ({"space": space({"operator": "prune", "layers": "conv9"})}, "no layer 'conv9', did you mean"),
        ({"constraints": ["macs_ratio >= 0.5", "macs_ratio <= 0.4"]}, "cannot both hold"),
        ({"trials": 5, "proposer": "amc"}, "amc"),
        ({"trials": 5, "changes": ["workers.count=9"]}, "window"),
    ],
)
def test_what_may_not_change_or_cannot_work_is_refused_and_nothing_changes(study, storage, wish, message):
    before = study.spec, study.records(), dict(study.store.facts("s"))
    with pytest.raises(SpecError, match=message):
        automc.extend("s", storage=storage, **wish)
    again = automc.open_study("s", storage)
    assert (again.spec, again.records(), dict(again.facts)) == before


def test_a_study_that_is_searched_is_not_revised(study, storage):
    with runs.driving.Tenure(study.store, "s"), pytest.raises(LeaseHeld):
        automc.extend("s", 3, storage=storage)
    assert study.spec.revision == 0


def test_a_failed_write_leaves_the_study_as_it_was(study, storage, monkeypatch):
    def full(self, spec, facts=None):
        raise StoreError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(SqlStore, "revise", full)
        with pytest.raises(StoreError, match="disk full"):
            automc.extend("s", 3, storage=storage, space=space(PRUNE))
    assert automc.open_study("s", storage).spec == study.spec
    assert automc.extend("s", 3, storage=storage).run() is Ending.DONE, "and its lease was given back"


def test_trials_of_another_study_move_along_with_the_space(study, storage):
    made = runs.start(given(storage, name="t", budget={"trials": 2}), ["s"])
    reused = made.summary()["warm_start"][0]["reused"]
    made.run()
    moved = automc.extend("t", 2, storage=storage, space=space(PRUNE, bits(4, 8)))
    (entry,) = moved.summary()["warm_start"]
    outside = sum(2 in weight_bits(t) for t in study.records())
    assert (entry["reused"], entry["excluded"]["outside this space"]) == (reused - outside, outside)
    assert moved.run() is Ending.DONE


def test_another_original_is_refused_in_one_line(study, storage, monkeypatch):
    monkeypatch.setattr(Metered, "drift", 0.1)
    real = Metered._with
    monkeypatch.setattr(Metered, "_with", lambda self, metrics, drift: real(self, metrics, 0.1))
    with pytest.raises(
        SpecError, match=r"the original model had top1 0\.95 when it began and has 1\.05 now; go on with"
    ):
        automc.extend("s", 3, storage=storage)
    assert automc.open_study("s", storage).spec == study.spec


def test_every_key_of_a_study_file_may_change_or_says_why_not():
    from automc.app.study_schema import STUDY_KEYS

    assert {*revising.FIELDS, *revising.FIXED} == set(STUDY_KEYS)
    assert not set(revising.FIELDS) & set(revising.FIXED)


def small(seed):
    torch.manual_seed(seed)
    layers = [
        torch.nn.Conv2d(1, 4, 3),
        torch.nn.ReLU(),
        torch.nn.Conv2d(4, 4, 3),
        torch.nn.Flatten(),
        torch.nn.Linear(64, 3),
    ]
    return torch.nn.Sequential(*layers).eval()


def splits(seed):
    draw = np.random.default_rng(seed)
    one = draw.random((48, 1, 8, 8), dtype=np.float32), draw.integers(0, 3, 48)
    return {"train": one, "search": one, "test": one}


def test_other_weights_or_other_data_are_refused_and_a_backfill_repeats_a_real_network(storage):
    """A network of three layers; a few seconds."""
    said = {"space": space({"operator": "prune", "settings": {"prune_ratio": [0.0, 0.5]}}), "proposer": "random"}
    said |= {"objectives": {"top1": "maximize", "size_bytes": "minimize"}, "workers": {"count": 0}, "storage": storage}
    automc.search(small(0), splits(0), trials=2, name="real", **said)
    for model, data, what in ((small(1), splits(0), "model"), (small(0), splits(1), "data")):
        with pytest.raises(
            SpecError, match=rf"study 'real': its {what} changed since it began \(\w{{12}} -> \w{{12}}\)"
        ):
            automc.resume("real", storage, model=model, data=data).run()
        with pytest.raises(SpecError, match=f"its {what} changed"):
            automc.extend("real", 2, storage=storage, model=model, data=data)
    same = {"storage": storage, "model": small(0), "data": splits(0)}
    before = automc.open_study("real", **same).records()
    aims = {"top1": "maximize", "latency_torch_ms": "minimize"}
    timed = automc.extend("real", objectives=aims, backfill=True, **same)
    (member, *_) = timed.front()
    assert member.measurement.metrics["latency_torch_ms"] > 0
    assert "latency_torch_ms" in timed.baseline
    stored = before[member.number].measurement.metrics
    assert {name: member.measurement.metrics[name] for name in stored} == stored


def test_the_command_says_what_it_does(study, storage, capsys):
    capsys.readouterr()
    more = ["--set", "space.rules[1].settings.weight_bits=[4, 8]", "--set", "stopper=median", "--seconds", "9"]
    assert main(["extend", "s", "--trials", "+2", *more, "--storage", storage, "--json"]) == 0
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert "revision 1: budget.seconds: none -> 9.0" in err
    assert said["revisions"][0]["changes"][-1] == "space: quantize weight_bits: {2, 4, 8} -> {4, 8} (2 sites)"
    assert "stopper: never -> median" in said["revisions"][0]["changes"]
    example = said["earlier"]["examples"]["outside this space"]
    assert example["because"].endswith("weight_bits = 2 is not in {4, 8}")
    assert sum(said["counts"].values()) == 18
    assert main(["extend", "s", "--storage", storage]) == 2
    assert "say what to change" in capsys.readouterr().err
