"""The loop against its promises: determinism whatever the workers, nothing paid twice, nothing lost."""

import random
from dataclasses import replace
from itertools import count

import pytest
import sqlalchemy

from automc.app.catalog import PROPOSERS, build
from automc.core.history import front_after
from automc.core.metrics import Constraint, Measurement, Objective, losses
from automc.core.pareto import front
from automc.core.ports import Outcome, Proposal
from automc.core.rules import Rule, resolve
from automc.core.search import Ending, Search, Silent
from automc.core.space import Choice, Real
from automc.core.store import Control, Owner
from automc.core.study import Budget, ModelSpec, Part, Rung, StudySpec, Workers
from automc.core.trial import TrialState
from automc.errors import LeaseHeld
from automc.evaluation.synthetic import prepare_synthetic
from automc.operators import OPERATORS, ORDER
from automc.stoppers import MedianStopper, NeverStopper
from automc.stores import open_store
from automc.stores.engine import READ_ONLY
from automc.stores.memory import MemoryStore
from automc.stores.sql import SqlStore
from automc.workers.inline import InlineExecutor
from automc.workers.outcomes import judged

RULES = (
    Rule("prune", {"prune_ratio": Real(0.0, 0.8, step=0.2)}),
    Rule("quantize", {"weight_bits": Choice((2, 4, 8))}),
    Rule("distill", {"kd_alpha": Real(0.0, 1.0)}),
)


def study(**changes) -> StudySpec:
    spec = StudySpec(
        "s",
        ModelSpec(""),
        Part(""),
        RULES,
        ORDER,
        (Objective("top1"), Objective("size_bytes")),
        evaluator=Part("synthetic", {"layers": 5}),
        rungs=(Rung(0), Rung(20, share=0.25)),
        budget=Budget(40),
        workers=Workers(window=4),
    )
    return replace(spec, **changes)


class Shuffled:
    """Some workers whose trials finish in an arbitrary order, some of them lost on the way."""

    def __init__(self, evaluator, slots: int, seed: int, lost: float = 0.0):
        self._evaluator, self._slots, self._draw, self._lost = evaluator, slots, random.Random(seed), lost
        self.running, self.started, self._worth, self._rivals = [], [], {}, {}

    @property
    def free(self):
        return self._slots - len(self.running)

    def submit(self, trial, worth, rivals=None):
        assert self.free > 0
        assert trial.state is TrialState.RUNNING
        self.running.append(trial)
        self._worth[trial.number], self._rivals[trial.number] = worth, rivals
        self.started.append(trial.number)

    def gather(self, watch):
        trial = self.running.pop(self._draw.randrange(len(self.running)))
        if self._draw.random() < self._lost:
            return [Outcome(trial.number, trial.attempts, TrialState.WAITING, message="worker died")]
        stale = Outcome(
            trial.number, trial.attempts - 1, TrialState.COMPLETE, Measurement({"top1": 1.0, "size_bytes": 0.0})
        )

        def monitor(step, value):
            watch(trial.number, step, value)
            return self._worth[trial.number](step, value)

        return [stale, judged(self._evaluator, trial, monitor, self._rivals[trial.number])]

    def close(self):
        self.running = []


def run(spec, store, executor=None, halt=lambda: False, stopper=None, listener=None, asked=None):
    evaluator = prepare_synthetic(spec)
    space = resolve(spec.rules, spec.order, evaluator.table, OPERATORS)
    proposer = build(PROPOSERS, "proposer", spec.proposer, space, spec.objectives, spec.constraints, spec.seed)
    executor = executor or InlineExecutor(evaluator)
    if executor is not None and getattr(executor, "_evaluator", 0) is None:
        executor._evaluator = evaluator
    return Search(spec, space, (proposer, stopper or NeverStopper()), executor, store, listener).run(
        asked or (lambda: Control.STOP if halt() else Control.GO)
    )


