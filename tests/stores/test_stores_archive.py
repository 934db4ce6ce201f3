"""Studies in a file: nothing is lost on the way, and nothing that is not whole gets in."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from servers import new_schema

from automc.app import database
from automc.core.history import Artifact
from automc.core.metrics import Measurement, Objective
from automc.core.policy import Policy, Site
from automc.core.ports import Outcome, Proposal
from automc.core.rules import Rule
from automc.core.space import Choice
from automc.core.store import Owner
from automc.core.study import ModelSpec, Part, StudySpec
from automc.core.trial import TrialState
from automc.errors import SchemaMismatch, SpecError, StoreError, UnknownStudy
from automc.stores import exchange, open_store
from automc.stores.archive import TABLES, Archive
from automc.stores.engine import make_engine, parse_url
from automc.stores.sql import SqlStore

RELEASED = Path(__file__).with_name("released_0003.sql")


def fill(store: SqlStore, study: str) -> None:
    """Trials in all states, odd numbers and texts, and a row in every table that a search can fill."""
    store.take(study, Owner("here", 7))
    policies = [Policy({Site("prune", "conv1", "prune_ratio"): 0.1 * n, Site("a", "*", "b"): "ü\n"}) for n in range(5)]
    for policy in policies:
        store.add(study, Proposal(policy, 'memo "1"'), 0)
    odd = {"top1": 0.1 + 0.2, "loss": math.nan, "mse": math.inf, "r2": -math.inf, "params": 1e300}
    for number, state in enumerate((TrialState.COMPLETE, TrialState.STOPPED, TrialState.FAILED, TrialState.RUNNING)):
        trial = store.move(study, store.trials(study)[number].to(TrialState.RUNNING))
        store.note(study, number, 3, math.nan)
        if state is not TrialState.RUNNING:
            found = (
                None if state is TrialState.FAILED else Measurement(odd, {"x": [math.inf]}, None, math.nan, {"loss": 1})
            )
            done = trial.to(state, measurement=found, reason="" if found else "nan", message="why\n\N{SNOWMAN}")
            outcome = Outcome(number, 1, state, found, done.reason, done.message, "the log", "host", 12)
            store.move(study, done, outcome, {number: True} if state is TrialState.COMPLETE else None)
    store.keep_memory(study, 3, bytes(range(256)))
    store.keep_artifact(study, Artifact("a" * 64, 0, "onnx", "model.onnx", 12, {"top1": 0.5}))
    store.release(study)


@pytest.fixture
def full(store: SqlStore) -> SqlStore:
    fill(store, "s")
    store.keep_latencies("cpu", {"conv": 0.25})
    return store


def content(url: str, study: str = "s") -> dict[str, list[Any]]:
    """All rows that belong to a study, by table, without what numbers them in this database or tells of an import."""
    engine = make_engine(parse_url(url))
    with engine.connect() as connection:
        found = {}
        for table in TABLES:
            rows = [dict(row) for row in connection.execute(sa.select(table)).mappings()]
            ids = {row.id for row in connection.execute(sa.text(f"SELECT id FROM automc_study WHERE name = '{study}'"))}
            rows = [row for row in rows if row.pop("study_id", min(ids)) in ids and row.get("kind") != "import"]
            for row in rows:
                if table.name in ("automc_study", "automc_event"):
                    row.pop("id")
            found[table.name] = sorted(map(repr, rows))
    engine.dispose()
    return found


@pytest.fixture(params=["sqlite", "postgresql"])
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Another database."""
    if request.param == "sqlite":
        yield str(tmp_path / "elsewhere.db")
        return
    with new_schema(request.getfixturevalue("postgresql")) as url:
        yield url


@pytest.mark.parametrize("name", ["all.jsonl", "all.jsonl.gz"])
def test_every_row_survives_the_way_there_and_back(full: SqlStore, path: Path, elsewhere: str, name: str) -> None:
    before = content(str(path))
    assert all(before[table] for table in before if table not in ("automc_model", "automc_layer"))
    there, back = path.with_name(name), path.with_name(f"back-{name}")
    told = database.export(str(path), there)
    assert (told["studies"], told["rows"]) == (["s"], sum(map(len, before.values())))
    assert (there.read_bytes()[:2] == b"\x1f\x8b") == name.endswith(".gz")
    assert database.import_file(elsewhere, there) == ["s"]
    assert content(elsewhere) == before
    database.export(elsewhere, back)
    assert database.import_file(str(path.with_name("third.db")), back) == ["s"]
    assert content(str(path.with_name("third.db"))) == before


def test_an_imported_study_goes_on_where_it_was(full: SqlStore, path: Path) -> None:
    database.export(str(path), path.with_name("x"))
    database.import_file(str(path.with_name("y.db")), path.with_name("x"))
    with closing(SqlStore(str(path.with_name("y.db")), create=False)) as there:
        there.take("s", Owner("here", 7))
        assert there.add("s", Proposal(Policy({})), 0).number == 5
        assert there.memory("s") == (3, bytes(range(256)))
        metrics = there.trials("s")[0].measurement.metrics  # type: ignore[union-attr]
        assert math.isnan(metrics["loss"])
        assert metrics["r2"] == -math.inf


