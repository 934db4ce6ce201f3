"""automc db: what is said of a database, what is found wrong with it, copies of it, and what goes."""

import json
import os
import shutil
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from calling import Call, calling

from automc.app import database
from automc.cli import main
from automc.core.policy import Policy, Site
from automc.core.ports import Proposal
from automc.core.store import Owner
from automc.stores.sql import SqlStore
from automc.stores.tables import HEAD

RELEASED = Path(__file__).with_name("stores") / "released_0003.sql"
STUDY = """\
model: digits_net
data: digits
evaluator: {name: synthetic, settings: {layers: 4, fail: {nan: 0.2}}}
space:
  rules:
    - {operator: prune, settings: {prune_ratio: {low: 0, high: 0.7, step: 0.1}}}
    - {operator: quantize, settings: {weight_bits: [2, 8]}}
objectives: {top1: maximize, size_ratio: minimize}
constraints: [macs_ratio <= 0.8]
proposer: random
budget: {trials: 14}
workers: {count: 0}
"""


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database in which the study ``demo`` is finished."""
    folder = tmp_path_factory.mktemp("searched")
    (folder / "demo.yaml").write_text(STUDY)
    assert main(["search", str(folder / "demo.yaml"), "--storage", str(folder / "automc.db")]) == 0
    return folder / "automc.db"


@pytest.fixture
def call(searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run ``automc db ...`` beside a copy of the database: exit code, stdout, stderr."""
    shutil.copy(searched, tmp_path / "automc.db")
    return calling(tmp_path, capsys, monkeypatch, "db")


def sql(text: str, path: str = "automc.db") -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(text).fetchall()


def driven(path: str) -> SqlStore:
    """The database, in which this process drives the study."""
    store = SqlStore(path, create=False)
    store.take("demo", Owner(os.uname().nodename, os.getpid()))
    return store


def test_status_says_what_there_is_and_who_searches(call: Call) -> None:
    data = json.loads(call("status", "--json")[1])
    assert data["kind"] == "SQLite"
    assert data["version"] == sqlite3.sqlite_version
    assert (data["schema"], data["current"]) == (HEAD, True)
    assert data["size_bytes"] == Path("automc.db").stat().st_size
    assert data["tables"]["automc_trial"] == 14
    assert sum(data["studies"][0]["counts"].values()) == 14
    assert data["studies"][0]["driver"] is None
    with closing(driven("automc.db")):
        text = call("status")[1]
    assert f"pid {os.getpid()} on {os.uname().nodename}, heard" in text
    assert f"schema    {HEAD} (current)" in text


def test_looking_upgrades_nothing_and_upgrading_says_where_the_backup_is(call: Call) -> None:
    Path("automc.db").unlink()
    with closing(sqlite3.connect("automc.db")) as connection:
        connection.executescript(RELEASED.read_text())
    before = Path("automc.db").read_bytes()
    code, out, _ = call("status")
    assert (code, "schema    0003 (not of this automc; automc db upgrade)" in out) == (0, True)
    code, _, err = call("verify")
    assert (code, "has schema 0003" in err, "automc db upgrade" in err) == (5, True, True)
    assert call("backup", "copy.db")[0] == 0
    assert Path("automc.db").read_bytes() == before
    assert call("upgrade")[1] == (
        f"automc.db: upgraded from schema 0003 to {HEAD}; as it was before: automc.db.before-upgrade-from-0003\n"
    )
    assert sql("SELECT version_num FROM automc_version", "automc.db.before-upgrade-from-0003") == [("0003",)]
    assert call("upgrade")[1] == f"automc.db: is of schema {HEAD} already\n"
    assert call("verify")[:2] == (0, "whole\n")


@pytest.mark.parametrize("word", ["status", "verify", "upgrade", "gc"])
def test_no_database_and_no_database_of_ours_get_one_line(call: Call, word: str) -> None:
    sql("CREATE TABLE t (a)", "other.db")
    Path("text.db").write_text("not a database, but long enough to be read as one" * 30)
    said = {
        "none.db": "there is no such trial database; check the path given as storage",
        "other.db": "holds no automc tables; check the database given as storage",
        "text.db": "the file is no SQLite database (or an encrypted one)",
    }
    for path, line in said.items():
        assert call(word, "--storage", path) == (5, "", f"automc: {path}: {line}\n")


# Copies