def fresh(spec):
    store = open_store("memory:")
    store.create(spec, {})
    return store


def told(store):
    """What must not depend on workers, timing or crashes."""
    return [
        (
            t.number,
            t.policy.fingerprint,
            t.memo,
            t.rung,
            t.state,
            t.reason,
            t.twin,
            t.measurement and dict(t.measurement.metrics),
        )
        for t in store.trials("s")
    ]


def uninterrupted(spec):
    store = fresh(spec)
    assert run(spec, store) is Ending.DONE
    return told(store)


@pytest.mark.parametrize("proposer", ["tpe", "nsga2", "random"])
@pytest.mark.parametrize("slots", [1, 2, 4])
def test_trials_do_not_depend_on_the_workers(proposer, slots):
    spec = study(proposer=Part(proposer))
    store = fresh(spec)
    assert run(spec, store, Shuffled(None, slots, seed=slots, lost=0.1)) is Ending.DONE
    assert told(store) == uninterrupted(spec)


@pytest.mark.parametrize("seed", range(4))
def test_stopped_and_resumed_at_random_equals_uninterrupted(seed):
    spec, draw = study(), random.Random(seed)
    store = fresh(spec)
    endings = []
    while not endings or endings[-1] is not Ending.DONE:
        left = draw.randrange(1, 12)
        calls = iter(range(10_000))
        endings.append(run(spec, store, halt=lambda calls=calls, left=left: next(calls) >= left))
    assert len(endings) > 3
    assert set(endings[:-1]) == {Ending.DRAINED}
    assert told(store) == uninterrupted(spec)


def test_drained_leaves_nothing_running():
    spec = study()
    store, pool = fresh(spec), Shuffled(None, 3, 0)
    calls = iter(range(100))
    assert run(spec, store, pool, halt=lambda: next(calls) >= 4) is Ending.DRAINED
    assert pool.running == []
    assert not store.trials("s", [TrialState.RUNNING])


def test_interrupt_puts_running_trials_back():
    spec = study()
    store = fresh(spec)

    class Interrupted(Shuffled):
        def gather(self, watch):
            if len(self.started) > 6:
                raise KeyboardInterrupt
            return super().gather(watch)

    assert run(spec, store, Interrupted(None, 2, 0)) is Ending.INTERRUPTED
    waiting = store.trials("s", [TrialState.WAITING])
    assert len(waiting) == 2
    assert not store.trials("s", [TrialState.RUNNING])
    assert run(spec, store) is Ending.DONE
    assert told(store) == uninterrupted(spec)


@pytest.mark.parametrize("step", ["add", "move"])
@pytest.mark.parametrize("place", range(4, 9))
def test_an_interrupt_right_after_a_write_leaves_nothing_running(monkeypatch, step, place):
    spec = study()
    store = fresh(spec)
    write, calls = getattr(store, step), count(1)

    def interrupted(*args, **kwargs):
        written = write(*args, **kwargs)
        if next(calls) == place:
            raise KeyboardInterrupt
        return written

    monkeypatch.setattr(store, step, interrupted)
    assert run(spec, store) is Ending.INTERRUPTED
    assert not store.trials("s", [TrialState.RUNNING])
    assert run(spec, store) is Ending.DONE
    assert told(store) == uninterrupted(spec)


def test_a_policy_is_measured_once_a_rung():
    spec = study(
        rules=(Rule("prune", {"prune_ratio": Real(0.0, 0.8, step=0.8)}, layers=("conv0",)), RULES[2]), rungs=(Rung(0),)
    )
    store, pool = fresh(spec), Shuffled(None, 3, 0)
    run(spec, store, pool)
    trials = store.trials("s")
    assert {t.state for t in trials} == {TrialState.COMPLETE}
    assert len(trials) == 40
    # kd_alpha has no effect without training, so there are two things to measure.
    assert len(pool.started) == 2
    assert sum(t.twin is None for t in trials) == 2
    assert (
        len({(t.policy.settings("prune")["conv0"]["prune_ratio"], t.measurement.metrics["top1"]) for t in trials}) == 2
    )