def test_a_name_that_is_taken_is_refused_unless_another_is_given(full: SqlStore, path: Path, spec: StudySpec) -> None:
    file = path.with_name("x.jsonl")
    database.export(str(path), file, "s")
    before = content(str(path))
    with pytest.raises(StoreError, match=r"a study 's' exists already, so nothing was imported; .* --as NEW"):
        database.import_file(str(path), file)
    assert content(str(path)) == before
    with pytest.raises(SpecError, match=r"'-x y' is not allowed"):
        database.import_file(str(path), file, "-x y")
    assert database.import_file(str(path), file, "t") == ["t"]
    assert full.spec("t").name == "t"
    assert [trial.policy for trial in full.trials("t")] == [trial.policy for trial in full.trials("s")]
    assert database.verify(str(path)) == []


def test_of_several_studies_one_taken_name_keeps_all_out(full: SqlStore, path: Path, spec: StudySpec) -> None:
    full.create(replace(spec, name="t"), {})
    database.export(str(path), path.with_name("both"))
    other = str(path.with_name("other.db"))
    with closing(SqlStore(other)) as store:
        store.create(replace(spec, name="t"), {})
        with pytest.raises(StoreError, match="a study 't' exists already"):
            database.import_file(other, path.with_name("both"))
        assert [summary.spec.name for summary in store.studies()] == ["t"]
    with pytest.raises(StoreError, match="--as u: there are 2 studies to import"):
        database.import_file(other, path.with_name("both"), "u")


def test_an_unknown_study_and_a_file_that_exists_are_refused(full: SqlStore, path: Path) -> None:
    with pytest.raises(UnknownStudy, match="no study 'ss', did you mean 's'"):
        database.export(str(path), path.with_name("x"), "ss")
    assert not path.with_name("x").exists()
    with pytest.raises(StoreError, match="exists already, and is not written over"):
        database.export(str(path), path)


def test_a_file_of_an_older_schema_is_upgraded_on_its_way_in(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(RELEASED.read_text())
    engine = make_engine(parse_url(str(path)))
    old = sa.MetaData()
    old.reflect(engine)
    taken = [table for table in old.sorted_tables if table.name not in ("automc_version", "automc_lease")]
    with engine.connect() as connection:
        rows = [(t.name, *row) for t in taken for row in connection.execute(sa.select(t))]
    engine.dispose()
    header = exchange.Header("0003", {table.name: [column.name for column in table.c] for table in taken})
    exchange.write(path.with_name("old.jsonl"), header, rows)
    other = str(path.with_name("other.db"))
    (name,) = database.import_file(other, path.with_name("old.jsonl"))
    open_store(str(path), create=False).close()
    assert content(other, name) == content(str(path), name)


# What is not whole


def refused(path: Path, file: Path, message: str) -> None:
    before = path.read_bytes()
    with pytest.raises((StoreError, SchemaMismatch), match=message) as caught:
        database.import_file(str(path), file)
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)
    assert path.read_bytes() == before


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An export of a study ``s``."""
    folder = tmp_path_factory.mktemp("whole")
    rule = Rule("prune", {"prune_ratio": Choice((0.0, 0.5))})
    spec = StudySpec("s", ModelSpec("tiny"), Part("digits"), (rule,), ("prune",), (Objective("top1"),))
    with closing(SqlStore(str(folder / "x.db"))) as store:
        store.create(spec, {})
        fill(store, "s")
    database.export(str(folder / "x.db"), folder / "whole")
    return (folder / "whole").read_bytes()


@pytest.fixture(scope="module")
def nothing(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A database without studies."""
    path = tmp_path_factory.mktemp("nothing") / "x.db"
    SqlStore(str(path)).close()
    return path.read_bytes()


@pytest.fixture
def lines(whole: bytes, nothing: bytes, path: Path) -> list[Any]:
    """The lines of the export, parsed, without the last one; the database at ``path`` is empty."""
    path.write_bytes(nothing)
    return [json.loads(line) for line in whole.splitlines()][:-1]


def sealed(file: Path, lines: list[Any]) -> Path:
    """A file of these lines with a checksum that is right."""
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    end = {"lines": len(lines), "sha256": hashlib.sha256(text).hexdigest()}
    file.write_bytes(text + json.dumps(end).encode() + b"\n")
    return file


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no file that 'automc db export' wrote|is cut off"),
        (b"\x00\xff\n" * 3, "line 1 is no JSON"),
        (b"name,top1\n1,2\n", "line 1 is no JSON"),
        (b'{"a": 1}\n{"b": 2}\n', "is no file that 'automc db export' wrote"),
        (b"[" * 100_000 + b"\n", "line 1 is no JSON"),
        (b'{"automc": "studies", "format": 2}\n{}\n', "is of format 2, this automc reads 1"),
        (b'{"automc": "studies", "format": 1, "tables": []}\n{}\n', "line 1: tables must be a mapping"),
        (b"\x1f\x8bnothing", "cannot be unpacked"),
        (gzip.compress(b'{"automc": "studies"}\n' * 100, mtime=0)[:-9], "cannot be unpacked: it is cut off"),
    ],
)
def test_a_foreign_file_is_refused_in_one_line(nothing: bytes, path: Path, content: bytes, message: str) -> None:
    path.write_bytes(nothing)
    path.with_name("x").write_bytes(content)
    refused(path, path.with_name("x"), message)
    assert {each.name for each in path.parent.iterdir()} == {path.name, "x"}  # nothing is left behind


