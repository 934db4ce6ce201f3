"""One suite over every Store: in memory, SQLite, and PostgreSQL.

A world is one database that several store objects ("drivers") share, under one clock that a test may turn.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import new_schema

from automc.core.history import Artifact, FrontChange, front_after
from automc.core.metrics import METRICS, Measurement, Objective
from automc.core.policy import Policy, Site
from automc.core.ports import Outcome, Proposal
from automc.core.rules import Rule
from automc.core.space import Choice, Real
from automc.core.store import LEASE_SECONDS, Control, Owner
from automc.core.study import ModelSpec, Part, StudySpec
from automc.core.tally import by_state, failures, tally
from automc.core.trial import LEGAL, Trial, TrialState
from automc.core.wishes import Wish
from automc.errors import IllegalTransition, LeaseHeld, SpecError, StoreError, StudyExists, UnknownStudy, UnknownTrial
from automc.stores import TrialDatabase
from automc.stores.memory import MemoryStore

W, R, C, S, F = TrialState
ME = Owner(socket.gethostname(), os.getpid())


@dataclass
class World:
    make: Callable[[Callable[[], float]], TrialDatabase]
    now: float = 1_000_000.0
    opened: list[TrialDatabase] = field(default_factory=list)

    def open(self) -> TrialDatabase:
        self.opened.append(self.make(lambda: self.now))
        return self.opened[-1]


def _memory_world() -> World:
    first = MemoryStore()
    return World(lambda clock: MemoryStore(first, clock))


def _sql_world(url: str) -> World:
    from automc.stores.sql import SqlStore

    return World(lambda clock: SqlStore(url, clock=clock))


def _worlds(kind: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    if kind == "memory":
        yield _memory_world()
    elif kind == "sqlite":
        yield _sql_world(str(folder / "trials.db"))
    else:
        with new_schema(request.getfixturevalue("postgresql")) as url:
            yield _sql_world(url)


@pytest.fixture(params=["memory", "sqlite", "postgresql"], scope="module")
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One world for all tests of the file that only add studies of their own."""
    for world in _worlds(request.param, tmp_path_factory.mktemp("world"), request):
        yield world
        for store in world.opened:
            store.close()


@pytest.fixture
def store(shared: World) -> Iterator[TrialDatabase]:
    found = shared.open()
    yield found
    found.close()


@pytest.fixture
def study(store: TrialDatabase) -> str:
    """The name of a new study without trials."""
    return new_study(store)


def new_study(store: TrialDatabase) -> str:
    name = f"study-{uuid.uuid4().hex[:8]}"
    store.create(spec(name), {})
    return name


