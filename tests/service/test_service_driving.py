"""Drivers: what a supervisor does about leases as it finds them; and a real one that is killed, with its service."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from service_documents import BASE, document

from automc.app import driving, runs
from automc.app.config import study_from
from automc.core.store import Control, Owner
from automc.core.trial import TrialState
from automc.service import supervisor
from automc.service.app import make_app
from automc.service.builder import here
from automc.service.settings import Settings
from automc.service.supervisor import MOST_STARTS, Supervisor, log_of
from automc.service.tokens import mint
from automc.stores.service import ServiceStore


@dataclass
class Child:
    """A process that somebody else imagines."""

    returncode: int | None = None
    pid: int = os.getpid()

    def poll(self) -> int | None:
        return self.returncode


@dataclass
class Imagined:
    """A supervisor that starts nothing."""

    store: ServiceStore
    storage: str
    children: list[Child] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.supervisor = Supervisor(self.store, Settings(self.storage), lambda: here)
        self.supervisor._spawn = self._begun  # type: ignore[assignment, method-assign]

    def _begun(self, name: str) -> Any:
        self.children.append(Child())
        return self.children[-1]

    def look(self) -> None:
        self.supervisor.look()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Imagined]:
    storage = str(tmp_path / "automc.db")
    runs.start(study_from(document(storage=storage), "test")).close()
    with closing(ServiceStore(storage)) as store:
        store.want("s")
        yield Imagined(store, storage)


def driver(world: Imagined) -> ServiceStore:
    """A store that took the lease, as a driver does."""
    found = ServiceStore(world.storage)
    found.take("s", Owner(driving.socket.gethostname(), os.getpid()))
    return found


def dies(world: Imagined, held: ServiceStore) -> None:
    """The holder of the lease is gone without a word."""
    import sqlite3

    held.close()
    with closing(sqlite3.connect(world.storage)) as connection:
        connection.execute("UPDATE automc_lease SET pid = 999999999")
        connection.commit()


def test_a_driver_is_started_once_and_left_alone(world: Imagined) -> None:
    for _ in range(3):
        world.look()
    assert len(world.children) == 1
    held = driver(world)
    world.look()
    another = Imagined(world.store, world.storage)  # the service was restarted
    another.look()
    assert (len(world.children), another.children) == (1, [])
    held.release("s")
    held.close()
    world.children[0].returncode = 0
    world.look()
    assert (list(world.store.wanted()), len(world.children)) == ([], 1), "it ended by itself"


def test_a_driver_that_died_is_started_again(world: Imagined) -> None:
    world.look()
    held = driver(world)
    world.look()
    dies(world, held)
    restarted = Imagined(world.store, world.storage)
    restarted.look()
    assert len(restarted.children) == 1, "also by another service, which knows no exit code"
    world.children[0].returncode = -9
    world.look()
    assert len(world.children) == 1, "but once"
    restarted.children[0].returncode = -9
    restarted.look()
    assert len(restarted.children) == 2


def test_a_driver_that_another_service_started_is_waited_for(world: Imagined, monkeypatch: pytest.MonkeyPatch) -> None:
    world.look()
    another = Imagined(world.store, world.storage)
    another.look()
    assert another.children == []
    monkeypatch.setattr(supervisor, "START_SECONDS", 0.0)  # that service died, and its driver before it had a lease
    another.look()
    assert len(another.children) == 1


def test_only_one_may_claim_a_study(world: Imagined) -> None:
    care = world.store.care("s")
    held = driver(world)
    assert not world.store.claim("s", care, 0), "somebody drives it"
    assert not world.store.claim("s", care, 1)
    dies(world, held)
    assert not world.store.claim("s", care, 0), "somebody drove it since"
    assert world.store.claim("s", care, 1)
    assert not world.store.claim("s", care, 1), "somebody else was first"


def test_a_driver_that_was_called_off_before_it_came_is_told_so(world: Imagined) -> None:
    world.look()
    with TestClient(make_app(Settings(world.storage, drives=False)), base_url=BASE) as client:
        secret, _ = mint(world.store, "admin", None)
        asked = client.post("/api/v1/studies/s:cancel", headers={"authorization": f"Bearer {secret}"})
    assert (asked.status_code, asked.json()["state"]) == (202, "idle")
    with closing(driver(world)) as held:
        assert held.asked("s") is Control.GO, "it heard nothing"
        world.look()
        assert held.asked("s") is Control.CANCEL
        held.release("s")
    world.children[0].returncode = 130
    world.look()
    assert (list(world.store.wanted()), len(world.children)) == ([], 1)


def test_who_drives_by_hand_what_no_service_wants_is_left_alone(world: Imagined) -> None:
    world.look()
    world.store.keep_care("s", wanted=False)
    world.children[0].pid = os.getppid()  # the service's own has not come yet
    with closing(driver(world)) as held:
        world.look()
        assert held.asked("s") is Control.GO


def test_a_driver_that_came_second_says_nothing_of_its_study(world: Imagined) -> None:
    world.look()
    held = driver(world)  # another's, by the command line
    world.children[0].returncode = 5
    world.look()
    held.release("s")
    held.close()
    world.look()
    assert (list(world.store.wanted()), world.store.care("s").said) == ([], "")


def test_a_driver_that_was_told_to_end_and_died_is_not_started_again(world: Imagined) -> None:
    world.look()
    held = driver(world)
    world.store.ask("s", Control.STOP)
    dies(world, held)
    world.children[0].returncode = -9
    restarted = Imagined(world.store, world.storage)
    restarted.look()
    assert (restarted.children, list(world.store.wanted())) == ([], [])


@pytest.mark.parametrize("code", [2, 3, 6])
def test_a_driver_that_says_what_is_wrong_is_not_started_again(world: Imagined, code: int) -> None:
    world.look()
    log_of(world.storage, "s").parent.mkdir()
    log_of(world.storage, "s").write_text("automc: first\nautomc: the weights changed\n")
    world.children[0].returncode = code
    world.look()
    assert (len(world.children), list(world.store.wanted())) == (1, [])
    assert world.store.care("s").said == "the weights changed"


def test_a_driver_that_only_dies_is_given_up(world: Imagined) -> None:
    for _ in range(MOST_STARTS + 3):
        world.look()
        if world.children:
            world.children[-1].returncode = -11
    assert len(world.children) == MOST_STARTS
    assert world.store.care("s").said.startswith(f"its driver died {MOST_STARTS} times")
    world.store.want("s")
    world.look()
    assert len(world.children) == MOST_STARTS + 1


def test_a_service_that_reads_only_starts_nobody(world: Imagined, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr(Supervisor, "start", lambda self: started.append("it"))
    for read_only, expected in ((True, []), (False, ["it"])):
        app = make_app(Settings(world.storage, read_only=read_only))
        monkeypatch.setattr(app.state.desk.supervisor, "stop", lambda: None)
        with TestClient(app, base_url=BASE):
            assert started == expected


def wait(done: Any, seconds: float = 90) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.1)


def test_a_killed_driver_and_a_restarted_service_lose_nothing(tmp_path: Path) -> None:
    """Above 5 s: three processes start that import the whole package."""
    storage = str(tmp_path / "automc.db")
    sent = document(evaluator={"name": "synthetic", "settings": {"layers": 5, "sleep_s": 0.1}}, budget={"trials": 60})

    def service() -> TestClient:
        app = make_app(Settings(storage))
        app.state.desk.build = here
        return TestClient(app, base_url=BASE, headers={"authorization": f"Bearer {secret}"})

    with closing(ServiceStore(storage)) as store:
        secret, _ = mint(store, "write", None)

        def finished() -> int:
            return len(store.finishing("s"))

        with service() as first:
            assert first.post("/api/v1/studies", json=sent).status_code == 201
            wait(lambda: finished() >= 5)
            assert first.get("/api/v1/studies/s/status").json()["state"] == "running"
            one = store.driver("s")
        assert one is not None
        assert os.getsid(one.pid) == one.pid, "a session of its own, which no Ctrl-C of the service reaches"
        before = finished()
        wait(lambda: finished() > before)
        with service() as second:
            time.sleep(1.5)
            assert store.driver("s") == one, "taken up, not doubled"
            os.kill(one.pid, signal.SIGKILL)
            wait(lambda: (two := store.driver("s")) is not None and two != one)
            assert second.get("/api/v1/studies/s/status").json()["state"] == "running"
            wait(lambda: second.get("/api/v1/studies/s/status").json()["state"] == "done")
        trials = store.trials("s")
        assert [trial.number for trial in trials] == list(range(60))
        assert {trial.state for trial in trials} == {TrialState.COMPLETE}
        assert list(store.wanted()) == []
    alone = runs.start(study_from({**sent, "storage": "memory:", "evaluator": document()["evaluator"]}, "test"))
    alone.run()
    assert [trial.policy for trial in trials] == [trial.policy for trial in alone.records()]


LOOKING = """
import sys
from automc.service.builder import here
from automc.service.settings import Settings
from automc.service.supervisor import Supervisor
from automc.stores.service import ServiceStore

