"""The study of a hundred thousand trials that figures are taken on is one as a search would have written it."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from automc.app.study import Study
from automc.core.history import front_after
from automc.core.pareto import front
from automc.core.policy import Policy
from automc.core.trial import TrialState
from automc.stores.decisions import packed
from automc.stores.paging import Listing
from automc.stores.sql import SqlStore

FILLED = runpy.run_path(str(Path(__file__).parents[2] / "experiments" / "benchmarks" / "engine" / "filled.py"))


def test_a_filled_study_reads_like_any_other(path: Path) -> None:
    store = SqlStore(str(path))
    FILLED["fill"](store, trials=400)
    trials, spec = store.trials("filled"), store.spec("filled")
    assert [trial.number for trial in trials] == list(range(400))
    assert {len(trial.policy) for trial in trials} == {60}
    assert store.finishing("filled") == [trial.number for trial in trials if trial.state.finished]
    members = sorted(trial.number for trial in front(trials, spec.objectives, spec.constraints))
    assert front_after(store.front_changes("filled")) == members
    with store._reading() as connection:
        rows = connection.exec_driver_sql(
            "SELECT json, decisions FROM automc_trial JOIN automc_policy ON policy = fingerprint"
        )
        for text, decisions in rows:
            policy = Policy.from_json(text)
            assert (policy.to_json(), packed(policy)) == (text, decisions)
    where = 'all layer("layer3.*").weight_bits >= 3 and kd_temperature > 2 and prune.criterion == l1'
    assert 0 < len(store.page("filled", Listing(where)).rows) < 100
    store.close()


def test_what_is_asked_of_many_trials_is_what_all_of_them_say(path: Path) -> None:
    """The front by its record, a picture of some trials, a filter over all: each against reading everything."""
    store = SqlStore(str(path))
    FILLED["fill"](store, trials=1500)
    study = Study("filled", store, str(path))
    trials, spec = study.records(), study.spec
    assert study.front() == front(trials, spec.objectives, spec.constraints)
    some, left_out = study.sample(100)
    assert (len(some), left_out) == (100, 1400)
    assert [trial.number for trial in some][::99] == [0, 1499]
    assert repr([trials[trial.number] for trial in some]) == repr(some)
    facts = study.summary()
    assert facts["counts"]["complete"] == sum(trial.state is TrialState.COMPLETE for trial in trials)
    assert facts["seconds"] == pytest.approx(sum(t.measurement.seconds for t in trials if t.measurement))
    assert facts["median_errors"]["top1"] == 0.004
    where, names = "top1 >= 0.6 and size_ratio < 0.06", ("number", "loss", "loss_error", "top1")
    rows = store.page("filled", Listing(where, ("-size_ratio",), columns=names)).rows
    paged = store.page("filled", Listing(where, ("-size_ratio",), limit=10_000, columns=names)).rows
    assert repr(rows) == repr(paged)
    assert 0 < len(rows) < 100
    store.close()
