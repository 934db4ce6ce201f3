"""Databases that an older automc wrote: they are upgraded, and nothing in them is lost."""

from __future__ import annotations

import math
import os
import re
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from automc.core.metrics import Measurement
from automc.core.trial import TrialState
from automc.stores import open_store, tables
from automc.stores.engine import make_engine, parse_url
from automc.stores.schema import backup_path, prepare
from automc.stores.sql import SqlStore

POSTGRESQL = os.environ.get("AUTOMC_TEST_POSTGRESQL", "")

RELEASED = Path(__file__).with_name("released_0001.sql")
"""A database as automc with schema 0001 wrote it: six trials in all states, a report, a twin."""

RELEASED_2 = Path(__file__).with_name("released_0002.sql")
"""The same with schema 0002: a search on the synthetic network that was stopped after five of twelve trials, and two
latencies. Its layer table is of before there were sensitivity tables.
"""


def sql(path: Path, text: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(text).fetchall()


def test_a_released_database_is_upgraded_and_keeps_its_trials(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(RELEASED.read_text())
    for _ in range(2):
        found = open_store(str(path), create=False)
        trials = found.trials("old")
        metrics = {t.number: dict(t.measurement.metrics) for t in trials if t.measurement}
        assert metrics == {
            0: {"loss": 0.1, "size_bytes": 4096.0, "top1": 0.975},
            1: {"loss": math.inf, "top1": 0.5},
            4: {"loss": 0.1, "size_bytes": 4096.0, "top1": 0.975},
        }
        assert [(dict(t.measurement.errors), t.measurement.samples) for t in trials if t.measurement] == [({}, 0)] * 3
        assert [t.state.value for t in trials] == ["complete", "stopped", "failed", "running", "complete", "waiting"]
        assert [t.twin for t in trials] == [None, None, None, None, 0, None]
        assert repr(list(found.notes("old", 0))) == "[(10, 0.5), (20, nan)]"
        assert found.spec("old").objectives[1].metric == "size_bytes"
        assert found.latencies("cpu") == {}
        found.close()
    assert sql(path, "SELECT version_num FROM automc_version") == [(tables.HEAD,)]
    assert sql(backup_path(path, "0001"), "SELECT version_num FROM automc_version") == [("0001",)]
    assert sql(backup_path(path, "0001"), "SELECT count(*) FROM automc_trial") == [(6,)]
    assert sql(path, "SELECT top1, top1_error, samples FROM automc_trials WHERE trial = 0") == [(0.975, None, 0)]


def test_a_released_database_of_the_second_schema_keeps_errors_and_latencies(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(RELEASED_2.read_text())
    found = open_store(str(path), create=False)
    measured = [t.measurement for t in found.trials("old")]
    assert [(m.samples, sorted(m.errors)) for m in measured if m] == [(400, ["top1"])] * 5
    assert found.latencies("cpu") == {"conv 3x3 16": 0.25, "linear 10": 0.01}
    assert found.memory("old") is None
    found.keep_memory("old", 3, b"state")
    assert found.memory("old") == (3, b"state")
    found.close()
    assert sql(path, "SELECT version_num FROM automc_version") == [(tables.HEAD,)]
    assert sql(backup_path(path, "0002"), "SELECT version_num FROM automc_version") == [("0002",)]
    assert sql(path, "SELECT revision, told, state FROM automc_agent_state") == [(0, 3, b"state")]


def test_a_search_of_an_older_automc_goes_on(path: Path) -> None:
    """Its facts have no sensitivities and no warm start. The rest is searched as if it had never been stopped."""
    from automc.app import runs
    from automc.core.search import Ending
    from automc.stores.memory import MemoryStore

    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(RELEASED_2.read_text())
    study = runs.resume("old", str(path))
    assert (bool(study.layers.sensitivity), study.summary()["warm_start"]) == (False, [])
    assert study.run() is Ending.DONE
    whole = MemoryStore()
    whole.create(study.spec, study.facts)
    anew = runs.Study("old", whole, "memory:")
    anew.run()
    assert [t.policy for t in study.records()] == [t.policy for t in anew.records()]
    assert len(study.records()) == 12
    study.close()


@pytest.mark.parametrize("released", [RELEASED, RELEASED_2], ids=["0001", "0002"])
def test_an_upgraded_database_is_made_like_a_new_one(store: SqlStore, path: Path, released: Path) -> None:
    """Tables, indices, views and checks of both: columns may stand in another order, so their sets are compared."""
    old = path.with_name("released.db")
    with closing(sqlite3.connect(old)) as connection:
        connection.executescript(released.read_text())
    open_store(str(old)).close()
    schemas = []
    for file in (path, old):
        rows = sql(file, "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")
        schemas.append({(kind, name): " ".join(str(text).split()) for kind, name, text in rows})
    assert schemas[0] == schemas[1]


def test_an_upgraded_database_takes_a_new_measurement(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(RELEASED.read_text())
    store = open_store(str(path))
    measured = Measurement({"top1": 0.5}, {}, None, 1.0, {"top1": 0.01}, 400)
    running = store.trials("old", [TrialState.RUNNING])[0]
    store.move("old", running.to(TrialState.COMPLETE, measurement=measured))
    assert store.trials("old")[3].measurement == measured
    store.close()
    assert sql(path, "SELECT top1_error, samples FROM automc_trials WHERE trial = 3") == [(0.01, 400)]


@pytest.mark.skipif(not POSTGRESQL, reason="set AUTOMC_TEST_POSTGRESQL to the URL of a PostgreSQL database")
def test_postgresql_is_upgraded_with_its_trials() -> None:
    """The released rows in a schema that revision 0001 builds, then the upgrade."""
    import psycopg

    name = f"automc_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(POSTGRESQL, autocommit=True) as server:
        server.execute(f"CREATE SCHEMA {name}")  # type: ignore[arg-type]
        try:
            url = f"{POSTGRESQL}?options=-csearch_path%3D{name}"
            engine = make_engine(parse_url(url))
            prepare(engine, True, "0001")
            wanted = ("study", "revision", "policy", "trial", "metric", "point")  # in the order of their references
            rows = {t: re.findall(rf'^INSERT INTO ("automc_{t}" .*);$', RELEASED.read_text(), re.M) for t in wanted}
            with engine.begin() as connection:
                for table in wanted:
                    for row in rows[table]:
                        connection.execute(sa.text(f"INSERT INTO {row}".replace(":", "\\:")))
            engine.dispose()
            store = open_store(url, create=False)
            measured = store.trials("old")[0].measurement
            assert measured is not None
            assert (dict(measured.metrics), dict(measured.errors), measured.samples) == (
                {"loss": 0.1, "size_bytes": 4096.0, "top1": 0.975},
                {},
                0,
            )
            assert len(store.trials("old")) == 6
            new = Measurement({"top1": 0.5}, {}, None, 1.0, {"top1": math.inf}, 400)
            store.move("old", store.trials("old")[3].to(TrialState.COMPLETE, measurement=new))
            assert store.trials("old")[3].measurement == new
            store.close()
        finally:
            server.execute(f"DROP SCHEMA {name} CASCADE")  # type: ignore[arg-type]
