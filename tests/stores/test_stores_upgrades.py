"""Databases that an older automc wrote: they are upgraded, and nothing in them is lost."""

from __future__ import annotations

import json
import math
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from servers import new_schema

from automc.core.history import front_after
from automc.core.metrics import Measurement
from automc.core.pareto import front
from automc.core.store import Control, Owner
from automc.core.tally import tally
from automc.core.trial import TrialState
from automc.errors import IllegalTransition
from automc.stores import open_store, tables
from automc.stores.engine import make_engine, parse_url
from automc.stores.schema import backup_path, prepare
from automc.stores.sql import SqlStore

RELEASED = Path(__file__).with_name("released_0001.sql")
"""A database as automc with schema 0001 wrote it: six trials in all states, a report, a twin."""

RELEASED_2 = Path(__file__).with_name("released_0002.sql")
"""The same with schema 0002: a search on the synthetic network that was stopped after five of twelve trials, and two
latencies. Its layer table is of before there were sensitivity tables.
"""

RELEASED_3 = Path(__file__).with_name("released_0003.sql")
"""The same with schema 0003: a search with two rungs on the synthetic network that was interrupted after eleven of
sixteen trials, its reports, a memory of a proposer, a lease that was given back.
"""

RELEASED_4, RELEASED_5 = (Path(__file__).with_name(f"released_{version}.sql") for version in ("0004", "0005"))
"""The same search with schemas 0004 and 0005: attempts, changes of the front, a file that was made of a trial, and with
the second layouts and packed decisions.
"""

TRUE_LAST = ("attempt", "front_change")
"""Tables whose last column is true or false, which SQLite writes as numbers."""

ALL = pytest.mark.parametrize(
    "released",
    [RELEASED, RELEASED_2, RELEASED_3, RELEASED_4, RELEASED_5],
    ids=["0001", "0002", "0003", "0004", "0005"],
)


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
    from automc.evaluation.synthetic import prepare_synthetic
    from automc.stores.codec import read_spec
    from automc.stores.memory import MemoryStore

    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(RELEASED_2.read_text())
        (facts,) = connection.execute("SELECT facts FROM automc_study").fetchone()
        # The imaginary network of today has other bytes; a real one that had would be refused.
        spec = read_spec("old", connection.execute("SELECT spec FROM automc_revision").fetchone()[0])
        known = {**json.loads(facts), "baseline": dict(prepare_synthetic(spec).baseline)}
        connection.execute("UPDATE automc_study SET facts = ?", (json.dumps(known),))
        connection.commit()
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