def spec(name: str, **changes: object) -> StudySpec:
    rules = (
        Rule("prune", {"prune_ratio": Real(0.0, 0.8, step=0.1)}),
        Rule("quantize", {"weight_bits": Choice((2, 4, 8))}, layers=("conv*",), indices=(0, -1)),
    )
    made = StudySpec(
        name, ModelSpec("tiny"), Part("digits", {"n": 3}), rules, ("prune", "quantize"), (Objective("top1"),)
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def policy(ratio: float = 0.5, bits: int = 4) -> Policy:
    return Policy({Site("prune", "conv1", "prune_ratio"): ratio, Site("quantize", "ä.1", "weight_bits"): bits})


def add(store: TrialDatabase, study: str, ratio: float = 0.5, rung: int = 0, bits: int = 4) -> Trial:
    return store.add(study, Proposal(policy(ratio, bits), "memo"), rung)


def finish(store: TrialDatabase, study: str, trial: Trial, **metrics: float) -> Trial:
    running = store.move(study, trial.to(R))
    return store.move(study, running.to(C, measurement=Measurement(metrics, seconds=1.5)))


# Studies


def test_a_study_reads_back_equal_and_is_listed_once(store: TrialDatabase) -> None:
    name, facts = f"s-{uuid.uuid4().hex}", {"baseline": {"top1": 0.97, "loss": math.inf}, "layers": [["conv1", 3]]}
    store.create(spec(name), facts)
    assert store.spec(name) == spec(name)
    assert store.facts(name) == facts
    found = [summary for summary in store.studies() if summary.spec.name == name]
    assert [summary.spec for summary in found] == [spec(name)]
    assert found[0].counts == dict.fromkeys(TrialState, 0)
    assert found[0].created[10] == "T"
    assert found[0].created.endswith("Z")


def test_studies_come_oldest_first(store: TrialDatabase) -> None:
    names = [new_study(store) for _ in range(3)]
    assert [s.spec.name for s in store.studies() if s.spec.name in names] == names


def test_a_taken_name_is_refused_and_the_first_study_stays(store: TrialDatabase, study: str) -> None:
    with pytest.raises(StudyExists, match=f"'{study}' exists already"):
        store.create(spec(study, seed=9), {"other": 1})
    assert store.spec(study).seed == 0
    assert store.facts(study) == {}


def test_an_unknown_study_is_told_its_nearest_name(store: TrialDatabase, study: str) -> None:
    near = study[:-1]
    reads = (store.spec, store.revisions, store.facts, store.trials, store.tally, store.query)
    history = (store.attempts, store.finishing, store.front_changes, store.artifacts)
    for call in (*reads, *history, store.asked, partial(store.ask, word=Control.STOP), store.driver):
        with pytest.raises(UnknownStudy, match=f"no study '{near}', did you mean '{study}'"):
            call(near)
    with pytest.raises(UnknownStudy, match="no study"):
        add(store, near)


def test_a_revision_follows_the_stored_one_only(store: TrialDatabase, study: str) -> None:
    store.revise(spec(study, revision=1, first_trial=5, seed=7))
    assert store.spec(study) == spec(study, revision=1, first_trial=5, seed=7)
    for wrong in (0, 1, 3):
        with pytest.raises(StoreError, match=f"revision {wrong} cannot follow revision 1"):
            store.revise(spec(study, revision=wrong))
    assert store.spec(study).seed == 7
    assert store.revisions(study) == [spec(study), store.spec(study)]


def test_a_revision_may_bring_new_facts_and_a_refused_one_does_not(store: TrialDatabase) -> None:
    name, first, second = f"s-{uuid.uuid4().hex}", {"layers": [1]}, {"layers": [1, 2], "top1": math.inf}
    store.create(spec(name), first)
    store.revise(spec(name, revision=1))
    assert store.facts(name) == first
    store.revise(spec(name, revision=2), second)
    assert store.facts(name) == second
    with pytest.raises(StoreError, match="revision 7 cannot follow revision 2"):
        store.revise(spec(name, revision=7), {"layers": []})
    with pytest.raises(TypeError, match="not JSON serializable"):
        store.revise(spec(name, revision=3), {"layers": object()})
    assert (store.facts(name), store.spec(name).revision) == (second, 2)


# Memories


def test_the_newest_memory_of_a_revision_is_kept(shared: World, store: TrialDatabase, study: str) -> None:
    other = new_study(store)
    assert store.memory(study) is None
    for told, state in ((20, b"\x00first\xff"), (40, bytes(range(256)) * 300), (60, b"")):
        store.keep_memory(study, told, state)
        assert shared.open().memory(study) == (told, state)
    store.revise(spec(study, revision=1))
    assert store.memory(study) is None, "another revision may have another proposer"
    store.keep_memory(study, 5, b"new")
    assert store.memory(study) == (5, b"new")
    assert store.memory(other) is None
    with pytest.raises(UnknownStudy, match="no study"):
        store.memory(study + "x")


def test_only_who_may_write_trials_may_keep_memories(shared: World, store: TrialDatabase, study: str) -> None:
    second = shared.open()
    store.keep_memory(study, 1, b"nobody drives")
    store.take(study, ME)
    with pytest.raises(LeaseHeld, match=f"driven by pid {os.getpid()}"):
        second.keep_memory(study, 2, b"late")
    store.keep_memory(study, 3, b"the driver's")
    store.release(study)
    assert second.memory(study) == (3, b"the driver's")


# Wishes


def test_wishes_wait_in_order_and_become_trials_once(shared: World, store: TrialDatabase, study: str) -> None:
    first, second = store.wish(study, policy(0.25), 0), store.wish(study, policy(0.75), 1)
    assert first < second
    waiting = shared.open().wishes(study)
    assert list(waiting) == [Wish(first, policy(0.25), 0), Wish(second, policy(0.75), 1)]
    trial = store.grant(study, waiting[0])
    assert (trial.number, trial.policy, trial.rung, trial.state.value) == (0, policy(0.25), 0, "waiting")
    assert store.trials(study) == [trial]
    assert [wish.id for wish in store.wishes(study)] == [second]
    for wish in (waiting[0], replace(waiting[1], id=second + 99)):
        with pytest.raises(IllegalTransition, match=f"wish {wish.id} is no wish of it, or a trial already"):
            store.grant(study, wish)
    assert len(store.trials(study)) == 1


def test_anybody_wishes_and_only_the_driver_grants(shared: World, store: TrialDatabase, study: str) -> None:
    other = shared.open()
    store.take(study, ME)
    other.wish(study, policy(), 0)
    (wish,) = store.wishes(study)
    with pytest.raises(LeaseHeld, match="is driven by pid"):
        other.grant(study, wish)
    assert store.grant(study, wish).number == 0
    store.release(study)
    with pytest.raises(UnknownStudy, match="no study"):
        store.wish(study + "x", policy(), 0)


# Summaries


def test_a_summary_counts_the_trials_of_each_state(store: TrialDatabase, study: str) -> None:
    trials = [add(store, study) for _ in range(4)]
    finish(store, study, trials[0], top1=0.5)
    store.move(study, trials[1].to(R))
    store.move(study, trials[2].to(F, reason="lost"))
    counts = next(s.counts for s in store.studies() if s.spec.name == study)
    assert counts == {W: 1, R: 1, C: 1, S: 0, F: 1}


# Trials


def test_numbers_have_no_gaps_and_trials_read_back_equal(shared: World, store: TrialDatabase, study: str) -> None:
    added = [add(store, study, ratio=0.1 * (i % 3), rung=i % 2) for i in range(7)]
    assert [trial.number for trial in added] == list(range(7))
    assert list(shared.open().trials(study)) == added
    assert added[3] == Trial(3, policy(0.0), "memo", W, 1)


def test_numbers_of_two_studies_are_their_own(store: TrialDatabase, study: str) -> None:
    other = new_study(store)
    assert [add(store, name).number for name in (study, other, study, other)] == [0, 0, 1, 1]


def test_trials_are_filtered_by_state(store: TrialDatabase, study: str) -> None:
    trials = [add(store, study) for _ in range(3)]
    done = finish(store, study, trials[1], top1=0.5)
    assert list(store.trials(study, (C,))) == [done]
    assert [trial.number for trial in store.trials(study, (W, C))] == [0, 1, 2]
    assert list(store.trials(study, (R, S))) == []


def test_a_measurement_reads_back_equal(shared: World, store: TrialDatabase, study: str) -> None:
    found = Measurement(
        {"top1": 0.1 + 0.2, "params": 2.0**53 - 1, "loss": 1e-300, "size_bytes": 5e-324},
        {"conv1": {"prune_ratio": 0.4375, "kept": [1, 2], "name": 'ä "quoted"', "exact": True}},
        "0" * 64,
        1.25,
        {"top1": 0.004, "loss": math.inf},
        1_000,
    )
    running = store.move(study, add(store, study).to(R))
    done = store.move(study, running.to(C, measurement=found))
    assert done.measurement == found
    assert shared.open().trials(study)[0] == done
    assert done.attempts == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0, -1.5])
