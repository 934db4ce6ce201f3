"""Killed, crowded and full: what was acknowledged is there, and nothing is there by half."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from automc.core.metrics import METRICS, Measurement
from automc.core.ports import Proposal
from automc.core.store import Control
from automc.core.trial import TrialState
from automc.errors import StoreError
from automc.stores.engine import journal, make_engine, parse_url, writer
from automc.stores.sql import SqlStore

ORDER = [TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE]


def integrity(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        broken = connection.execute("PRAGMA foreign_key_check").fetchall()
        return [text for (text,) in connection.execute("PRAGMA integrity_check")] + [str(row) for row in broken]


def test_ten_killed_writers_lose_nothing_they_were_told(
    store: SqlStore, path: Path, children: Callable[..., list[str]]
) -> None:
    store.close()
    lines = children("kills", path, 10)
    assert len(lines) > 30, lines
    assert not [line for line in lines if line.startswith("error")]
    told = {int(number): TrialState(state) for number, state in (line.split() for line in lines)}
    assert integrity(path) == ["ok"]
    trials = SqlStore(str(path), create=False).trials("s")
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert max(told) < len(trials) <= max(told) + 2
    for trial in trials:
        said = told.get(trial.number, TrialState.WAITING)
        assert ORDER.index(said) <= ORDER.index(trial.state) <= ORDER.index(said) + 1
        assert (trial.measurement is not None) == (trial.state is TrialState.COMPLETE)
        if trial.measurement:
            assert trial.measurement.metrics == dict.fromkeys(METRICS, float(trial.number))
    with closing(sqlite3.connect(path)) as connection:
        events = Counter(kind for (kind,) in connection.execute("SELECT kind FROM automc_event"))
    assert events["add"] == len(trials)
    assert events["move"] == sum(ORDER.index(trial.state) for trial in trials)


def test_writers_that_compete_wait_for_each_other(
    store: SqlStore, path: Path, children: Callable[..., list[str]]
) -> None:
    lines = children("crowd", path, 3, 20)
    assert sorted(map(int, lines)) == list(range(60))
    assert [trial.number for trial in store.trials("s")] == list(range(60))


def test_of_processes_that_want_one_lease_one_gets_it(
    store: SqlStore, path: Path, children: Callable[..., list[str]]
) -> None:
    assert sorted(children("takers", path, 4)) == ["refused"] * 3 + ["taken"]
    assert store.ask("s", Control.STOP) is None  # its owner was killed


def test_processes_that_make_the_database_at_once_make_one(path: Path, children: Callable[..., list[str]]) -> None:
    assert children("openers", path, 4) == ["0"] * 4
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM automc_version").fetchall() == [(1,)]
        assert connection.execute("PRAGMA journal_mode").fetchall() == [(journal(),)]


def test_a_full_disk_is_said_and_leaves_the_last_whole_state(store: SqlStore, path: Path, proposal: Proposal) -> None:
    with store._engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 3}")
    added = []

    def fill() -> None:
        for _ in range(500):
            added.append(store.add("s", Proposal(proposal.policy, "m" * 500), 0))

    with pytest.raises(StoreError, match=f"^{path}: the disk is full; free some space[^\n]*$"):
        fill()
    assert 0 < len(added) < 100
    assert store.trials("s") == added
    assert integrity(path) == ["ok"]
    with store._engine.connect() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 1000}")
    assert store.add("s", proposal, 0).number == len(added)


def test_a_step_is_taken_whole_or_not_at_all(store: SqlStore, proposal: Proposal) -> None:
    running = store.move("s", store.add("s", proposal, 0).to(TrialState.RUNNING))
    with store._engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER no_events BEFORE INSERT ON automc_event BEGIN SELECT RAISE(ABORT, 'no events today'); END"
        )
    done = running.to(TrialState.COMPLETE, measurement=Measurement({"top1": 0.5}))
    with pytest.raises(StoreError, match="no events today"):
        store.move("s", done)
    assert store.trials("s") == [running]
    with store._engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM automc_metric").scalar() == 0
        connection.exec_driver_sql("DROP TRIGGER no_events")
    assert store.move("s", done).state is TrialState.COMPLETE


def test_a_database_that_another_process_keeps_locked_is_said(
    store: SqlStore, path: Path, proposal: Proposal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("automc.stores.engine.BUSY_SECONDS", 0.1)
    impatient = SqlStore(str(path))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match=f"^{path}: another process kept it locked"):
            impatient.add("s", proposal, 0)
        other.execute("ROLLBACK")
    assert impatient.add("s", proposal, 0).number == 0
    impatient.close()


def test_a_commit_follows_at_once_when_the_last_reader_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(parse_url(str(tmp_path / "rollback.db")))
    with writer(engine).begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (x)")
    waits: list[float] = []
    with closing(sqlite3.connect(tmp_path / "rollback.db", isolation_level=None)) as other:
        other.execute("BEGIN")
        assert other.execute("SELECT count(*) FROM t").fetchone() == (0,)

        def wait(seconds: float) -> None:
            waits.append(seconds)
            late = sqlite3.connect(tmp_path / "rollback.db", timeout=0)
            with closing(late), pytest.raises(sqlite3.OperationalError, match="locked"):  # it would be waited for, too
                late.execute("SELECT * FROM t")
            if len(waits) == 200:
                other.execute("ROLLBACK")

        monkeypatch.setattr("automc.stores.engine.time.sleep", wait)
        with writer(engine).begin() as connection:
            connection.exec_driver_sql("INSERT INTO t VALUES (1)")
        assert waits == [0.001] * 200
        assert other.execute("SELECT x FROM t").fetchall() == [(1,)]
    engine.dispose()


def test_a_commit_that_readers_never_let_through_is_said_and_leaves_nothing(
    store: SqlStore, path: Path, proposal: Proposal, monkeypatch: pytest.MonkeyPatch
) -> None:
    if journal() == "wal":
        pytest.skip("with a write-ahead log a commit waits for nobody who reads")
    impatient = SqlStore(str(path))
    monkeypatch.setattr("automc.stores.engine.BUSY_SECONDS", 0.1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM automc_study").fetchone()
        with pytest.raises(StoreError, match=f"^{path}: another process kept it locked"):
            impatient.add("s", proposal, 0)
    assert impatient.trials("s") == []
    assert impatient.add("s", proposal, 0).number == 0
    impatient.close()