def test_a_released_database_of_the_third_schema_keeps_its_reports_and_memories(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(RELEASED_3.read_text())
    before = sql(path, "SELECT * FROM automc_point")
    found = open_store(str(path), create=False)
    assert found.memory("old") == (5, b"state")
    assert [step for step, _ in found.notes("old", 10)] == [4, 8, 12, 16, 20]
    assert found.asked("old") is Control.GO
    found.take("old", Owner("h", 1))
    found.close()
    assert sql(path, "SELECT * FROM automc_metric_point") == before
    assert sql(path, "SELECT fence FROM automc_lease") == [(2,)], "what an older driver still writes stays fenced"
    assert sql(backup_path(path, "0003"), "SELECT count(*) FROM automc_point") == [(len(before),)]


@pytest.mark.parametrize("released", [RELEASED_4, RELEASED_5], ids=["0004", "0005"])
def test_a_released_database_keeps_the_history_it_has(path: Path, released: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(released.read_text())
    kept = ("automc_attempt", "automc_front_change", "automc_artifact", "automc_event", "automc_layer")
    before = [sql(path, f"SELECT * FROM {table}") for table in kept]
    assert all(before)
    found = open_store(str(path), create=False)
    assert [sql(path, f"SELECT * FROM {table}") for table in kept] == before
    assert [(a.number, a.file, a.proof) for a in found.artifacts("old")] == [(0, "model.safetensors", {"passed": True})]
    trials = found.trials("old")
    assert len(trials) == 11
    where = 'layer("*").weight_bits <= 4'
    expected = [t.number for t in trials if any(s.setting == "weight_bits" and v <= 4 for s, v in t.policy.items())]  # type: ignore[operator]
    assert [trial.number for trial in found.query("old", where)] == expected
    assert list(found.tally("old")) == tally(trials)
    found.close()


@ALL
def test_an_upgrade_finds_the_history_of_what_is_there(path: Path, released: Path) -> None:
    """Attempts, order and front by the trials alone, each trial against all that had finished before it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(released.read_text())
    told = sql(path, "SELECT number FROM automc_trial WHERE finished IS NOT NULL ORDER BY finished, number")
    found = open_store(str(path), create=False)
    trials, spec, changes = found.trials("old"), found.spec("old"), found.front_changes("old")
    order = found.finishing("old")
    assert order == [number for (number,) in told]
    for place in range(len(order) + 1):
        known = sorted((trials[number] for number in order[:place]), key=lambda trial: trial.number)
        expected = {trial.number for trial in front(known, spec.objectives, spec.constraints)}
        assert set(front_after(changes, place)) == expected
    assert changes
    runs = {(a.number, a.attempt, a.state, a.reason, a.late) for a in found.attempts("old")}
    assert runs == {(t.number, t.attempts, t.state, t.reason, False) for t in trials if t.attempts}
    layers = found.facts("old").get("layers")
    found.close()
    rows = sql(path, "SELECT name, kind, out_shape, params, macs, group_name FROM automc_layer ORDER BY position")
    keys = ("name", "kind", "out_shape", "params", "macs", "group")
    if isinstance(layers, dict):
        expected_rows = [tuple(layer[key] for key in keys) for layer in layers["layers"]]
        assert [(*row[:2], json.loads(str(row[2])), *row[3:]) for row in rows] == expected_rows
        ((params, macs),) = sql(path, "SELECT params, macs FROM automc_model")
        assert params == sum(layer["params"] for layer in layers["layers"])
        assert macs == sum(layer["macs"] for layer in layers["layers"])
    else:
        assert rows == []


@ALL
def test_processes_that_upgrade_at_once_upgrade_once(
    path: Path, released: Path, children: Callable[..., list[str]]
) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(released.read_text())
    ((count,),) = sql(path, "SELECT count(*) FROM automc_trial")
    assert children("openers", path, 4) == ["1"] * 4
    assert sql(path, "SELECT version_num FROM automc_version") == [(tables.HEAD,)]
    assert sql(path, "SELECT count(*) FROM automc_trial") == [(count,)]
    assert sql(path, "PRAGMA integrity_check") == [("ok",)]
    assert sql(path, "PRAGMA foreign_key_check") == []
    version = released.stem.removeprefix("released_")
    assert sql(backup_path(path, version), "SELECT version_num FROM automc_version") == [(version,)]
    assert not list(path.parent.glob("*.part"))


@ALL
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


@ALL
def test_postgresql_is_upgraded_as_sqlite_is(path: Path, released: Path, postgresql: str) -> None:
    """The released rows in a schema that the older revisions build, then the upgrade."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(released.read_text())
    with new_schema(postgresql) as url:
        engine = make_engine(parse_url(url))
        prepare(engine, True, released.stem.removeprefix("released_"))
        wanted = ("study", "revision", "policy", "trial", "metric", "point")  # in the order of their references
        wanted += ("layout", "metric_point", "attempt", "front_change")
        rows = {t: re.findall(rf'^INSERT INTO ("automc_{t}" .*);$', released.read_text(), re.M) for t in wanted}
        with engine.begin() as transaction:
            for table in wanted:
                for row in rows[table]:
                    bytes_of = re.sub(r"X'([0-9A-F]*)'", r"decode('\1', 'hex')", row)
                    truths = re.sub(r",([01])\)$", r",\1 = 1)", bytes_of) if table in TRUE_LAST else bytes_of
                    transaction.execute(sa.text(f"INSERT INTO {truths}".replace(":", "\\:")))
        engine.dispose()
        stores = open_store(str(path)), open_store(url, create=False)
        assert repr(stores[0].trials("old")) == repr(stores[1].trials("old"))
        for read in ("spec", "facts", "attempts", "finishing", "front_changes"):
            found = [getattr(store, read)("old") for store in stores]
            assert found[0] == found[1]
        assert repr(stores[0].notes("old", 0)) == repr(stores[1].notes("old", 0))
        trial = stores[1].trials("old")[0]
        with pytest.raises(IllegalTransition, match="is complete"):
            stores[1].move("old", replace(trial, state=TrialState.RUNNING))
        for store in stores:
            store.close()