def test_every_float_survives_as_a_metric_and_as_a_report(store: TrialDatabase, study: str, value: float) -> None:
    running = store.move(study, add(store, study).to(R))
    store.note(study, 0, 3, value)
    store.move(study, running.to(S, measurement=Measurement({"loss": value, "top1": 0.5})))
    assert store.notes(study, 0) == [(3, pytest.approx(value, nan_ok=True))]
    measured = store.trials(study)[0].measurement
    assert measured is not None
    assert measured.metrics == {"loss": pytest.approx(value, nan_ok=True), "top1": 0.5}


@pytest.mark.parametrize("error", [math.nan, math.inf, 0.0, 0.25])
def test_every_float_survives_as_a_standard_error(store: TrialDatabase, study: str, error: float) -> None:
    running = store.move(study, add(store, study).to(R))
    measured = Measurement({"loss": 1.0, "top1": 0.5, "macs": 7.0}, errors={"loss": error, "top1": 0.1}, samples=25)
    store.move(study, running.to(S, measurement=measured))
    found = store.trials(study)[0].measurement
    assert found is not None
    assert found.errors == {"loss": pytest.approx(error, nan_ok=True), "top1": 0.1}
    assert found.samples == 25


def test_the_error_of_a_metric_that_is_not_there_is_left_out(store: TrialDatabase, study: str) -> None:
    running = store.move(study, add(store, study).to(R))
    store.move(study, running.to(C, measurement=Measurement({"top1": 0.5}, errors={"loss": 0.1}, samples=3)))
    found = store.trials(study)[0].measurement
    assert found is not None
    assert (found.errors, found.samples) == ({}, 3)


def test_what_is_no_measurement_is_none(store: TrialDatabase, study: str) -> None:
    store.move(study, add(store, study).to(F, reason="error", message="no\nsuch 'layer'"))
    trial = store.trials(study)[0]
    assert (trial.measurement, trial.reason, trial.message) == (None, "error", "no\nsuch 'layer'")


def test_an_empty_measurement_is_not_none(store: TrialDatabase, study: str) -> None:
    finish(store, study, add(store, study))
    assert store.trials(study)[0].measurement == Measurement({}, {}, None, 1.5)


def test_a_twin_is_answered_without_running(store: TrialDatabase, study: str) -> None:
    first = finish(store, study, add(store, study), top1=0.5)
    second = store.move(study, add(store, study).to(C, measurement=first.measurement, twin=0))
    assert store.trials(study)[1] == second
    assert (second.twin, second.attempts) == (0, 0)


def test_only_one_of_two_drivers_takes_the_same_step(shared: World, store: TrialDatabase, study: str) -> None:
    trial, other = add(store, study), shared.open()
    store.move(study, trial.to(R))
    with pytest.raises(IllegalTransition, match=f"{study}/0 is running and cannot become running"):
        other.move(study, trial.to(R))


def test_the_outcome_of_an_older_attempt_is_refused(store: TrialDatabase, study: str) -> None:
    first = store.move(study, add(store, study).to(R))
    again = store.move(study, store.move(study, first.to(W)).to(R))
    assert again.attempts == 2
    for late in (first.to(C, measurement=Measurement({"top1": 1.0})), first.to(W), first.to(F, reason="error")):
        with pytest.raises(IllegalTransition, match="attempt 1: that would be attempt 2"):
            store.move(study, late)
    assert store.trials(study) == [again]


@pytest.mark.parametrize(("field", "value"), [("policy", policy(0.7)), ("rung", 1), ("memo", "other")])
def test_a_step_never_changes_what_was_proposed(store: TrialDatabase, study: str, field: str, value: object) -> None:
    trial = add(store, study)
    with pytest.raises(IllegalTransition, match=f"a step never changes the {field}"):
        store.move(study, trial.to(R, **{field: value}))
    assert store.trials(study) == [trial]


def test_only_a_finished_trial_has_a_measurement(store: TrialDatabase, study: str) -> None:
    trial = add(store, study)
    with pytest.raises(IllegalTransition, match="is to be running, and only a finished trial has a measurement"):
        store.move(study, trial.to(R, measurement=Measurement({"top1": 1.0})))
    assert store.trials(study) == [trial]


def test_a_trial_that_is_added_running_is_as_if_it_had_waited(store: TrialDatabase, study: str) -> None:
    store.take(study, ME)
    store.move(study, add(store, study).to(R))
    told = store.add(study, Proposal(policy(), "memo"), 0, start=True)
    trials = store.trials(study)
    assert trials == [replace(told, number=0), told]
    one, two = (replace(attempt, number=0, started=None) for attempt in store.attempts(study))
    assert one == two
    done = store.move(study, told.to(C, measurement=Measurement({"top1": 0.5})))
    assert store.trials(study)[1] == done


