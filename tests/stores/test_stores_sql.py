"""What SQL users find, and what the numbers of a column look like."""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from automc.core.metrics import Measurement
from automc.core.ports import Proposal
from automc.core.trial import TrialState
from automc.stores.sql import SqlStore


def sql(path: Path, text: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(text).fetchall()


def test_the_layer_view_has_a_row_for_each_decision(store: SqlStore, path: Path, proposal: Proposal) -> None:
    for _ in range(2):
        store.add("s", proposal, 0)
    expected = [("s", n, *site, value) for n in range(2) for site, value in proposal.policy.items()]
    rows = sql(path, "SELECT study, trial, operator, layer, setting, value FROM automc_trial_layers")
    assert sorted(rows, key=str) == sorted(expected, key=str)
    assert len(rows) == 6


def test_the_trial_view_has_the_metrics_as_columns(store: SqlStore, path: Path, proposal: Proposal) -> None:
    running = store.move("s", store.add("s", proposal, 1).to(TrialState.RUNNING))
    found = Measurement({"top1": 0.9, "size_bytes": 1234.0, "loss": math.nan}, seconds=2.5)
    store.move("s", running.to(TrialState.COMPLETE, measurement=found))
    store.add("s", proposal, 0)
    query = (
        "SELECT study, trial, state, rung, top1, size_bytes, loss, macs, seconds, policy FROM automc_trials ORDER BY 2"
    )
    fingerprint = proposal.policy.fingerprint
    assert sql(path, query) == [
        ("s", 0, "complete", 1, 0.9, 1234.0, None, None, 2.5, fingerprint),
        ("s", 1, "waiting", 0, None, None, None, None, None, fingerprint),
    ]


def test_a_policy_is_stored_once_under_its_fingerprint(store: SqlStore, path: Path, proposal: Proposal) -> None:
    for _ in range(5):
        store.add("s", proposal, 0)
    assert sql(path, "SELECT * FROM automc_policy") == [(proposal.policy.fingerprint, proposal.policy.to_json())]


def test_a_number_that_is_none_is_a_kind_beside_null(store: SqlStore, path: Path, proposal: Proposal) -> None:
    running = store.move("s", store.add("s", proposal, 0).to(TrialState.RUNNING))
    metrics = {"top1": 0.5, "loss": math.nan, "macs": math.inf, "bops": -math.inf}
    store.move("s", running.to(TrialState.COMPLETE, measurement=Measurement(metrics)))
    rows = sql(path, "SELECT name, value, kind FROM automc_metric ORDER BY name")
    assert rows == [("bops", None, "-inf"), ("loss", None, "nan"), ("macs", None, "+inf"), ("top1", 0.5, "finite")]


def test_every_step_is_an_event_and_its_time_is_kept(store: SqlStore, path: Path, proposal: Proposal) -> None:
    running = store.move("s", store.add("s", proposal, 2).to(TrialState.RUNNING))
    store.move("s", running.to(TrialState.FAILED, reason="oom", message="no memory"))
    assert sql(path, "SELECT number, kind, text FROM automc_event ORDER BY id") == [
        (None, "create", "study s"),
        (0, "add", "rung 2"),
        (0, "move", "waiting -> running, attempt 1"),
        (0, "move", "running -> failed, attempt 1, oom: no memory"),
    ]
    ((created, started, finished),) = sql(path, "SELECT created, started, finished FROM automc_trial")
    assert str(created) <= str(started) <= str(finished)
    assert str(created).endswith("Z")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE automc_trial SET state = 'lost'",
        "UPDATE automc_metric SET kind = 'odd'",
        "UPDATE automc_metric SET value = NULL",
        "UPDATE automc_metric SET kind = 'nan'",
        "UPDATE automc_trial SET policy = 'none'",
        "DELETE FROM automc_trial",
    ],
)
def test_the_database_itself_refuses_nonsense(store: SqlStore, path: Path, proposal: Proposal, change: str) -> None:
    running = store.move("s", store.add("s", proposal, 0).to(TrialState.RUNNING))
    store.move("s", running.to(TrialState.COMPLETE, measurement=Measurement({"top1": 0.5})))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA foreign_keys=ON")
        with pytest.raises(sqlite3.IntegrityError, match="constraint failed"):
            connection.execute(change)


def test_many_trials_read_back_like_few(store: SqlStore, proposal: Proposal) -> None:
    """Above 500 trials their metrics and policies are read by range, not by list."""
    added = [store.add("s", proposal, 0) for _ in range(3)]
    with store._engine.begin() as connection:
        connection.exec_driver_sql(
            "WITH RECURSIVE n(i) AS (SELECT 3 UNION ALL SELECT i + 1 FROM n WHERE i < 599) "
            "INSERT INTO automc_trial SELECT study_id, i, policy, memo, 'complete', rung, reason, message, attempts, "
            "twin, '{}', artifact, 0.0, created, started, finished, samples, NULL, layout, "
            "decisions FROM automc_trial, n WHERE number = 0"
        )
        connection.exec_driver_sql(
            "INSERT INTO automc_metric SELECT study_id, number, 'top1', number, 'finite', NULL, NULL "
            "FROM automc_trial WHERE number >= 3"
        )
    trials = store.trials("s")
    assert trials[:3] == added
    assert [t.measurement.metrics for t in trials[3:] if t.measurement] == [{"top1": float(i)} for i in range(3, 600)]
    assert [t.number for t in store.query("s", "top1 > 10", ("-top1",))] == list(range(599, 10, -1))