store = ServiceStore(sys.argv[1])
supervisor = Supervisor(store, Settings(sys.argv[1]), lambda: here)
print("ready", flush=True)
sys.stdin.readline()
while store.wanted():
    supervisor.look()
"""


def test_two_services_start_one_driver(tmp_path: Path) -> None:
    """Above 5 s: two supervisors, each a process that looks without rest, and two drivers, of which one is killed."""
    storage = str(tmp_path / "automc.db")
    sent = document(storage=storage, evaluator={"name": "synthetic", "settings": {"layers": 5, "sleep_s": 0.1}})
    runs.start(study_from(sent, "test")).close()
    with closing(ServiceStore(storage)) as store:
        store.want("s")
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        services = [subprocess.Popen([sys.executable, "-c", LOOKING, storage], **pipes) for _ in range(2)]
        try:
            for service in services:
                assert service.stdout.readline() == "ready\n"
            for service in services:
                service.stdin.write("go\n")
                service.stdin.flush()
            wait(lambda: len(store.finishing("s")) >= 2)
            one = store.driver("s")
            assert one is not None
            os.kill(one.pid, signal.SIGKILL)
            assert [service.communicate(timeout=90) and service.returncode for service in services] == [0, 0]
        finally:
            for service in services:
                service.kill()
        assert [event.kind for event in store.events("s", 0, 1_000)].count("take") == 2
        assert {trial.state for trial in store.trials("s")} == {TrialState.COMPLETE}
        assert len(store.trials("s")) == 20
        assert store.care("s").said == ""
    assert "is driven by" not in log_of(storage, "s").read_text()