@pytest.mark.parametrize("slots", [1, 3])
def test_a_failed_policy_is_tried_by_the_next_that_asks_and_by_no_more(slots):
    """All trials ask the same; the first fails, the second measures, all others are answered by it."""
    spec = study(rules=(Rule("prune", {"prune_ratio": Real(0.0, 0.8, step=0.8)}, layers=("conv0",)),), rungs=(Rung(0),))
    spec = replace(spec, budget=Budget(8), proposer=Part("random"))

    class Same:
        def __init__(self, inner):
            self.calls, self.inner = 0, inner

        def evaluate(self, policy, rung, monitor, rivals=None):
            self.calls += 1
            if self.calls == 1:
                raise RuntimeError("once")
            return self.inner.evaluate(policy, rung, monitor)

    evaluator = Same(prepare_synthetic(spec))
    space = resolve(spec.rules, spec.order, evaluator.inner.table, OPERATORS)

    class Stubborn:
        def ask(self, numbers):
            return [Proposal(space.decode([0.0])) for _ in numbers]

        def tell(self, trials):
            pass

    store = fresh(spec)
    Search(spec, space, (Stubborn(), NeverStopper()), Shuffled(evaluator, slots, 0), store).run()
    assert evaluator.calls == 2
    assert [t.twin for t in store.trials("s")] == [None, None, *[1] * 6]


def test_promotion_takes_the_share_and_the_best():
    spec = study()
    store = fresh(spec)
    run(spec, store)
    trials = store.trials("s")
    first, second = ([t for t in trials if t.rung == r] for r in (0, 1))
    assert len(second) == int(0.25 * len({t.policy for t in first if t.number <= second[-1].number - 4}))
    promoted = set()
    for trial in second:
        rivals = {t.policy: t for t in first if t.number <= trial.number - 4 and t.policy not in promoted}
        best = front(list(rivals.values()), spec.objectives, spec.constraints)
        assert losses(spec.objectives, rivals[trial.policy].measurement.metrics) in [
            losses(spec.objectives, t.measurement.metrics) for t in best
        ]
        promoted.add(trial.policy)


@pytest.mark.parametrize(("retries", "reason"), [(0, ""), (2, "signal")])
def test_a_trial_lost_too_often_fails_and_the_study_goes_on(retries, reason):
    spec = study(budget=Budget(5), rungs=(Rung(0),), workers=Workers(retries=retries))
    store = fresh(spec)

    class Poisoned(Shuffled):
        def gather(self, watch):
            trial = self.running[0]
            if trial.number == 2:
                attempt = self.running.pop(0).attempts
                return [Outcome(2, attempt, TrialState.WAITING, reason=reason, message="worker died: signal 9")]
            return super().gather(watch)

    pool = Poisoned(None, 1, 0)
    assert run(spec, store, pool) is Ending.DONE
    assert [t.state is TrialState.FAILED for t in store.trials("s")] == [False, False, True, False, False]
    failed = store.trials("s")[2]
    assert (failed.reason, failed.attempts) == (reason or "lost", retries + 1)
    assert pool.started.count(2) == retries + 1


def test_failures_are_recorded_with_their_reason_and_do_not_stop_the_study():
    spec = study(evaluator=Part("synthetic", {"layers": 5, "fail": {"error": 0.2, "nan": 0.2, "oom": 0.2}}))
    store = fresh(spec)
    assert run(spec, store) is Ending.DONE
    reasons = {t.reason for t in store.trials("s", [TrialState.FAILED])}
    assert reasons == {"error", "nan", "oom"}
    assert len(store.trials("s")) == 40