def test_a_backup_is_one_moment_of_a_database_that_is_written_to(call: Call) -> None:
    over = threading.Event()

    def write() -> None:
        with closing(driven("automc.db")) as store:
            for n in range(10_000):
                if over.is_set():
                    return
                store.add("demo", Proposal(Policy({Site("prune", "x", "prune_ratio"): n / 10_000})), 0)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        counts = []
        for n in range(4):
            time.sleep(0.1)
            assert database.backup("automc.db", Path(f"{n}.db")) == Path(f"{n}.db").stat().st_size
            counts.append(sql("SELECT count(*) FROM automc_trial", f"{n}.db")[0][0])
    finally:
        over.set()
        thread.join()
    assert counts == sorted(counts)
    assert 14 < counts[-1] <= sql("SELECT count(*) FROM automc_trial")[0][0]  # type: ignore[operator]
    assert [database.verify(f"{n}.db") for n in range(4)] == [[]] * 4
    assert not list(Path().glob("*.part*"))


def test_a_backup_is_written_over_nothing_and_leaves_nothing_half_done(call: Call) -> None:
    Path("there.db").write_text("mine")
    said = "exists already, and is not written over; give another name or remove it"
    assert call("backup", "there.db") == (5, "", f"automc: there.db: {said}\n")
    assert Path("there.db").read_text() == "mine"
    assert "the folder no does not exist" in call("backup", "no/x.db")[2]
    with open("automc.db", "r+b") as file:
        file.seek(4096)
        file.write(os.urandom(4096))
    code, _, err = call("backup", "torn.db")
    assert (code, err.count("\n"), "no backup torn.db" in err) == (5, 1, True)
    assert not list(Path().glob("torn*"))


def test_a_server_is_backed_up_by_its_own_tool(call: Call) -> None:
    code, _, err = call("backup", "x.dump", "--storage", "postgresql://me:secret@host/db")
    assert (code, err.count("\n"), "secret" in err) == (5, 1, False)
    assert "pg_dump --format=custom --file=x.dump 'postgresql://me:***@host/db'" in err


# Faults


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("DELETE FROM automc_trial WHERE number = 13", "rows without their automc_trial"),
        ("UPDATE automc_policy SET json = '{}' WHERE fingerprint = (SELECT policy FROM automc_trial WHERE number = 2)",
         "is not the policy of that fingerprint"),
        ("INSERT INTO automc_metric (study_id, number, name, kind) VALUES (1, 99, 'loss', 'nan')",
         "automc_metric: 1 rows without their automc_trial"),
        ("UPDATE automc_trial SET twin = 13 WHERE number = 2", "trial demo/2: is answered by a twin that was not"),
        ("UPDATE automc_trial SET decisions = x'00' WHERE number = 4", "trial demo/4: its packed decisions"),
        ("UPDATE automc_trial SET place = 99 WHERE place = 14", "have the places 1 to 99"),
        ("UPDATE automc_trial SET place = NULL WHERE place = 14", "14 finished trials, and 13 places"),
        ("DELETE FROM automc_attempt WHERE number = 5", "trial demo/5: was started, and has no attempt"),
        ("UPDATE automc_trial SET attempts = 0 WHERE number = 5", "trial demo/5: is finished, and has neither attempt"),
        ("UPDATE automc_trial SET realized = NULL WHERE number = (SELECT min(number) FROM automc_front_change)",
         "is complete, and has no measurement"),
        ("UPDATE automc_study SET facts = '{'", "its facts cannot be read"),
        ("UPDATE automc_revision SET spec = replace(spec, 'demo', 'other')", "says it is revision 0 of 'other'"),
        ("DELETE FROM automc_front_change", "is missing from the front"),
        ("INSERT INTO automc_front_change SELECT study_id, place, number, 1 FROM automc_trial WHERE state = 'failed'",
         "is on the front, and beaten or not eligible"),
    ],
)  # fmt: skip
def test_every_kind_of_fault_is_found_and_named(call: Call, spoil: str, said: str) -> None:
    sql(spoil)
    code, out, err = call("verify")
    assert code == 5
    assert said in out
    assert err.startswith(f"automc: {len(out.splitlines())} fault")


def test_trials_with_a_gap_are_a_fault(call: Call) -> None:
    for table in ("metric", "attempt", "front_change"):
        sql(f"DELETE FROM automc_{table} WHERE number = 6")
    sql("DELETE FROM automc_trial WHERE number = 6")
    assert "study 'demo': has 13 trials, numbered 0 to 13" in call("verify")[1].splitlines()