def test_trials_are_found_by_their_numbers_in_order(store: TrialDatabase, study: str) -> None:
    trials = [add(store, study, ratio=0.1 * (number % 8)) for number in range(7)]
    trials[5] = store.move(study, trials[5].to(R))
    assert store.trials(study, numbers=[5, 0, 5, 99, -1, 3, 10**20]) == [trials[0], trials[3], trials[5]]
    assert store.trials(study, [R], range(7)) == [trials[5]]
    assert store.trials(study, numbers=[]) == []


def test_a_tally_counts_what_reading_all_trials_counts(store: TrialDatabase, study: str) -> None:
    assert store.tally(study) == []
    endings = [(C, ""), (C, ""), (S, "dominated"), (S, "behind"), (F, "oom"), (F, "oom"), (F, "nan"), (C, "")]
    for number, (state, reason) in enumerate(endings):
        running = store.add(study, Proposal(policy(0.1 * number)), 0, start=True)
        found = Measurement({"top1": 0.5}, seconds=math.nan if number == 1 else 1.5, samples=64 * (1 + number % 2))
        store.move(study, running.to(state, reason=reason, measurement=None if state is F else found))
    finish(store, study, add(store, study), top1=0.5)
    store.move(study, add(store, study).to(C, measurement=Measurement({"top1": 0.5}, seconds=9.0), twin=8))
    store.add(study, Proposal(policy()), 1, start=True)
    add(store, study)
    counts = store.tally(study)
    assert list(counts) == tally(store.trials(study))
    assert by_state(counts) == {C: 5, S: 2, F: 3, R: 1, W: 1}
    assert sum(count.seconds for count in counts if not count.answered) == 1.5 * 5
    assert [count.reason for count in counts if count.hopeless] == ["dominated"]
    assert failures(counts) == {"nan": 1, "oom": 2}


def test_an_unknown_trial_is_said(store: TrialDatabase, study: str) -> None:
    with pytest.raises(UnknownTrial, match=r"no trial 4 \(it has none\)"):
        store.notes(study, 4)
    trial = add(store, study)
    with pytest.raises(UnknownTrial, match=r"no trial 4 \(it has 0 to 0\)"):
        store.move(study, replace(trial, number=4).to(R))
    with pytest.raises(UnknownTrial, match="no trial 1"):
        store.note(study, 1, 0, 0.0)


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.sampled_from(TrialState), st.integers(-1, 1)), max_size=8))
def test_exactly_the_drawn_steps_are_taken(store: TrialDatabase, steps: list[tuple[TrialState, int]]) -> None:
    study = new_study(store)
    now = add(store, study)
    for state, wrong in steps:
        attempts = now.attempts + (state is R) + wrong
        wanted = replace(now, state=state, attempts=attempts, message=state.value)
        if state in LEGAL.get(now.state, ()) and not wrong:
            now = store.move(study, wanted)
            assert now == wanted
        else:
            with pytest.raises(IllegalTransition, match=f"{study}/0 "):
                store.move(study, wanted)
        assert list(store.trials(study)) == [now]


# Reports


def test_reports_come_in_order_of_step_and_a_second_replaces_the_first(store: TrialDatabase, study: str) -> None:
    store.move(study, add(store, study).to(R))
    for step, value in [(20, 2.0), (10, 1.0), (20, 3.0)]:
        store.note(study, 0, step, value)
    assert list(store.notes(study, 0)) == [(10, 1.0), (20, 3.0)]


def test_reports_are_those_of_the_last_attempt_and_late_ones_are_dropped(store: TrialDatabase, study: str) -> None:
    running = store.move(study, add(store, study).to(R))
    store.note(study, 0, 1, 0.5)
    waiting = store.move(study, running.to(W))
    store.note(study, 0, 2, 0.6)
    assert list(store.notes(study, 0)) == [(1, 0.5)]
    running = store.move(study, waiting.to(R))
    assert list(store.notes(study, 0)) == []
    store.note(study, 0, 1, 0.7)
    store.move(study, running.to(C, measurement=Measurement({})))
    store.note(study, 0, 9, 0.8)
    assert list(store.notes(study, 0)) == [(1, 0.7)]


# Latencies of layers


def test_latencies_are_kept_by_device_and_replaced_by_newer_ones(shared: World, store: TrialDatabase) -> None:
    device = f"cpu-{uuid.uuid4().hex[:8]}"
    assert store.latencies(device) == {}
    store.keep_latencies(device, {"linear 8": 0.5, "conv 3x3 ä": 1.25}, rounds=50)
    store.keep_latencies(f"{device} b", {"linear 8": 9.0})
    store.keep_latencies(device, {"linear 8": 0.1 + 0.2, "add": 0.0})
    found = shared.open().latencies(device)
    assert list(found.items()) == [("add", 0.0), ("conv 3x3 ä", 1.25), ("linear 8", 0.1 + 0.2)]
    assert shared.open().latencies(f"{device} b") == {"linear 8": 9.0}
    store.keep_latencies(device, {})
    assert len(store.latencies(device)) == 3


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.5])
def test_a_latency_that_is_no_time_is_refused_and_nothing_of_its_call_is_kept(
    store: TrialDatabase, value: float
) -> None:
    device = f"cpu-{uuid.uuid4().hex[:8]}"
    with pytest.raises(StoreError, match=f"latency of 'b' on '{device}': must be a finite time, at least 0, not"):
        store.keep_latencies(device, {"a": 1.0, "b": value})
    with pytest.raises(StoreError, match="rounds must be at least 1, not 0"):
        store.keep_latencies(device, {"a": 1.0}, rounds=0)
    assert store.latencies(device) == {}