def test_extension_with_another_proposer_is_told_everything_and_resumes_exactly():
    first = study(budget=Budget(20))
    second = replace(first, budget=Budget(40), proposer=Part("nsga2"), revision=1, first_trial=20)

    def extended(pieces: int):
        store = fresh(first)
        run(first, store)
        store.revise(second)
        for _ in range(pieces):
            calls = iter(range(1000))
            run(second, store, halt=lambda calls=calls: next(calls) >= 5)
        run(second, store)
        return told(store)

    assert extended(0) == extended(3)
    assert extended(0)[:20] == uninterrupted(first)
    assert len(extended(0)) == 40


def test_the_stopper_ends_hopeless_repairs_and_resume_remembers_reports():
    spec = study(rungs=(Rung(20),))
    store = fresh(spec)
    run(spec, store, stopper=MedianStopper(peers=3))
    stopped = store.trials("s", [TrialState.STOPPED])
    assert 0 < len(stopped) < 40
    assert all(t.measurement for t in stopped)
    pool = fresh(spec)
    run(spec, pool, Shuffled(None, 3, 1, lost=0.1), stopper=MedianStopper(peers=3))
    assert told(pool) == told(store)
    again = fresh(spec)
    calls = iter(range(1000))
    run(spec, again, halt=lambda: next(calls) >= 15, stopper=MedianStopper(peers=3))
    run(spec, again, stopper=MedianStopper(peers=3))
    assert told(again) == told(store)


def test_a_time_budget_ends_asking_but_finishes_what_runs():
    spec = study(budget=Budget(1000, seconds=0.0))
    store = fresh(spec)
    assert run(spec, store) is Ending.DONE
    assert store.trials("s") == []
    spec = study(budget=Budget(1000, seconds=0.3), evaluator=Part("synthetic", {"layers": 5, "sleep_s": 0.05}))
    store = fresh(spec)
    run(spec, store)
    assert 2 <= len(store.trials("s")) <= 8
    assert all(t.state is TrialState.COMPLETE for t in store.trials("s"))


def test_the_listener_hears_every_event_once():
    heard = []

    class Ear:
        def added(self, trial):
            heard.append(("added", trial.number))

        def finished(self, trial):
            heard.append(("finished", trial.number))

        def noted(self, number, step, value):
            heard.append(("noted", number))

        def paused(self, now):
            heard.append(("paused", now))

    spec = study()
    run(spec, fresh(spec), listener=Ear())
    for number in range(40):
        assert heard.count(("added", number)) == heard.count(("finished", number)) == 1
        assert heard.index(("added", number)) < heard.index(("finished", number))
    assert any(kind == "noted" for kind, _ in heard)


SAMPLED = Part("synthetic", {"layers": 5, "inputs": 1000, "doubt": 0.01})


@pytest.mark.parametrize("slots", [2, 4])
def test_hopeless_trials_are_stopped_whatever_the_workers(slots):
    """Rungs, promotions, twins and lost workers included: who is stopped depends on the numbers of the trials only."""
    spec = study(evaluator=SAMPLED, proposer=Part("nsga2"), budget=Budget(70))
    store, lost = fresh(spec), fresh(spec)
    run(spec, store)
    run(spec, lost, Shuffled(None, slots, seed=slots, lost=0.1))
    assert told(lost) == told(store)
    stopped = [t for t in store.trials("s") if t.hopeless]
    assert len(stopped) >= 10
    assert {t.reason for t in stopped} == {"dominated"}
    assert all(0 < t.measurement.samples < 1000 for t in stopped)
    again = fresh(spec)
    for left in (7, 11, 20):
        calls = iter(range(1000))
        run(spec, again, halt=lambda calls=calls, left=left: next(calls) >= left)
    run(spec, again)
    assert told(again) == told(store)


