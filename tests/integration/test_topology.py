"""The services of docker/compose.yaml as processes: PostgreSQL, a Ray head, workers and a driver, by the entrypoint."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from automc.app import runs
from automc.core.trial import TrialState

pytestmark = pytest.mark.slow  # three starts of Ray nodes, and a driver's

ENTRYPOINT = Path(__file__).resolve().parents[2] / "docker" / "entrypoint.sh"
STUDY = """\
name: s
model: digits_net
data: digits
evaluator: {name: synthetic, settings: {layers: 5, sleep_s: 0.2}}
space:
  rules:
    - {operator: prune, settings: {prune_ratio: {low: 0, high: 0.7}}}
objectives: {top1: maximize, size_ratio: minimize}
proposer: random
budget: {trials: 12}
workers: {count: 2}
"""


class Services:
    """Processes that share an environment, by which all they have started is found again."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._folder, self._started = folder, list[subprocess.Popen[bytes]]()
        # The path of a socket must be short, and other Rays of this machine must not be taken for this one.
        self._ray = Path(tempfile.mkdtemp(prefix="automc-", dir="/tmp"))
        self._mark = uuid.uuid4().hex
        programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._shared = {"PATH": programs, "RAY_TMPDIR": str(self._ray), "RAY_PORT": str(self.port)}
        self._shared |= {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self._mark,
            "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE": "1",
        }

    def environment(self, **more: str) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS", "AUTOMC_STORAGE")}
        return kept | self._shared | more

    def node(self, word: str, **more: str) -> None:
        """A Ray node in the background, that has begun.

        One after the other: nodes of one machine write into one session's folder, where two that begin at once can
        take one another's names, so that one of them never registers. In containers each has a folder of its own.
        """
        log = self._folder / f"{word}-{uuid.uuid4().hex[:4]}.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                [str(ENTRYPOINT), word],
                env=self.environment(**more),
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._started.append(process)
        end = time.monotonic() + 120
        while "Ray runtime started" not in log.read_text():
            assert process.poll() is None, f"{word} has ended:\n{log.read_text()}"
            assert time.monotonic() < end, f"{word} has not begun in 120 s:\n{log.read_text()}"
            time.sleep(0.1)

    def run(self, *words: str, program: str = str(ENTRYPOINT), **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *words],
            env=self.environment(**more),
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=200,
        )

    def end(self) -> None:
        for _ in range(100):
            left = [pid for pid in self._all() if not _gone(pid)]
            if not left:
                break
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        for process in self._started:
            process.wait(30)
        shutil.rmtree(self._ray, ignore_errors=True)

    def _all(self) -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                marked = f"RAY_AUTH_TOKEN={self._mark}".encode() in path.read_bytes().split(b"\0")
            except OSError:
                continue
            if marked:
                found.append(int(path.parent.name))
        return found


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    found = Services(tmp_path)
    yield found
    found.end()


def test_a_driver_searches_with_the_workers_of_the_cluster_and_writes_to_the_server(
    services: Services, tmp_path: Path, postgresql: str
) -> None:
    from servers import new_schema

    (tmp_path / "s.yaml").write_text(STUDY)
    head = f"127.0.0.1:{services.port}"
    services.node("head")
    healthy = services.run("status", "--address", head, program=str(Path(sys.executable).with_name("ray")))
    assert healthy.returncode == 0, healthy.stderr
    for _ in range(2):
        services.node("worker", RAY_HEAD=head, CPUS="1")
    with new_schema(postgresql) as url:
        done = services.run(*("search", "s.yaml", "--address", "auto", "--json"), RAY_HEAD=head, AUTOMC_STORAGE=url)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["counts"]["complete"] == 12
        listed = services.run("studies", "--json", AUTOMC_STORAGE=url)
        assert [study["study"] for study in json.loads(listed.stdout)] == ["s"]
        with closing(runs.open_study("s", url)) as study:
            assert {trial.state for trial in study.records()} == {TrialState.COMPLETE}
            assert len({attempt.pid for attempt in study.store.attempts("s")}) == 2, "one worker did it all"