# Leases


def test_what_changes_together_is_seen_together(shared: World, store: TrialDatabase, study: str) -> None:
    if isinstance(store, MemoryStore):
        pytest.skip("in memory nothing is durable, and each call is there at once")
    other = shared.open()
    with store.together():
        first = store.move(study, add(store, study).to(R))
        with store.together():
            second = add(store, study, bits=8)
        assert store.trials(study) == [first, second], "who changes it sees it"
        assert other.trials(study) == []
    assert other.trials(study) == [first, second]
    assert [attempt.number for attempt in other.attempts(study)] == [0]


@pytest.mark.parametrize("caught", [True, False])
def test_after_an_error_nothing_of_its_call_and_uncaught_nothing_of_all_is_there(
    shared: World, store: TrialDatabase, study: str, caught: bool
) -> None:
    if isinstance(store, MemoryStore):
        pytest.skip("in memory nothing is durable, and each call is there at once")
    old, other = add(store, study), shared.open()
    with contextlib.suppress(IllegalTransition), store.together():
        store.move(study, old.to(R))
        with contextlib.suppress(IllegalTransition) if caught else contextlib.nullcontext():
            store.move(study, old.to(R))
        add(store, study, bits=8)
    assert [trial.state for trial in other.trials(study)] == ([R, W] if caught else [W])
    assert add(store, study, bits=2).number == (2 if caught else 1), "and it goes on"


def test_together_is_of_one_thread(shared: World, store: TrialDatabase, study: str) -> None:
    """The thread that keeps a driver's lease alive waits for it, or goes its own way, but takes no part in it."""
    there: list[int] = []
    with contextlib.suppress(ZeroDivisionError), store.together():
        if isinstance(store, MemoryStore):
            pytest.skip("in memory nothing is durable, and each call is there at once")
        add(store, study)
        reader = threading.Thread(target=lambda: there.append(len(store.trials(study))))
        reader.start()
        reader.join()
        raise ZeroDivisionError
    assert there == [0]
    assert store.trials(study) == []


def writes(store: TrialDatabase, study: str, trial: Trial) -> list[Callable[[], object]]:
    return [
        lambda: add(store, study),
        lambda: store.move(study, trial.to(R)),
        lambda: store.note(study, trial.number, 0, 1.0),
        lambda: store.keep_front(study, {trial.number: True}),
        lambda: store.revise(replace(store.spec(study), revision=store.spec(study).revision + 1)),
    ]


def test_a_live_driver_is_named_to_its_rival_who_may_read_only(shared: World, store: TrialDatabase, study: str) -> None:
    rival, trial = shared.open(), add(store, study)
    store.take(study, ME)
    shared.now += 12
    told = rf"pid {ME.pid} on host {ME.host}, last heard 12 s ago: .*automc stop {study}"
    with pytest.raises(LeaseHeld, match=told):
        rival.take(study, ME)
    for write in writes(rival, study, trial):
        with pytest.raises(LeaseHeld, match=told):
            write()
    assert rival.trials(study) == [trial]
    assert add(store, study).number == 1


def test_a_renewal_is_heard_and_silence_alone_does_not_cost_a_live_process_its_lease(
    shared: World, store: TrialDatabase, study: str
) -> None:
    store.take(study, ME)
    shared.now += 100 * LEASE_SECONDS
    store.renew(study)
    shared.now += 7
    with pytest.raises(LeaseHeld, match="last heard 7 s ago"):
        shared.open().take(study, ME)


def test_the_lease_of_another_host_lasts_as_long_as_it_is_heard(
    shared: World, store: TrialDatabase, study: str
) -> None:
    rival = shared.open()
    store.take(study, Owner("elsewhere.example", ME.pid))
    shared.now += LEASE_SECONDS - 1
    with pytest.raises(LeaseHeld, match=r"elsewhere\.example"):
        rival.take(study, ME)
    store.renew(study)
    shared.now += LEASE_SECONDS - 1
    with pytest.raises(LeaseHeld, match=r"elsewhere\.example"):
        add(rival, study)
    shared.now += 1
    rival.take(study, ME)
    assert add(rival, study).number == 0


def test_a_killed_driver_is_followed_at_once(shared: World, store: TrialDatabase, study: str) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        store.take(study, Owner(ME.host, child.pid))
        rival = shared.open()
        with pytest.raises(LeaseHeld, match=f"pid {child.pid}"):
            rival.take(study, ME)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and still a zombie
        rival.take(study, ME)
    assert rival.ask(study, Control.STOP) is Control.STOP


def test_every_write_after_a_takeover_is_refused_and_leaves_nothing(
    shared: World, store: TrialDatabase, study: str
) -> None:
    store.take(study, Owner("elsewhere.example", 1))
    trial = add(store, study)
    shared.now += LEASE_SECONDS
    rival = shared.open()
    rival.take(study, ME)
    told = f"taken over by pid {ME.pid} on host {ME.host}"
    for write in [*writes(store, study, trial), lambda: store.renew(study)]:
        with pytest.raises(LeaseHeld, match=told):
            write()
    rival.release(study)
    for write in writes(store, study, trial):
        with pytest.raises(LeaseHeld, match=told):
            write()
    assert store.trials(study) == [trial]
    assert store.spec(study).revision == 0
    store.take(study, ME)
    assert store.move(study, trial.to(R)).state is R