def test_a_hopeless_trial_is_dominated_by_the_one_it_names_and_the_front_stays():
    """The same policies (random), measured in full and in part."""
    spec = study(evaluator=SAMPLED, proposer=Part("random"), rungs=(Rung(0),), budget=Budget(150))
    full = replace(spec, evaluator=Part("synthetic", {"layers": 5, "inputs": 1000}))
    store, whole = fresh(spec), fresh(full)
    run(spec, store)
    run(full, whole)
    parts, trials = store.trials("s"), whole.trials("s")
    assert [t.policy for t in parts] == [t.policy for t in trials]
    stopped = [t for t in parts if t.hopeless]
    assert len(stopped) > 20
    for trial in stopped:
        winner = parts[int(trial.message.split()[1])]
        assert winner.state is TrialState.COMPLETE
        assert winner.number <= trial.number - spec.workers.window
        assert winner.measurement.metrics["size_bytes"] <= trial.measurement.metrics["size_bytes"]
        assert winner.measurement.metrics["top1"] > trials[trial.number].measurement.metrics["top1"]
    assert [t.number for t in front(parts, spec.objectives, ())] == [
        t.number for t in front(trials, spec.objectives, ())
    ]


def test_the_equal_of_a_hopeless_trial_is_answered_by_it():
    """Two policies in turn, the better one first; the objective is top1 alone, so the other one is dominated."""
    spec = study(evaluator=SAMPLED, rungs=(Rung(0),), budget=Budget(12), objectives=(Objective("top1"),))
    spec = replace(spec, workers=Workers(window=1))
    evaluator = prepare_synthetic(spec)
    space = resolve(spec.rules, spec.order, evaluator.table, OPERATORS)

    policies = [space.decode([u] * len(space)) for u in (0.0, 0.99)]
    policies.sort(key=lambda p: -evaluator.evaluate(p, 0, lambda s, v: True).metrics["top1"])

    class Two:
        def ask(self, numbers):
            return [Proposal(policies[n % 2]) for n in numbers]

        def tell(self, trials):
            pass

    store, pool = fresh(spec), Shuffled(evaluator, 1, 0)
    Search(spec, space, (Two(), NeverStopper()), pool, store).run()
    trials = store.trials("s")
    assert [t.state for t in trials] == [TrialState.COMPLETE, TrialState.STOPPED] * 6
    assert [t.twin for t in trials] == [None, None] + [0, 1] * 5
    assert pool.started == [0, 1]
    bad = trials[1::2]
    assert {(t.reason, t.message, t.measurement.samples) for t in bad} == {
        ("dominated", bad[0].message, bad[0].measurement.samples)
    }


def test_a_broken_constraint_is_final_on_the_last_rung_only():
    limit = (Constraint.parse("top1 >= 0.8"),)
    spec = study(evaluator=SAMPLED, constraints=limit, proposer=Part("random"), budget=Budget(80))
    store = fresh(spec)
    run(spec, store)
    reasons = {(t.rung, t.reason) for t in store.trials("s") if t.hopeless}
    assert (0, "infeasible") not in reasons
    assert any(t.rung == 1 for t in store.trials("s")), "trials that break it are still promoted to be repaired"
    single = replace(spec, rungs=(Rung(0),))
    store = fresh(single)
    run(single, store)
    stopped = [t for t in store.trials("s") if t.reason == "infeasible"]
    assert stopped
    assert all(t.message.startswith("breaks top1 >= 0.8; top1 0.") for t in stopped)
    evaluator = prepare_synthetic(replace(single, evaluator=Part("synthetic", {"layers": 5, "inputs": 1000})))
    assert all(evaluator.evaluate(t.policy, 0, lambda s, v: True).metrics["top1"] < 0.8 for t in stopped)