def test_a_damaged_file_is_a_fault(call: Call) -> None:
    size = Path("automc.db").stat().st_size
    with open("automc.db", "r+b") as file:
        file.seek(size - 4096)
        file.write(b"\xff" * 4096)
    code, out, err = call("verify")
    assert code == 5
    assert "damaged" in out + err
    assert "Traceback" not in err


# What goes


def test_gc_deletes_what_nothing_refers_to_and_nothing_else(call: Call) -> None:
    sql("INSERT INTO automc_policy VALUES ('" + "a" * 64 + "', '{}')")
    sql("UPDATE automc_attempt SET log = 'a long log'")
    logs = sql("SELECT count(*) FROM automc_trial WHERE state = 'complete'")[0][0]
    sql("INSERT INTO automc_agent_state VALUES (1, -1, 3, x'0102', ''), (1, 0, 3, x'0102', '')")
    with closing(SqlStore("automc.db")) as store:
        waiting = store.add("demo", Proposal(Policy({Site("prune", "x", "prune_ratio"): 0.5})), 0)
        done = store.trials("demo")[0]
    repairs = Path("automc.db.repairs") / "demo"
    repairs.mkdir(parents=True)
    (Path("automc.db.blobs") / "ab").mkdir(parents=True)
    kept = repairs / f"{waiting.policy.fingerprint}-0-student.repair"
    young = repairs / f"{done.policy.fingerprint}-0-assistant.repair"
    gone = [repairs / f"{done.policy.fingerprint}-0-student.repair", Path("automc.db.blobs") / "ab" / ("ab" * 32)]
    for path in (kept, young, *gone):
        path.write_bytes(b"12345")
        if path != young:
            os.utime(path, (0, 0))
    told = json.loads(call("gc", "--dry-run", "--json")[1])
    counts = [(1, 2), (logs, 10 * int(str(logs))), (1, 2), (0, 0), (1, 5), (1, 5)]
    assert [(s["count"], s["size_bytes"]) for s in told["swept"]] == counts
    assert all(path.exists() for path in gone)
    assert json.loads(call("gc", "--json")[1])["swept"] == told["swept"]
    assert [path.exists() for path in (kept, young, *gone)] == [True, True, False, False]
    assert sql("SELECT count(*) FROM automc_agent_state") == [(1,)]
    assert sql("SELECT DISTINCT log FROM automc_attempt ORDER BY 1") == [("",), ("a long log",)]
    assert {s["count"] for s in json.loads(call("gc", "--json")[1])["swept"]} == {0}
    assert call("verify")[1] == "whole\n"


def test_gc_waits_until_nobody_searches(call: Call) -> None:
    sql("INSERT INTO automc_policy VALUES ('" + "a" * 64 + "', '{}')")
    with closing(driven("automc.db")):
        code, _, err = call("gc")
        assert (code, f"study 'demo' is driven by pid {os.getpid()}" in err) == (5, True)
        assert call("gc", "--dry-run")[0] == 0
    assert sql("SELECT count(*) FROM automc_policy WHERE json = '{}'") == [(1,)]


# In and out


def test_studies_go_out_and_in(call: Call) -> None:
    assert call("export", "all.jsonl.gz")[1].startswith("wrote all.jsonl.gz: demo (")
    assert call("import", "all.jsonl.gz", "--storage", "new.db")[1] == "imported demo\n"
    assert call("import", "all.jsonl.gz", "--as", "again", "--storage", "new.db")[1] == "imported again\n"
    assert json.loads(call("verify", "--storage", "new.db", "--json")[1]) == {"faults": []}
    assert call("export")[::2] == (2, "automc: db export: give a FILE, or --optuna URL\n")
    assert call("import", "all.jsonl.gz", "--study", "x")[0] == 2


def test_a_study_is_whole_whatever_its_revisions_changed(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    narrower = "space.rules[0].settings.prune_ratio={low: 0, high: 0.3, step: 0.1}"
    for change in ('constraints=["macs_ratio <= 0.6"]', narrower):
        assert main(["extend", "demo", "--trials", "+3", "--set", change]) == 0
        capsys.readouterr()
        assert call("verify")[:2] == (0, "whole\n")
    assert sql("SELECT count(*) FROM automc_front_change WHERE NOT entered")[0][0] != 0
    assert call("export", "all.jsonl")[0] == call("import", "all.jsonl", "--storage", "new.db")[0] == 0
    assert call("export", "--optuna", "o.log")[1] == "wrote demo: 20 trials\n"