def test_a_late_release_does_not_take_the_lease_from_its_new_owner(
    shared: World, store: TrialDatabase, study: str
) -> None:
    store.take(study, Owner("elsewhere.example", 1))
    shared.now += LEASE_SECONDS
    rival = shared.open()
    rival.take(study, ME)
    assert rival.ask(study, Control.STOP)
    store.release(study)
    assert rival.asked(study) is Control.STOP
    rival.renew(study)
    with pytest.raises(LeaseHeld, match="driven by"):
        store.take(study, ME)


def test_a_lease_given_back_is_free_and_giving_back_twice_is_harmless(
    shared: World, store: TrialDatabase, study: str
) -> None:
    store.release(study)
    store.take(study, ME)
    store.release(study)
    store.release(study)
    rival = shared.open()
    assert add(rival, study).number == 0
    rival.take(study, ME)
    with pytest.raises(LeaseHeld, match="holds no lease"):
        store.renew(study)


def test_a_driver_may_take_its_own_lease_again(store: TrialDatabase, study: str) -> None:
    store.take(study, ME)
    store.take(study, ME)
    assert add(store, study).number == 0


@pytest.mark.parametrize("word", [Control.PAUSE, Control.STOP, Control.CANCEL])
def test_a_word_reaches_the_driver_and_ends_with_its_lease(
    shared: World, store: TrialDatabase, study: str, word: Control
) -> None:
    other = shared.open()
    assert other.ask(study, word) is None
    store.take(study, ME)
    assert store.asked(study) is Control.GO
    assert other.ask(study, word) is word
    assert store.asked(study) is word
    store.renew(study)
    assert store.asked(study) is word
    store.release(study)
    assert store.asked(study) is Control.GO
    other.take(study, ME)
    assert other.asked(study) is Control.GO
    assert store.ask(new_study(store), word) is None


def test_a_pause_is_taken_back_and_a_stop_is_not(shared: World, store: TrialDatabase, study: str) -> None:
    store.take(study, ME)
    words = [Control.PAUSE, Control.GO, Control.PAUSE, Control.STOP, Control.GO, Control.PAUSE, Control.CANCEL]
    told = [shared.open().ask(study, word) for word in [*words, *Control]]
    pause, go, stop, cancel = Control.PAUSE, Control.GO, Control.STOP, Control.CANCEL
    assert told == [pause, go, pause, stop, stop, stop, cancel, *[cancel] * 4]
    assert store.asked(study) is cancel


def test_nobody_is_asked_to_stop_who_is_dead(shared: World, store: TrialDatabase, study: str) -> None:
    store.take(study, Owner("elsewhere.example", 1))
    shared.now += LEASE_SECONDS
    assert shared.open().ask(study, Control.STOP) is None


def test_anybody_sees_who_drives_a_study(shared: World, store: TrialDatabase, study: str) -> None:
    other, far = shared.open(), Owner("elsewhere.example", 1)
    assert other.driver(study) is None
    store.take(study, ME)
    assert other.driver(study) == store.driver(study) == ME
    store.release(study)
    assert other.driver(study) is None
    store.take(study, far)
    assert other.driver(study) == far
    shared.now += LEASE_SECONDS
    assert other.driver(study) is None


# History


def test_a_run_is_an_attempt_that_tells_who_ran_it_and_how_it_ended(
    shared: World, store: TrialDatabase, study: str
) -> None:
    store.take(study, ME)
    trial = add(store, study)
    assert store.attempts(study) == []
    first = store.move(study, trial.to(R))
    (begun,) = store.attempts(study)
    assert (begun.number, begun.attempt, begun.state, begun.fence, begun.late) == (0, 1, R, 1, False)
    assert begun.started is not None
    assert (begun.finished, begun.seconds, begun.host, begun.pid) == (None, None, "", None)
    lost = Outcome(0, 1, W, reason="signal", message="killed", log="so far\nü", host="node-2", pid=4711)
    second = store.move(study, store.move(study, first.to(W), lost).to(R))
    store.move(study, second.to(F, reason="nan", message="loss"), Outcome(0, 2, F, reason="nan", message="loss"))
    one, two = shared.open().attempts(study, 0)
    told = (one.state, one.reason, one.message, one.log, one.host, one.pid, one.late)
    assert told == (W, "signal", "killed", "so far\nü", "node-2", 4711, False)
    assert one.finished is not None
    assert one.seconds is not None
    assert one.started <= one.finished <= two.started <= two.finished  # type: ignore[operator]
    assert (two.attempt, two.state, two.reason, two.message) == (2, F, "nan", "loss")
    assert store.attempts(study, 1) == []


def test_an_answer_from_the_store_is_no_attempt(store: TrialDatabase, study: str) -> None:
    first = finish(store, study, add(store, study), top1=0.5)
    store.move(study, add(store, study).to(C, measurement=first.measurement, twin=0))
    assert [attempt.number for attempt in store.attempts(study)] == [0]
    assert store.finishing(study) == [0, 1]