def words(*said):
    """What is asked at each turn of the loop; the last word stays."""
    left = list(said)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def test_a_pause_starts_nothing_lets_the_rest_finish_and_goes_on_as_if_it_had_not_been(monkeypatch):
    go, pause = Control.GO, Control.PAUSE
    spec = study(budget=Budget(40, seconds=1000.0))
    store, pool, heard = fresh(spec), Shuffled(None, 3, 0), []

    class Ear(Silent):
        def paused(self, now):
            heard.append((now, len(pool.started), len(pool.running)))

    monkeypatch.setattr("automc.core.search.PAUSE_SECONDS", 1e-4)
    asked = words(*[go] * 5, *[pause] * 9, go)
    assert run(spec, store, pool, asked=asked, listener=Ear()) is Ending.DONE
    started = heard[0][1]
    assert heard == [(True, started, 2), (False, started, 0)], "what ran has finished, and nothing was started"
    assert told(store) == uninterrupted(spec)


def test_a_stop_ends_a_pause():
    spec = study()
    store = fresh(spec)
    asked = words(*[Control.GO] * 4, Control.PAUSE, Control.PAUSE, Control.STOP)
    assert run(spec, store, asked=asked) is Ending.DRAINED
    assert not store.trials("s", [TrialState.RUNNING])


def test_a_cancel_leaves_what_ran_waiting_and_the_study_whole():
    spec = study()
    store, pool = fresh(spec), Shuffled(None, 3, 0)
    assert run(spec, store, pool, asked=words(*[Control.GO] * 6, Control.CANCEL)) is Ending.INTERRUPTED
    assert len(store.trials("s", [TrialState.WAITING])) == 2
    assert not store.trials("s", [TrialState.RUNNING])
    assert {a.message for a in store.attempts("s") if a.state is TrialState.WAITING} == {"its driver ended before it"}
    assert run(spec, store) is Ending.DONE
    assert told(store) == uninterrupted(spec)


@pytest.mark.parametrize(("slots", "seed"), [(1, 0), (2, 1), (4, 2)])
def test_the_front_after_every_finished_trial_is_that_of_all_trials_until_then(slots, seed):
    spec = study(constraints=(Constraint("macs_ratio", "<=", 0.7),))
    store = fresh(spec)
    run(spec, store, Shuffled(None, slots, seed=seed, lost=0.1))
    trials, order, changes = store.trials("s"), store.finishing("s"), store.front_changes("s")
    assert sorted(order) == list(range(40))
    for place in range(41):
        known = [trials[number] for number in sorted(order[:place])]
        expected = {trial.number for trial in front(known, spec.objectives, spec.constraints)}
        assert set(front_after(changes, place)) == expected
    assert any(not change.entered for change in changes)


def test_other_objectives_correct_the_front_that_was_kept():
    spec = study(budget=Budget(20))
    store = fresh(spec)
    run(spec, store)
    before = store.front_changes("s")
    other = replace(spec, objectives=(Objective("macs"),), constraints=(Constraint("top1", ">=", 0.6),), revision=1)
    store.revise(other)
    run(other, store)
    now = front(store.trials("s"), other.objectives, other.constraints)
    assert front_after(store.front_changes("s")) == [trial.number for trial in now]
    assert front_after(store.front_changes("s"), 19) == front_after(before, 19)


def test_late_answers_are_recorded_where_an_attempt_was_given_up():
    """``Shuffled`` answers every attempt with one of the attempt before it."""
    spec = study()
    store = fresh(spec)
    run(spec, store, Shuffled(None, 3, seed=5, lost=0.2))
    late = [attempt for attempt in store.attempts("s") if attempt.late]
    lost = {(a.number, a.attempt) for a in store.attempts("s") if a.state is TrialState.WAITING}
    trials = store.trials("s")
    assert any(attempt.attempt > 0 for attempt in late)
    assert {(number, attempt + 1) for number, attempt in lost} <= {(a.number, a.attempt) for a in late}
    assert all(attempt.attempt < trials[attempt.number].attempts for attempt in late)
    assert told(store) == uninterrupted(spec)


