"""Disks that are full, read-only, locked or torn: a line, an exit code, and nothing lost."""

from __future__ import annotations

import io
import json
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from automc.app import runs
from automc.app.config import read_study
from automc.cli import main
from automc.core.search import Ending, Silent
from automc.core.trial import Trial

STUDY = """\
name: s
model: digits_net
data: digits
evaluator: {name: synthetic, settings: {layers: 5, fail: {nan: 0.1}}}
space:
  rules:
    - {operator: prune, settings: {prune_ratio: {low: 0, high: 0.7, step: 0.1}}}
    - {operator: quantize, settings: {weight_bits: [2, 4, 8]}}
objectives: {top1: maximize, size_ratio: minimize}
proposer: random
budget: {trials: 40}
workers: {count: 0}
storage: automc.db
"""
PAGE = 4096
AUTOMC = f"{sys.executable} -m automc.cli"

NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(STUDY)
    return tmp_path


def call(*words: str) -> tuple[int, str, str]:
    """Run a command line: its exit code, stdout and stderr."""
    out, err = io.TextIOWrapper(io.BytesIO()), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(words)
    out.flush()
    assert isinstance(out.buffer, io.BytesIO)
    return code, out.buffer.getvalue().decode(), err.getvalue()


def facts(storage: str) -> list[tuple[object, ...]]:
    with closing(runs.open_study("s", storage)) as study:
        return [
            (t.number, t.policy, t.state, t.reason, t.measurement and t.measurement.metrics) for t in study.records()
        ]


Disk = Callable[..., list[tuple[int, str]]]


@pytest.fixture
def disk(folder: Path) -> Disk:
    """Runs lines of a shell where ``disk`` is a small disk of its own: exit code and stderr of each automc command.

    DB in a line stands for the database on that disk. In the end the disk is copied to ``kept``.
    """
    if not shutil.which("unshare") or subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode:
        pytest.skip("a disk of one's own needs user namespaces, which this system does not give")

    def run(kilobytes: int, *script: str) -> list[tuple[int, str]]:
        lines = ["set -e", "mkdir disk", f"mount -t tmpfs -o size={kilobytes}k none disk"]
        for number, line in enumerate(script):
            if line.startswith("automc "):
                words = line.replace("automc", f"{sys.executable} -m automc.cli", 1).replace(
                    "DB", "--storage disk/a.db"
                )
                line = f"{words} >>out 2>err-{number} || code=$?; echo ${{code:-0}} err-{number} >>codes; unset code"
            lines.append(line)
        command = [*NAMESPACE, "sh", "-c", "\n".join([*lines, "cp -r disk kept"])]
        subprocess.run(command, check=True, timeout=300, cwd=folder)
        codes = [line.split() for line in (folder / "codes").read_text().splitlines()]
        return [(int(code), (folder / file).read_text()) for code, file in codes]

    return run


def test_a_disk_that_fills_up_ends_the_search_and_costs_nothing(folder: Path, disk: Disk) -> None:
    """The disk is full while trials finish; with more room the study goes on to where it would have been.

    Five command lines start, hence above 5 s.
    """
    found = disk(
        4096,
        "automc search s.yaml --trials 4 DB",
        "mount -o remount,size=$(($(df --output=used -k disk | tail -n 1) + 80))k disk",
        "automc extend s --trials +36 DB",
        "automc db verify DB",
        "mount -o remount,size=4096k disk",
        "automc resume s DB",
    )
    assert [code for code, _ in found] == [0, 5, 0, 0]
    said = found[1][1]
    assert "[5/40]" in said, "it was full before anything happened"
    last = "disk/a.db: the disk is full; free some space and run the command again, finished trials are safe"
    assert said.splitlines()[-1] == f"automc: {last}"
    assert "Traceback" not in said
    assert runs.start(read_study(folder / "s.yaml", ["storage=whole.db"])).run() is Ending.DONE
    assert facts("kept/a.db") == facts("whole.db")


def test_a_read_only_disk_is_read_and_not_written(folder: Path, disk: Disk) -> None:
    """Six command lines start, hence above 5 s."""
    found = disk(
        4096,
        "automc search s.yaml DB --trials 6",
        "mount -o remount,ro disk",
        "automc trials s DB",
        "automc db verify DB",
        "automc extend s --trials +3 DB",
        "automc search s.yaml --name other DB",
        "automc search s.yaml --storage disk/new.db",
        "mount -o remount,rw disk",
    )
    assert [code for code, _ in found] == [0, 0, 0, 5, 5, 5]
    denied = "it is read-only; give this user write permission to the file and its folder"
    lines = [f"a.db: {denied}", f"a.db: {denied}", "new.db: the file cannot be opened"]
    for (_, said), line in zip(found[3:], lines, strict=True):
        assert said.splitlines()[-1].startswith(f"automc: disk/{line}")
        assert "Traceback" not in said
    assert len(facts("kept/a.db")) == 6


