"""A search seen from outside: the events, the end, and nothing changed."""

import io
import os
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from automc.app import runs, watching
from automc.app.config import study_from
from automc.app.study import Study
from automc.core.metrics import Measurement, Objective
from automc.core.policy import Policy, Site
from automc.core.ports import Proposal
from automc.core.store import Control, Owner
from automc.core.study import ModelSpec, Part, StudySpec
from automc.core.trial import Trial, TrialState
from automc.stores import TrialDatabase
from automc.stores.memory import MemoryStore

SPEC = StudySpec("s", ModelSpec("digits_net"), Part("digits"), (), (), (Objective("top1"),))


class Diary:
    """The listener that writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def added(self, trial: Trial) -> None:
        self.heard.append(("added", trial.number))

    def finished(self, trial: Trial) -> None:
        self.heard.append(("finished", trial.number, trial.state.value))

    def noted(self, number: int, step: int, value: float) -> None:
        self.heard.append(("noted", number, step, value))

    def paused(self, now: bool) -> None:
        self.heard.append(("paused", now))

    def news(self) -> list[tuple[Any, ...]]:
        found, self.heard = self.heard, []
        return found


def add(store: TrialDatabase, bits: int) -> Trial:
    return store.add("s", Proposal(Policy({Site("quantize", "conv", "weight_bits"): bits})), 0)


def test_every_event_is_told_once_in_order() -> None:
    store, diary = MemoryStore(), Diary()
    store.create(SPEC, {})
    done = Measurement({"top1": 0.5})
    first = store.move("s", add(store, 2).to(TrialState.RUNNING))
    store.move("s", first.to(TrialState.COMPLETE, measurement=done))
    second = store.move("s", add(store, 3).to(TrialState.RUNNING))
    tail = watching.Tail(store, "s", store.trials("s"))
    tail.poll(diary)
    assert diary.news() == [("added", 1)]
    store.note("s", 1, 5, 0.5)
    store.note("s", 1, 10, 0.25)
    third = store.move("s", add(store, 4).to(TrialState.RUNNING))
    tail.poll(diary)
    assert diary.news() == [("noted", 1, 10, 0.25), ("added", 2)]
    tail.poll(diary)
    assert diary.news() == []
    store.move("s", third.to(TrialState.FAILED, reason="nan"))
    fourth = store.move("s", add(store, 5).to(TrialState.RUNNING))
    store.move("s", fourth.to(TrialState.STOPPED, measurement=done))
    tail.poll(diary)
    assert diary.news() == [("finished", 2, "failed"), ("added", 3), ("finished", 3, "stopped")]
    store.move("s", second.to(TrialState.COMPLETE, measurement=done))
    tail.poll(diary)
    assert diary.news() == [("finished", 1, "complete")]
    tail.poll(diary)
    assert diary.news() == []


def test_a_pause_is_seen_from_outside_and_its_end() -> None:
    store, diary = MemoryStore(), Diary()
    store.create(SPEC, {})
    store.take("s", Owner(socket.gethostname(), os.getpid()))
    store.ask("s", Control.PAUSE)
    tail = watching.Tail(store, "s", [])
    for word, heard in ((None, [("paused", True)]), (None, []), (Control.GO, [("paused", False)])):
        if word:
            store.ask("s", word)
        tail.poll(diary)
        assert diary.news() == heard


def synthetic(folder: Path, trials: int) -> Study:
    study = study_from(
        {
            "name": "demo",
            "model": "digits_net",
            "data": "digits",
            "evaluator": {"name": "synthetic", "settings": {"layers": 3}},
            "space": {"rules": [{"operator": "quantize", "settings": {"weight_bits": [2, 3, 4, 5, 6, 7, 8]}}]},
            "objectives": {"top1": "maximize", "size_ratio": "minimize"},
            "proposer": "random",
            "budget": {"trials": trials},
            "workers": {"count": 0},
            "storage": str(folder / "w.db"),
        },
        "test",
    )
    return runs.start(study)


class Waiting:
    """The driver's listener: after some trials it waits until the watcher has seen them."""

    def __init__(self, at: int) -> None:
        self._at, self.there, self.go = at, threading.Event(), threading.Event()

    def added(self, trial: Trial) -> None:
        pass

    def noted(self, number: int, step: int, value: float) -> None:
        pass

    def paused(self, now: bool) -> None:
        pass

    def finished(self, trial: Trial) -> None:
        if trial.number == self._at:
            self.there.set()
            assert self.go.wait(60)


def test_a_search_is_watched_to_its_end_and_not_disturbed(tmp_path: Path) -> None:
    study = synthetic(tmp_path, 12)
    driver = Waiting(4)
    search = threading.Thread(target=study.run, args=(driver,))
    search.start()
    assert driver.there.wait(60)
    out = io.StringIO()
    seen = runs.open_study("demo", study.storage)
    before = len([t for t in seen.records() if t.state.finished])

    def sleep(seconds: float) -> None:
        driver.go.set()
        search.join(0.05)

    board = watching.watch(seen, out, sleep)
    search.join(60)
    lines = out.getvalue().splitlines()
    assert (before, board.done, len(lines)) == (5, 12, 7)
    assert [int(line.split()[2]) for line in lines] == list(range(5, 12))
    assert lines[-1].startswith("[12/12] trial 11 rung 0 complete  top1 ")
    assert board.front == seen.front()
    assert len(seen.records()) == 12


def test_nobody_drives_so_the_last_state_is_known_at_once(tmp_path: Path) -> None:
    study = synthetic(tmp_path, 6)
    study.run()
    out = io.StringIO()

    def sleep(seconds: float) -> None:
        raise AssertionError("there is nothing to wait for")

    board = watching.watch(runs.open_study("demo", study.storage), out, sleep)
    assert (board.done, out.getvalue()) == (6, "")


def test_a_new_revision_begins_a_new_view(tmp_path: Path) -> None:
    study = synthetic(tmp_path, 6)
    study.run()
    store = study.store
    store.take("demo", Owner("elsewhere.example", 1))
    turns: list[int] = []

    def sleep(seconds: float) -> None:
        turns.append(1)
        spec = store.spec("demo")
        if len(turns) == 1:
            budget = replace(spec.budget, trials=9)
            store.revise(replace(spec, revision=1, budget=budget, objectives=spec.objectives[:1]))
        else:
            store.release("demo")

    board = watching.watch(runs.open_study("demo", study.storage), io.StringIO(), sleep)
    assert (board.total, len(board.spec.objectives), len(turns)) == (9, 1, 2)
