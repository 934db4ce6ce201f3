"""The lock between computing and measuring, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from automc.measure.lock import computing, measuring

CHILD = """
import sys, time
from pathlib import Path
from automc.measure.lock import computing, measuring
kind, name, folder, seconds = sys.argv[1], sys.argv[2], Path(sys.argv[3]), float(sys.argv[4])
(folder / f"{name}.asks").touch()
with {"computing": computing, "measuring": measuring}[kind]("test"):
    with (folder / "log").open("a") as log:
        log.write(f"{name} in\\n")
    time.sleep(seconds)
    with (folder / "log").open("a") as log:
        log.write(f"{name} out\\n")
"""


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str, float], subprocess.Popen]]:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # locks of our own
    started: list[subprocess.Popen] = []

    def start(kind: str, name: str, seconds: float) -> subprocess.Popen:
        command = [sys.executable, "-c", CHILD, kind, name, str(tmp_path), str(seconds)]
        started.append(subprocess.Popen(command))
        wait(lambda: (tmp_path / f"{name}.asks").exists())
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def log(tmp_path: Path) -> list[str]:
    path = tmp_path / "log"
    return path.read_text().splitlines() if path.exists() else []


def test_nobody_computes_beside_a_measurement_and_it_is_not_starved(child, tmp_path: Path) -> None:
    """Two compute; one asks to measure; one that comes later must wait behind it."""
    first, second = child("computing", "a", 0.8), child("computing", "b", 0.8)
    wait(lambda: {"a in", "b in"} <= set(log(tmp_path)))
    third = child("measuring", "m", 0.3)
    time.sleep(0.2)  # it waits in the turnstile by now
    fourth = child("computing", "late", 0.1)
    for process in (first, second, third, fourth):
        assert process.wait(timeout=20) == 0
    lines = log(tmp_path)
    assert set(lines[:2]) == {"a in", "b in"}  # together
    assert set(lines[2:4]) == {"a out", "b out"}
    assert lines[4:] == ["m in", "m out", "late in", "late out"]


@pytest.mark.parametrize("kind", ["computing", "measuring"])
def test_a_killed_holder_frees_it(child, tmp_path: Path, kind: str) -> None:
    holder = child(kind, "h", 600)
    wait(lambda: "h in" in log(tmp_path))
    waiting = child("measuring", "m", 0.0)
    time.sleep(0.2)
    assert waiting.poll() is None
    assert log(tmp_path) == ["h in"]
    os.kill(holder.pid, signal.SIGKILL)
    assert waiting.wait(timeout=20) == 0
    assert log(tmp_path) == ["h in", "m in", "m out"]


def test_a_killed_waiter_lets_others_compute(child, tmp_path: Path) -> None:
    child("computing", "h", 600)
    wait(lambda: "h in" in log(tmp_path))
    waiting = child("measuring", "m", 0.0)
    time.sleep(0.2)
    os.kill(waiting.pid, signal.SIGKILL)
    assert child("computing", "c", 0.0).wait(timeout=20) == 0
    assert log(tmp_path) == ["h in", "c in", "c out"]


def test_asking_again_in_one_thread_fails_instead_of_waiting_for_ever() -> None:
    with computing("test-again"), pytest.raises(AssertionError, match="holds the machine already"), measuring("x"):
        pass
    with measuring("test-again"):
        pass
