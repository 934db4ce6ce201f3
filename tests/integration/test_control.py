"""Pause, resume, stop and cancel from another process, while real workers evaluate: each acts within two seconds."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from automc.app import asking, runs
from automc.app.config import read_study
from automc.core.history import Attempt
from automc.core.trial import TrialState

pytestmark = pytest.mark.slow  # two starts of Ray with two workers each

STUDY = """\
name: s
model: digits_net
data: digits
evaluator: {{name: synthetic, settings: {{layers: 5, sleep_s: {sleep}}}}}
space:
  rules:
    - {{operator: prune, settings: {{prune_ratio: {{low: 0, high: 0.7}}}}}}
objectives: {{top1: maximize, size_ratio: minimize}}
proposer: random
budget: {{trials: 1000}}
workers: {{count: 2}}
storage: {storage}
"""
SOON = 8.0
"""Two seconds are promised; on a machine whose every core is at work a process may wait that long for its turn."""


class Running:
    """A search in a process of its own, what it says, and its trials."""

    def __init__(self, folder: Path, sleep: float) -> None:
        self._folder, self.storage = folder, str(folder / "s.db")
        (folder / "s.yaml").write_text(STUDY.format(sleep=sleep, storage=self.storage))
        runs.start(read_study(folder / "s.yaml")).close()
        self.processes: list[subprocess.Popen[str]] = []
        self.process = self.automc("resume", "s", "--storage", "s.db")

    def automc(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "automc.cli", *words]
        said = (self._folder / f"{words[0]}.err").open("w")
        with said:
            process = subprocess.Popen(command, cwd=self._folder, text=True, stdout=subprocess.PIPE, stderr=said)
        self.processes.append(process)
        return process

    def said(self, command: str = "resume") -> str:
        return (self._folder / f"{command}.err").read_text()

    def attempts(self) -> list[Attempt]:
        with closing(runs.open_study("s", self.storage)) as study:
            return list(study.store.attempts("s"))

    def running(self) -> int:
        return sum(attempt.state is TrialState.RUNNING for attempt in self.attempts())


@contextmanager
def searching(folder: Path, sleep: float) -> Iterator[Running]:
    found = Running(folder, sleep)
    try:
        yield found
    finally:
        for process in found.processes:
            process.kill()
            process.communicate()


def until(true: Callable[[], bool], seconds: float) -> float:
    """How long it took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, f"not within {seconds:g} s"
        time.sleep(0.02)
    return time.monotonic() - began


def test_a_pause_starts_nothing_a_resume_goes_on_a_stop_ends_when_the_running_are_done(tmp_path: Path) -> None:
    with searching(tmp_path, 1.0) as search:
        until(lambda: "[2/1000]" in search.said(), 120)
        assert asking.pause("s", search.storage)
        until(lambda: "paused" in search.said(), SOON)
        watch = search.automc("watch", "s", "--storage", "s.db", "--json")
        until(lambda: search.running() == 0, SOON + 1.0)
        count = len(search.attempts())
        until(lambda: "paused: running trials finish" in search.said("watch"), 60)
        assert len(search.attempts()) == count
        assert asking.lift("s", search.storage)
        until(lambda: "goes on" in search.said(), SOON)
        until(lambda: len(search.attempts()) > count, SOON)
        until(lambda: "goes on" in search.said("watch"), 60)
        asked = datetime.now(UTC)
        assert asking.stop("s", search.storage)
        out, _ = search.process.communicate(timeout=60)
        assert search.process.returncode == 0, search.said()
        assert "drained after" in search.said()
        assert out.startswith("study      s in s.db\n")
        watch.communicate(timeout=60)
        assert watch.returncode == 0
        attempts = search.attempts()
        assert {attempt.state for attempt in attempts} == {TrialState.COMPLETE}
        started = [datetime.fromisoformat(attempt.started) for attempt in attempts if attempt.started]
        assert (max(started) - asked).total_seconds() < SOON


def test_a_cancel_gives_up_what_runs_at_once(tmp_path: Path) -> None:
    with searching(tmp_path, 60.0) as search:
        until(lambda: search.running() == 2, 120)
        assert asking.cancel("s", search.storage)
        until(lambda: search.running() == 0, SOON)
        search.process.communicate(timeout=60)
        assert search.process.returncode == 130, search.said()
        assert "interrupted after 0 of 1000 trials; go on with: automc resume s" in search.said()
        assert "Traceback" not in search.said()
        assert {attempt.state for attempt in search.attempts()} == {TrialState.WAITING}
        with closing(runs.open_study("s", search.storage)) as study:
            assert study.store.driver("s") is None