def test_a_driver_that_lost_its_lease_records_its_answer_and_ends(monkeypatch):
    spec = study()
    store, rival = fresh(spec), None
    now = [0.0]
    store._clock = lambda: now[0]
    store.take("s", Owner("elsewhere.example", 1))

    class Robbed(Shuffled):
        def gather(self, watch):
            nonlocal rival
            if len(self.started) == 6:
                now[0] += 1000.0
                rival = MemoryStore(store, lambda: now[0])
                rival.take("s", Owner("elsewhere.example", 2))
            return super().gather(watch)[1:]

    with pytest.raises(LeaseHeld, match="taken over by pid 2"):
        run(spec, store, Robbed(None, 2, 0))
    late = [attempt for attempt in rival.attempts("s") if attempt.late]
    assert [(attempt.state, attempt.fence) for attempt in late] == [(TrialState.COMPLETE, 1)]
    number = late[0].number
    assert rival.trials("s")[number].state is TrialState.RUNNING, "the answer changed nothing"
    assert run(spec, rival) is Ending.DONE
    assert not rival.trials("s", [TrialState.RUNNING])
    assert rival.trials("s")[number].attempts == 2
    assert told(rival) == uninterrupted(spec)


class Crowd(Shuffled):
    """All that runs answers at once; ``before`` is called ahead of each gathering with how many there were."""

    def __init__(self, slots: int, before=lambda turn: None):
        super().__init__(None, slots, seed=0)
        self.gatherings, self._before = 0, before

    def gather(self, watch):
        self._before(self.gatherings)
        self.gatherings += 1
        return [super(Crowd, self).gather(watch)[1] for _ in list(self.running)]


CROWDED = study(proposer=Part("random"), rungs=(Rung(0),), workers=Workers(window=6))


def test_what_a_gathering_brings_is_one_commit_and_what_begins_after_it_another(tmp_path):
    store = open_store(str(tmp_path / "x.db"))
    store.create(CROWDED, {})
    wrote, crowd = [], Crowd(6)

    def committed(connection):
        if not connection.get_execution_options()[READ_ONLY]:
            wrote.append(connection)

    sqlalchemy.event.listen(sqlalchemy.engine.Engine, "commit", committed)
    try:
        run(CROWDED, store, crowd)
    finally:
        sqlalchemy.event.remove(sqlalchemy.engine.Engine, "commit", committed)
    assert told(store) == uninterrupted(CROWDED)
    assert crowd.gatherings <= 10
    assert len(wrote) <= 2 * crowd.gatherings + 1
    store.close()


def test_what_a_listener_hears_is_there_for_everybody(tmp_path):
    store = open_store(str(tmp_path / "x.db"))
    store.create(CROWDED, {})
    other, seen = open_store(str(tmp_path / "x.db")), []

    class Ear(Silent):
        def added(self, trial):
            seen.append(other.trials("s", numbers=[trial.number])[0].number == trial.number)

        def finished(self, trial):
            seen.append(other.trials("s", numbers=[trial.number])[0] == trial)

    run(CROWDED, store, Crowd(6), listener=Ear())
    assert seen == [True] * 80
    store.close()
    other.close()


def test_of_a_gathering_without_the_lease_every_answer_is_recorded_and_nothing_else_changes(tmp_path):
    now, rivals = [1e6], []
    store, rival = (SqlStore(str(tmp_path / "x.db"), clock=lambda: now[0]) for _ in range(2))
    store.create(CROWDED, {})
    store.take("s", Owner("elsewhere.example", 1))

    def rob(turn):
        if turn == 2:
            now[0] += 1000.0
            rival.take("s", Owner("elsewhere.example", 2))
            rivals.extend(rival.trials("s"))

    with pytest.raises(LeaseHeld, match="taken over by pid 2"):
        run(CROWDED, store, Crowd(6, rob))
    late = [attempt for attempt in rival.attempts("s") if attempt.late]
    assert len(late) == len([trial for trial in rivals if trial.state is TrialState.RUNNING]) == 6
    assert rival.trials("s") == rivals
    assert run(CROWDED, rival) is Ending.DONE
    assert told(rival) == uninterrupted(CROWDED)
    store.close()
    rival.close()