def test_a_missing_file_and_a_line_without_end_are_refused(
    nothing: bytes, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(nothing)
    refused(path, path.with_name("none"), "cannot be read: No such file")
    monkeypatch.setattr(exchange, "LONGEST", 1 << 20)
    path.with_name("bomb.gz").write_bytes(gzip.compress(b" " * (8 << 20)))
    refused(path, path.with_name("bomb.gz"), "line 1 is longer than 1 MiB")


def test_a_file_that_is_cut_or_changed_anywhere_is_refused(whole: bytes, nothing: bytes, path: Path) -> None:
    path.write_bytes(nothing)
    draw, file = random.Random(5), path.with_name("broken.jsonl")
    for _ in range(40):
        file.write_bytes(whole[: draw.randrange(len(whole))])
        refused(path, file, r"broken\.jsonl")
        at = draw.randrange(len(whole))
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << draw.randrange(8)]) + whole[at + 1 :])
        refused(path, file, r"broken\.jsonl")


def of(lines: list[Any], table: str) -> list[Any]:
    return next(line for line in lines[1:] if line[0] == table)


def column(lines: list[Any], table: str, name: str) -> int:
    return 1 + int(lines[0]["tables"][table].index(name))


Spoil = Callable[[list[Any]], Any]


def put(table: str, name: str, value: Any) -> Spoil:
    def spoil(lines: list[Any]) -> None:
        of(lines, table)[column(lines, table, name)] = value

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x[0].update(schema="9999"), r"written by a newer automc \(schema 9999\)"),
        (lambda x: x[0]["tables"].update(automc_lease=["fence"]), "'automc_lease' is no table of studies"),
        (lambda x: x[0]["tables"].update(sqlite_master=["name"]), "'sqlite_master' is no table of studies"),
        (lambda x: x[0]["tables"]["automc_study"].append("x"), "automc_study has no column 'x'"),
        (lambda x: x.append(["automc_spy", 1]), "the table 'automc_spy' is not in the first line"),
        (lambda x: of(x, "automc_metric").pop(), "automc_metric has 7 columns, not 6"),
        (lambda x: x.append({"a": 1}), "must be a list that begins with the name of a table"),
        (put("automc_trial", "number", "0"), r"automc_trial.number must be int, not '0'"),
        (put("automc_trial", "number", True), r"automc_trial.number must be int, not 'True'"),
        (put("automc_trial", "number", 1 << 63), r"automc_trial.number must be int"),
        (put("automc_trial", "memo", "a\0b"), r"automc_trial.memo must be str"),
        (put("automc_trial", "memo", "\ud800"), r"automc_trial.memo must be str"),
        (put("automc_trial", "memo", ["a"]), "is no value of a column"),
        (put("automc_trial", "decisions", {"$bytes": "%"}), "is no value of a column"),
        (put("automc_trial", "state", "done"), "CHECK constraint failed"),
        (put("automc_trial", "policy", "0" * 64), "FOREIGN KEY constraint failed"),
        (put("automc_trial", "number", 17), "FOREIGN KEY constraint failed|contradicts itself"),
        (put("automc_trial", "decisions", {"$bytes": "AAAA"}), "contradicts itself: trial s/0: its packed decisions"),
        (put("automc_policy", "json", "{}"), "contradicts itself: policy .* is not the policy of that fingerprint"),
        (put("automc_revision", "spec", "{}"), "contradicts itself: study 's': its stored spec cannot be read"),
        (put("automc_study", "facts", "[]"), "contradicts itself: study 's': its facts are no mapping"),
        (put("automc_study", "revision", 4), "contradicts itself: study 's': has the revisions"),
        (put("automc_front_change", "entered", False), "contradicts itself: trial s/0: is missing from the front"),
    ],
)
def test_a_file_that_says_what_cannot_be_is_refused_though_its_checksum_is_right(
    lines: list[Any], path: Path, spoil: Spoil, message: str
) -> None:
    spoil(lines)
    refused(path, sealed(path.with_name("spoilt.jsonl"), lines), message)


def test_reading_back_what_was_sealed_by_hand_works(lines: list[Any], path: Path) -> None:
    assert database.import_file(str(path.with_name("n.db")), sealed(path.with_name("same.jsonl"), lines)) == ["s"]
    with closing(Archive(str(path.with_name("n.db")), create=False)) as archive:
        assert archive.export(path.with_name("again"))[0] == ["s"]
