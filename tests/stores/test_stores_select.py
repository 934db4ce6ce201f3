"""SQL of people: it answers, it cannot write, and it cannot take the machine with it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import pytest
from servers import new_schema

from automc.core.metrics import Measurement
from automc.core.policy import Policy, Site
from automc.core.ports import Proposal
from automc.core.study import StudySpec
from automc.core.trial import TrialState
from automc.errors import SpecError, StoreError
from automc.stores.memory import MemoryStore
from automc.stores.select import VIEWS, Caps
from automc.stores.sql import SqlStore


@pytest.fixture(params=["sqlite", "postgresql"])
def filled(request: pytest.FixtureRequest, path: Path, spec: StudySpec) -> Iterator[SqlStore]:
    """A study ``s`` with three complete trials, of which trial 2 alone is on the front, and one that waits."""
    here = nullcontext(str(path)) if request.param == "sqlite" else new_schema(request.getfixturevalue("postgresql"))
    with here as url, closing(SqlStore(url)) as found:
        yield fill(found, spec)


def fill(found: SqlStore, spec: StudySpec) -> SqlStore:
    found.create(spec, {})
    policy = Policy({Site("quantize", "conv1", "weight_bits"): 4, Site("distill", "*", "kd_temperature"): 2.5})
    for number in range(4):
        trial = found.add("s", Proposal(policy), 0)
        if number < 3:
            running = found.move("s", trial.to(TrialState.RUNNING))
            measured = Measurement({"top1": number / 4}, errors={"top1": 0.125})
            front = {number: True} | ({number - 1: False} if number else {})
            found.move("s", running.to(TrialState.COMPLETE, measurement=measured), front=front)
    return found


def ask(store: SqlStore, sql: str, rows: int = 100, seconds: float = 10.0) -> list[tuple[object, ...]]:
    return store.select(sql, Caps(rows, seconds)).rows


def test_the_views_have_short_names(filled: SqlStore) -> None:
    top1 = "SELECT study, trial, top1 FROM trials WHERE state = 'complete' ORDER BY trial"
    assert ask(filled, top1) == [("s", 0, 0.0), ("s", 1, 0.25), ("s", 2, 0.5)]
    assert ask(filled, "SELECT trial, top1, top1_error FROM front;") == [(2, 0.5, 0.125)]
    assert ask(filled, "SELECT metric, value, kind, error FROM metrics WHERE trial = 1") == [
        ("top1", 0.25, "finite", 0.125)
    ]
    layers = "SELECT operator, layer, setting FROM trial_layers WHERE trial = 3 ORDER BY operator -- a comment"
    assert ask(filled, layers) == [("distill", "*", "kd_temperature"), ("quantize", "conv1", "weight_bits")]
    assert ask(filled, "WITH t AS (SELECT max(top1) AS m FROM trials) SELECT m FROM t") == [(0.5,)]
    assert ask(filled, "VALUES (1, 'x', NULL)") == [(1, "x", None)]
    for view, whole in VIEWS.items():
        assert ask(filled, f"SELECT count(*) FROM {view}") == ask(filled, f"SELECT count(*) FROM {whole}")


def test_columns_of_the_same_name_stay_two(filled: SqlStore) -> None:
    found = filled.select("SELECT a.trial, b.trial FROM trials a JOIN trials b ON a.trial = b.trial", Caps())
    assert found.columns == ["trial", "trial_2"]


def test_on_sqlite_a_statement_ends_before_a_driver_gives_up_waiting(filled: SqlStore) -> None:
    if filled._engine.dialect.name == "sqlite":
        with pytest.raises(SpecError, match=r"^query: seconds must be 45 at most on SQLite, not 46: .* waits 60 s"):
            ask(filled, "SELECT 1", seconds=46)
    else:
        assert ask(filled, "SELECT 1", seconds=46) == [(1,)]


def test_an_answer_ends_at_its_rows(filled: SqlStore) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    assert filled.select(endless, Caps(rows=3, seconds=20)) == (["i"], [(1,), (2,), (3,)], True)
    assert filled.select("SELECT trial FROM trials", Caps(rows=4)).more is False
    assert filled.select("SELECT trial FROM trials", Caps(rows=3)).more is True


@pytest.mark.parametrize(
    "sql",
    [
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9999) "
        "SELECT count(*) FROM n a, n b, n c WHERE a.i + b.i + c.i = -1",
    ],
)
def test_a_statement_ends_at_its_seconds(filled: SqlStore, sql: str) -> None:
    started = time.monotonic()
    with pytest.raises(SpecError, match=r"^query: ended after 0.3 s; narrow it, or give it more seconds$"):
        ask(filled, sql, seconds=0.3)
    assert time.monotonic() - started < 30


def test_one_call_of_hours_ends_too_and_leaves_no_lock(path: Path, spec: StudySpec) -> None:
    """SQLite looks at no clock within a call: to search 6 MB in 8 MB of zeros takes it hours."""
    with closing(SqlStore(str(path))) as store:
        fill(store, spec)
        started = time.monotonic()
        call = "SELECT trial, instr(hex(zeroblob(4000000)), hex(zeroblob(3000000)) || '1') FROM trials"
        with pytest.raises(SpecError, match=r"^query: ended after 0.3 s"):
            store.select(call, Caps(seconds=0.3))
        assert time.monotonic() - started < 30
        store.move("s", store.trials("s", [TrialState.WAITING])[0].to(TrialState.RUNNING))


WRITES = [
    "DELETE FROM automc_trial",
    "UPDATE automc_trial SET state = 'failed'",
    "INSERT INTO automc_policy VALUES ('x', '{}')",
    "DROP TABLE automc_event",
    "DROP VIEW trials",
    "CREATE TABLE mine (x INTEGER)",
    "CREATE TEMP TABLE mine (x INTEGER)",
    "WITH gone AS (DELETE FROM automc_event RETURNING *) SELECT * FROM gone",
    "INSERT INTO automc_policy SELECT 'x', '{}' RETURNING *",
    "COMMIT",
    "ROLLBACK",
    "BEGIN",
    "SAVEPOINT x",
    "VACUUM",
    "REINDEX",
    "ANALYZE",
    "EXPLAIN DELETE FROM automc_trial",
]
OF_SQLITE = [
    "ATTACH 'other.db' AS other",
    "VACUUM INTO 'copy.db'",
    "PRAGMA query_only = OFF",
    "PRAGMA writable_schema = ON",
    "PRAGMA journal_mode = WAL",
    "PRAGMA temp_store_directory = '/tmp'",
    "DETACH main",
    "SELECT load_extension('x')",
    "SELECT writefile('x', 'y')",
    "SELECT fts3_tokenizer('simple')",
]
OF_POSTGRESQL = [
    "COPY automc_trial TO '/tmp/x'",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "SELECT 1 INTO mine",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    "SELECT set_config('transaction_read_only', 'off', true)",
    "SELECT nextval('automc_event_id_seq')",
    "SELECT * FROM automc_trial FOR UPDATE",
    "DO $$ BEGIN DELETE FROM automc_event; END $$",
    "LOCK TABLE automc_trial",
    "SELECT pg_sleep(60)",
]


def test_nothing_can_be_changed(filled: SqlStore, path: Path) -> None:
    dialect = filled._engine.dialect.name
    own = OF_SQLITE if dialect == "sqlite" else OF_POSTGRESQL
    tables = ("automc_trial", "automc_event", "automc_policy", "automc_metric")
    before = [ask(filled, f"SELECT * FROM {table}") for table in tables]
    for sql in [*WRITES, *own]:
        with pytest.raises(SpecError, match=r"^query: [^\n]+$"):
            ask(filled, sql, seconds=1.0)
    assert [ask(filled, f"SELECT * FROM {table}") for table in tables] == before
    assert {file.name for file in path.parent.iterdir()} <= {path.name}
    assert filled.add("s", Proposal(Policy({})), 0).number == 4, "no lock is left behind"


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("", "an empty statement"),
        ("  ;; ", "an empty statement"),
        ("-- nothing", "query: "),
        ("SELECT 1; DELETE FROM automc_trial", "query: "),
        ("SELECT 1; COMMIT; DELETE FROM automc_trial", "query: "),
        ("SELECT tp1 FROM trials", "tp1.* did you mean 'top1'"),
        ("SELECT t.tp1 FROM trials t", "tp1.* did you mean 'top1'"),
        ("SELECT t.fingerprint FROM trials t", r"fingerprint.* \(it is in automc_policy\)$"),
        (
            "SELECT top1 FROM trails",
            r"trails.* did you mean 'trials'\? \(views: trials, trial_layers,",
        ),
        ("SELEC 1", "(?i)syntax error"),
        ("SELECT 'a", "query: un"),
        ("SELECT \0", "no NUL"),
        ("SELECT '\ud800'", "no broken characters"),
    ],
)
def test_a_mistake_is_one_line_with_the_nearest_name(filled: SqlStore, sql: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        ask(filled, sql)
    assert "\n" not in str(caught.value)
    assert ask(filled, "SELECT count(*) FROM trials") == [(4,)]


def test_a_huge_answer_is_refused(filled: SqlStore) -> None:
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40) SELECT {} FROM n"
    wide = "hex(zeroblob(1000000))" if filled._engine.dialect.name == "sqlite" else "repeat('x', 2000000)"
    with pytest.raises(SpecError, match="the answer holds more than 64 MB; select fewer columns or rows"):
        ask(filled, many.format(wide))
    with pytest.raises(SpecError, match="rows and seconds must be above 0, not 0 and 10"):
        Caps(rows=0)


@pytest.mark.parametrize("value", ["zeroblob(1000000000)", "replace(hex(zeroblob(8000000)), '0', 'xxxx')"])
def test_a_huge_value_is_refused_by_sqlite(store: SqlStore, value: str) -> None:
    with pytest.raises(SpecError, match=r"query: a value above 16 MB; select a part of it"):
        ask(store, f"SELECT length({value})")


def test_a_table_of_another_tool_with_a_view_s_name_is_not_taken_for_it(store: SqlStore, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE trials (trial_id INTEGER)")
    assert store.select("SELECT * FROM trials LIMIT 1", Caps()).columns[:2] == ["study", "trial"]


def test_odd_values_are_plain(store: SqlStore) -> None:
    assert ask(store, "SELECT x'00ff', CAST(x'ff41' AS TEXT), 9e999, 1 = 1") == [("00ff", "\ufffdA", float("inf"), 1)]


def test_a_store_in_memory_has_no_sql() -> None:
    with pytest.raises(StoreError, match=r"has no SQL; keep the study in a file, such as automc\.db"):
        MemoryStore().select("SELECT 1", Caps())