def test_a_late_answer_is_recorded_and_changes_nothing_else(shared: World, store: TrialDatabase, study: str) -> None:
    """The first driver's lease is lost while its worker computes; the second gives the trial up and runs it anew."""
    store.take(study, Owner("elsewhere.example", 1))
    running = store.move(study, add(store, study).to(R))
    shared.now += LEASE_SECONDS
    second = shared.open()
    second.take(study, ME)
    again = second.move(study, second.move(study, running.to(W)).to(R))
    late = Outcome(0, 1, C, Measurement({"top1": 1.0}), log="done", host="far", pid=7)
    with pytest.raises(LeaseHeld, match="taken over"):
        store.move(study, running.to(C, measurement=late.measurement), late, {0: True})
    store.late(study, late)
    store.late(study, replace(late, state=F, reason="error"))
    one, two = second.attempts(study)
    assert (one.state, one.late, one.fence, one.log, one.host, one.pid) == (C, True, 1, "done", "far", 7)
    assert (two.attempt, two.state, two.late, two.fence) == (2, R, False, 2)
    assert second.trials(study) == [again]
    assert second.notes(study, 0) == []
    assert (second.front_changes(study), second.finishing(study)) == ([], [])
    done = second.move(study, again.to(C, measurement=Measurement({"top1": 0.5})))
    assert second.trials(study) == [done]
    assert [attempt.late for attempt in second.attempts(study)] == [True, False]


def test_a_late_answer_that_comes_before_the_attempt_is_given_up_stays_late(
    shared: World, store: TrialDatabase, study: str
) -> None:
    running = store.move(study, add(store, study).to(R))
    store.late(study, Outcome(0, 1, C, Measurement({})))
    store.move(study, running.to(W))
    (attempt,) = store.attempts(study)
    assert (attempt.state, attempt.late) == (C, True)
    assert store.trials(study)[0].state is W
    with pytest.raises(UnknownTrial, match="no trial 1"):
        store.late(study, Outcome(1, 1, C))


def test_trials_are_known_in_the_order_in_which_they_finished(store: TrialDatabase, study: str) -> None:
    running = [store.move(study, add(store, study).to(R)) for _ in range(5)]
    for number, state in ((3, C), (0, F), (4, S)):
        store.move(study, running[number].to(state, reason="error" if state is F else ""))
    assert store.finishing(study) == [3, 0, 4]
    assert store.finishing(new_study(store)) == []


def test_a_change_of_the_front_comes_with_the_result_that_made_it_or_not_at_all(
    shared: World, store: TrialDatabase, study: str
) -> None:
    running = [store.move(study, add(store, study).to(R)) for _ in range(3)]
    store.move(study, running[2].to(C, measurement=Measurement({})), front={2: True})
    with pytest.raises(IllegalTransition, match="is complete"):
        store.move(study, running[2].to(C, measurement=Measurement({})), front={2: False})
    store.move(study, running[0].to(F, reason="error"))
    store.move(study, running[1].to(C, measurement=Measurement({})), front={2: False, 1: True})
    changes = shared.open().front_changes(study)
    assert changes == [FrontChange(1, 2, True), FrontChange(3, 1, True), FrontChange(3, 2, False)]
    assert [front_after(changes, place) for place in range(5)] == [[], [2], [2], [1], [1]]
    store.keep_front(study, {1: False, 0: True})
    assert front_after(store.front_changes(study), 3) == [0]
    assert front_after(store.front_changes(study), 2) == [2]


def test_metrics_are_added_to_what_was_measured_and_change_nothing_of_it(
    shared: World, store: TrialDatabase, study: str
) -> None:
    done = [finish(store, study, add(store, study), top1=0.5 + i / 8, loss=math.inf) for i in range(2)]
    store.add_metrics(study, {1: Measurement({"latency_ms": 1.5, "score": math.nan}, errors={"latency_ms": 0.25})})
    first, second = shared.open().trials(study)
    assert first == done[0]
    found = second.measurement
    assert found is not None
    metrics = dict(found.metrics)
    assert math.isnan(metrics.pop("score"))
    assert metrics == {"latency_ms": 1.5, "loss": math.inf, "top1": 0.625}
    assert found.errors == {"latency_ms": 0.25}
    assert replace(second, measurement=done[1].measurement) == done[1]
    assert [t.number for t in store.query(study, "latency_ms < 2")] == [1]


def test_metrics_are_added_to_all_trials_or_to_none(store: TrialDatabase, study: str) -> None:
    for _ in range(2):
        finish(store, study, add(store, study), top1=0.5)
    add(store, study)
    new = Measurement({"latency_ms": 1.5})
    for wrong, message in (
        ({0: new, 1: Measurement({"top1": 0.5})}, f"trial {study}/1 has top1 already"),
        ({0: new, 2: new}, f"trial {study}/2 was not measured"),
        ({0: new, 3: new}, f"study '{study}' has no trial 3"),
    ):
        with pytest.raises(StoreError, match=message):
            store.add_metrics(study, wrong)
        assert [set(t.measurement.metrics) for t in store.trials(study) if t.measurement] == [{"top1"}] * 2


def test_an_artifact_is_kept_once_with_its_newest_proof(shared: World, store: TrialDatabase, study: str) -> None:
    store.take(study, ME)
    finish(store, study, add(store, study))
    other = shared.open()
    made = Artifact("a" * 64, 0, "onnx", "model.onnx", 2**40, {"passed": False, "top1": math.inf, "who": ["ü"]})
    other.keep_artifact(study, made)
    other.keep_artifact(study, Artifact("b" * 64, 0, "safetensors", "model.safetensors", 3))
    proved = replace(made, proof={"passed": True})
    other.keep_artifact(study, proved)
    found = store.artifacts(study)
    assert [replace(artifact, created="") for artifact in found] == [
        proved,
        Artifact("b" * 64, 0, "safetensors", "model.safetensors", 3),
    ]
    assert found[0].created.endswith("Z")
    assert store.artifacts(study, 0) == found
    assert store.artifacts(study, 1) == []
    with pytest.raises(UnknownTrial, match="no trial 9"):
        other.keep_artifact(study, replace(made, number=9))