def test_output_that_finds_no_room_is_said_in_a_line(folder: Path) -> None:
    assert call("search", "s.yaml", "--trials", "3")[0] == 0
    assert call("trials", "s", "--format", "csv", "-o", "/dev/full") == (
        2,
        "",
        "automc: /dev/full: cannot be written: No space left on device\n",
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "automc.cli", "show", "s", "--json"], stdout=full, stderr=subprocess.PIPE, timeout=60
        )
    said = "automc: the output: cannot be written: No space left on device; free some space\n"
    assert (done.returncode, done.stderr.decode()) == (1, said)


def test_a_log_that_finds_no_room_does_not_end_the_search(folder: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "automc.cli", "search", "s.yaml", "--trials", "5", "--json"],
            stdout=subprocess.PIPE,
            stderr=full,
            timeout=60,
        )
    assert done.returncode == 0
    assert sum(json.loads(done.stdout)["counts"].values()) == 5


class Locking(Silent):
    """Locks the database from elsewhere when a trial finishes, for a while or for good."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self.other = seconds, sqlite3.connect("automc.db", isolation_level=None, check_same_thread=False)
        self.locked = 0

    def finished(self, trial: Trial) -> None:
        if trial.number == 5:
            self.other.execute("BEGIN EXCLUSIVE")
            self.locked += 1
            threading.Timer(self._seconds, self.unlock).start()

    def unlock(self) -> None:
        self.other.execute("ROLLBACK")


def test_a_database_that_is_locked_for_a_while_is_waited_for(folder: Path) -> None:
    study = runs.start(read_study(folder / "s.yaml"))
    locking = Locking(1.0)
    with closing(study), closing(locking.other):
        assert study.run(locking) is Ending.DONE
    assert locking.locked == 1
    assert runs.start(read_study(folder / "s.yaml", ["storage=whole.db"])).run() is Ending.DONE
    assert facts("automc.db") == facts("whole.db")


def test_one_that_stays_locked_ends_the_search_and_costs_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs.start(read_study(folder / "s.yaml")).close()
    monkeypatch.setattr("automc.stores.engine.BUSY_SECONDS", 0.2)
    with closing(sqlite3.connect("automc.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        code, out, err = call("resume", "s")
        assert (code, out) == (5, "")
        assert err == "automc: automc.db: another process kept it locked for 60 s; end that process or try again\n"
        other.execute("ROLLBACK")
    assert call("resume", "s")[0] == 0
    assert len(facts("automc.db")) == 40


def spoiled(whole: bytes, page: int, kind: str, draw: random.Random) -> bytes:
    """The file with one page torn."""
    at = page * PAGE
    if kind == "cut":
        return whole[: at + draw.randrange(PAGE)]
    torn = {"zeros": bytes(PAGE), "noise": draw.randbytes(PAGE)}.get(kind)
    if torn is None:
        start = draw.randrange(PAGE - 60)
        torn = whole[at : at + start] + draw.randbytes(60) + whole[at + start + 60 : at + PAGE]
    return whole[:at] + torn + whole[at + PAGE :]


ASKED = [
    ("show", "s"),
    ("trials", "s", "--limit", "3"),
    ("trial", "s/7"),
    ("pareto", "s"),
    ("resume", "s"),
    ("extend", "s", "--trials", "+1"),
    ("report", "s", "-o", "report.html"),
    ("db", "status"),
    ("db", "backup", "copy.db"),
    ("db", "export", "export.jsonl"),
]


def test_a_torn_page_is_found_and_no_command_breaks_on_it(folder: Path) -> None:
    """64 commands, each on a file that is spoiled in another way, hence above 5 s."""
    assert call("search", "s.yaml")[0] == 0
    whole, draw = Path("automc.db").read_bytes(), random.Random(0)
    for n in range(32):
        kind = ("cut", "zeros", "noise", "bytes")[n % 4]
        page = draw.randrange(len(whole) // PAGE)
        content = spoiled(whole, page, kind, draw)
        for words in (("db", "verify"), draw.choice(ASKED)):
            Path("torn.db").write_bytes(content)
            for left in ("copy.db", "export.jsonl", "torn.db-journal"):
                Path(left).unlink(missing_ok=True)
            code, out, err = call(*words, "--storage", "torn.db")
            about = f"page {page}, {kind}: {' '.join(words)}: {out[:300]} {err[-300:]}"
            assert code in (0, 2, 5), about
            assert "Traceback" not in out + err, about
            if words[1] == "verify":
                assert code == 5 or kind == "bytes", about
            elif code:
                assert err.splitlines()[-1].startswith("automc: "), about


def test_a_limit_of_file_sizes_is_said_and_nothing_is_lost(folder: Path) -> None:
    size = 250_000  # what the tables need, and some of the trials
    words = [*AUTOMC.split(), "search", "s.yaml", "--trials", "400", "--json"]
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))}
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, **limit)
    assert done.returncode == 5, done.stderr
    last = "automc: automc.db: the disk failed, or a quota or file size limit is reached; finished trials are safe"
    *told, said = done.stderr.splitlines()
    assert said == last
    trials = runs.open_study("s", str(folder / "automc.db")).records()
    assert sum(trial.state.finished for trial in trials) >= len(told) > 0
    assert call("db", "verify")[0] == 0