# Queries


@pytest.fixture(scope="module")
def asked(shared: World) -> tuple[TrialDatabase, str]:
    """A study of 30 trials in all states, with few distinct values, gaps, NaN and infinities."""
    store, draw = shared.open(), random.Random(5)
    study = new_study(store)
    values = [0.0, 0.5, 1.0, 2.5, -1.0, math.nan, math.inf, -math.inf]
    for _ in range(30):
        trial = store.move(study, add(store, study, draw.choice([0.1, 0.2]), draw.randrange(3)).to(R))
        names = draw.sample(["top1", "loss", "params", "seconds"], draw.randrange(5))
        errors = {n: draw.choice(values) for n in names if n in ("top1", "loss") and draw.random() < 0.7}
        metrics, samples = {n: draw.choice(values) for n in names}, draw.choice([0, 17])
        found = Measurement(metrics, seconds=draw.choice([0.5, 1.0]), errors=errors, samples=samples)
        end = draw.choice([R, C, C, S, F])
        if end is F:
            store.move(study, trial.to(F, reason=draw.choice(["error", "nan", "oom"])))
        elif end is not R:
            store.move(study, trial.to(end, measurement=found))
    return store, study


def operands() -> st.SearchStrategy[tuple[str, str]]:
    names = st.sampled_from(
        ["top1", "loss", "params", "macs", "number", "rung", "seconds", "top1_error", "loss_error", "samples"]
    )
    numbers = st.sampled_from(["0", "0.5", "1", "2.5", "-1", "1e999", "17", "+.5"])
    return st.one_of(st.tuples(names, numbers), st.tuples(numbers, names), st.tuples(names, names))


def filters() -> st.SearchStrategy[str]:
    signs = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
    compare = st.tuples(operands(), signs).map(lambda x: f"{x[0][0]} {x[1]} {x[0][1]}")
    word = st.sampled_from(["state == complete", "state != 'failed'", "reason == oom", '"" != reason'])
    kind = st.sampled_from(["in", "not in"])
    member = st.tuples(st.sampled_from(["top1", "loss", "rung"]), kind).map(lambda x: f"{x[0]} {x[1]} (0.5, 1, -1)")
    words = kind.map(lambda k: f"state {k} (failed, running)")

    def wider(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        joined = st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(" ".join)
        return st.one_of(joined, joined.map(lambda x: f"({x})"), inner.map(lambda x: f"not ({x})"))

    return st.recursive(st.one_of(compare, compare, word, member, words), wider, max_leaves=6)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    where=filters(),
    sort=st.lists(
        st.sampled_from(
            ["top1", "-top1", "loss", "-loss", "seconds", "-state", "reason", "-rung", "-top1_error", "samples"]
        ),
        max_size=3,
    ),
    limit=st.none() | st.integers(0, 9),
)
def test_a_query_is_what_python_makes_of_it(
    asked: tuple[TrialDatabase, str], where: str, sort: list[str], limit: int | None
) -> None:
    store, study = asked
    expected = [trial for trial in store.trials(study) if truth(where, trial)]
    for key in reversed(sort):
        name = key.removeprefix("-")
        has = [t for t in expected if values_of(t).get(name) is not None and values_of(t)[name] == values_of(t)[name]]
        lacks = [t for t in expected if t.number not in {h.number for h in has}]
        expected = sorted(has, key=lambda t: values_of(t)[name], reverse=key.startswith("-")) + lacks
    found = store.query(study, where, sort, limit)
    assert [trial.number for trial in found] == [trial.number for trial in expected][:limit]


def values_of(trial: Trial) -> dict[str, object]:
    measured = trial.measurement
    found: dict[str, object] = dict.fromkeys([*METRICS, *(f"{name}_error" for name in METRICS), "samples"])
    found |= {"number": trial.number, "rung": trial.rung, "state": trial.state.value, "reason": trial.reason}
    if measured is None:
        return found
    errors = {f"{name}_error": error for name, error in measured.errors.items()}
    return found | errors | dict(measured.metrics, seconds=measured.seconds, samples=measured.samples)


class Lacking:
    """In the place of a missing value: every comparison is false, as is being a member."""

    def _no(self, other: object) -> bool:
        return False

    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = _no  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]


def truth(where: str, trial: Trial) -> bool:
    """The filter as Python itself reads it: an oracle that shares nothing with automc's parser."""
    words = {word: word for word in ("complete", "failed", "running", "oom")}
    names = {name: Lacking() if value is None else value for name, value in values_of(trial).items()}
    for name in ("top1", "loss", "rung"):
        text = f"{name} not in (0.5, 1, -1)"
        if text in where and isinstance(names[name], Lacking):
            where = where.replace(text, "False")
    return bool(eval(where, {"__builtins__": {}}, words | names))


def test_pages_are_turned_by_number(asked: tuple[TrialDatabase, str]) -> None:
    store, study = asked
    seen: list[int] = []
    while page := store.query(study, f"number > {seen[-1] if seen else -1}", limit=7):
        seen += [trial.number for trial in page]
    assert seen == list(range(30))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"where": "tp1 > 0.5"}, r"column 1: unknown name 'tp1', did you mean 'top1'\?"),
        ({"sort": ["-size_byte"]}, r"sort: unknown name 'size_byte', did you mean 'size_bytes'\?"),
        ({"limit": -1}, "limit: 0 or more trials, 2147483647 at most, not -1"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(
    store: TrialDatabase, study: str, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        store.query(study, **arguments)  # type: ignore[arg-type]
