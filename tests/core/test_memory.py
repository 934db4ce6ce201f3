"""A proposer that remembers: restored or told anew, it asks the same; other studies' trials are told first."""

import hashlib
import json

import numpy as np
import pytest

from automc.core.budget import Budget as Bounds
from automc.core.memory import KEEP_EVERY, RememberingProposer
from automc.core.metrics import Constraint, Measurement, Objective
from automc.core.ports import Proposal, Stateful
from automc.core.rules import Rule, resolve
from automc.core.search import Ending, Search
from automc.core.space import Choice, Real
from automc.core.store import Control
from automc.core.study import Budget, ModelSpec, Part, StudySpec, Workers
from automc.core.trial import Trial, TrialState
from automc.errors import StoreError
from automc.evaluation.synthetic import prepare_synthetic
from automc.operators import OPERATORS, ORDER
from automc.proposers.feasible import FeasibleProposer
from automc.stoppers import NeverStopper
from automc.stores import open_store
from automc.workers.inline import InlineExecutor

RULES = (Rule("prune", {"prune_ratio": Real(0.0, 0.8, step=0.1)}), Rule("quantize", {"weight_bits": Choice((2, 4, 8))}))
SPEC = StudySpec(
    "s",
    ModelSpec(""),
    Part(""),
    RULES,
    ORDER,
    (Objective("top1"), Objective("size_bytes")),
    constraints=(Constraint.parse("size_ratio <= 0.2"),),
    evaluator=Part("synthetic", {"layers": 5}),
    budget=Budget(75),
    workers=Workers(window=4),
)


class Diary:
    """A Stateful proposer: what it asks depends on every trial it was told, in order, and so on nothing forgotten."""

    def __init__(self, space):
        self.space, self.lines, self.heard = space, [], []

    def ask(self, numbers):
        digest = hashlib.sha256(json.dumps(self.lines).encode()).digest()
        draws = (np.random.default_rng([*digest, n]).random(len(self.space)) for n in numbers)
        return [Proposal(self.space.decode(draw.tolist())) for draw in draws]

    def tell(self, trials):
        self.heard += [t.number for t in trials]
        self.lines += [[t.number, t.policy.fingerprint, t.measurement.metrics["top1"]] for t in trials]

    def state(self):
        return json.dumps(self.lines).encode()

    def restore(self, state):
        try:
            self.lines = json.loads(state)
        except ValueError as error:
            raise StoreError(f"no diary: {error}") from error


class Run:
    """A study and its parts; every ``go`` is another process's."""

    def __init__(self, warm=(), say=None):
        self.evaluator, self.store = prepare_synthetic(SPEC), open_store("memory:")
        self.space = resolve(RULES, ORDER, self.evaluator.table, OPERATORS)
        self.store.create(SPEC, {})
        self.warm, self.said = warm, []

    def go(self, calls=10_000):
        """Search until ``calls`` rounds are over; the proposer that did it."""
        self.diary, left = Diary(self.space), iter(range(calls))
        inner = FeasibleProposer.around(self.diary, self.space, Bounds(self.space, SPEC.constraints))
        self.lasting = RememberingProposer(inner, self.store, "s", self.warm, self.said.append)
        search = Search(SPEC, self.space, (self.lasting, NeverStopper()), InlineExecutor(self.evaluator), self.store)
        return search.run(lambda: Control.GO if next(left, None) is not None else Control.STOP)

    def policies(self):
        return [t.policy for t in self.store.trials("s")]


@pytest.fixture(scope="module")
def whole():
    run = Run()
    assert run.go() is Ending.DONE
    return run.policies()


@pytest.mark.parametrize("kept", [True, False])
def test_killed_at_any_moment_it_goes_on_as_if_it_had_lived(whole, kept):
    """Killed: nothing is kept but what was kept on the way. Every life recalls a multiple of KEEP_EVERY trials."""
    run, lives = Run(), 0
    while run.go(calls=17) is not Ending.DONE:
        lives += 1
        if kept:
            run.lasting.keep()
    assert lives > 3
    assert run.policies() == whole
    assert run.said == []
    assert 0 < len(run.diary.heard) < len(run.diary.lines), "the last life recalled what the others were told"
    assert [line[0] for line in run.diary.lines] == list(range(len(run.diary.lines)))
    if not kept:
        assert (len(run.diary.lines) - len(run.diary.heard)) % KEEP_EVERY == 0


def test_what_was_told_before_is_not_told_again(whole):
    run = Run()
    run.go(calls=40)
    told, state = run.store.memory("s")
    assert told >= KEEP_EVERY
    assert json.loads(state.partition(b"\n")[2]) == run.diary.lines[:told]
    run.go()
    assert run.diary.heard[0] == told
    assert run.policies() == whole


@pytest.mark.parametrize("bad", [b"", b"pickle", b'{"learned": null}\n[[', b'{"learned": "x"}\n[]'])
def test_a_memory_that_cannot_be_read_costs_a_line_and_nothing_else(whole, bad):
    run = Run()
    run.go(calls=40)
    run.store.keep_memory("s", run.store.memory("s")[0], bad)
    assert run.go() is Ending.DONE
    assert run.policies() == whole
    assert run.diary.heard[0] == 0
    (line,) = run.said
    assert line.startswith("study 's': the proposer is told everything anew, its memory was no help: ")
    assert "\n" not in line


def test_a_memory_of_more_than_is_to_be_told_is_left_alone(whole):
    run = Run()
    run.go(calls=40)
    run.store.keep_memory("s", 1000, run.store.memory("s")[1])
    run.go()
    assert run.policies() == whole
    assert run.diary.heard[0] == 0


def test_a_memory_of_another_revision_is_left_alone():
    from dataclasses import replace

    run = Run()
    run.go(calls=40)
    assert run.store.memory("s") is not None
    run.store.revise(replace(SPEC, revision=1))
    assert run.store.memory("s") is None


def test_a_call_that_was_cut_short_is_not_kept():
    run = Run()
    run.go(calls=30)
    before = run.store.memory("s")

    def tell(trials):
        run.diary.lines += [["half", "told", 0.0]]
        raise KeyboardInterrupt

    run.diary.tell = tell
    trials = run.store.trials("s")
    with pytest.raises(KeyboardInterrupt):
        run.lasting.tell(trials[-2:])
    run.lasting.keep()
    assert run.store.memory("s") == before


def test_a_store_that_cannot_keep_stops_no_search(whole):
    run = Run()

    def refuse(*_):
        raise StoreError("no room")

    run.store.keep_memory = refuse
    assert run.go() is Ending.DONE
    assert run.policies() == whole
    assert set(run.said) == {"study 's': what the proposer remembers was not kept: no room"}


def warm(run, count):
    draws = np.random.default_rng(0).random((count, len(run.space)))
    policies = [run.space.decode(draw.tolist()) for draw in draws]
    measured = [run.evaluator.evaluate(p, 0, lambda step, value: True) for p in policies]
    return [
        Trial(i - count, p, "", TrialState.COMPLETE, 0, m)
        for i, (p, m) in enumerate(zip(policies, measured, strict=True))
    ]


def test_warm_trials_come_first_once_and_are_there_again_at_every_resume(whole):
    given = warm(Run(), 7)
    run = Run(given)
    assert run.go() is Ending.DONE
    assert run.diary.heard == [*range(-7, 0), *range(len(run.diary.heard) - 7)]
    assert run.policies() != whole
    assert [t.number for t in run.store.trials("s")] == list(range(75))
    again = Run(given)
    while again.go(calls=13) is not Ending.DONE:
        pass
    assert again.policies() == run.policies()
    assert [line[0] for line in again.diary.lines[:8]] == [*range(-7, 0), 0]


def test_only_a_stateful_proposer_has_a_stateful_wrapper():
    run = Run()
    bounds = Bounds(run.space, SPEC.constraints)

    class Plain:
        ask = tell = None

    assert isinstance(FeasibleProposer.around(Diary(run.space), run.space, bounds), Stateful)
    assert not isinstance(FeasibleProposer.around(Plain(), run.space, bounds), Stateful)


def test_the_wrapper_remembers_what_the_budget_learned():
    """Without it, a restored search would fit its policies to other bytes than an uninterrupted one."""
    run = Run()
    trial = warm(run, 1)[0]
    bytes_ = Bounds(run.space, SPEC.constraints).costs(trial.policy)["size_bytes"] * 1.31
    told = Trial(0, trial.policy, "", TrialState.COMPLETE, 0, Measurement({"size_bytes": bytes_, "top1": 0.5}))
    bounds = [Bounds(run.space, SPEC.constraints) for _ in range(2)]
    first, second = (FeasibleProposer.around(Diary(run.space), run.space, b) for b in bounds)
    first.tell([told])
    second.restore(first.state())
    assert bounds[1].learned == bounds[0].learned == pytest.approx(1.31)
    assert second.ask(range(9)) == first.ask(range(9))


def test_a_budget_learns_nothing_from_another_study():
    run = Run()
    trial = warm(run, 1)[0]
    bounds = Bounds(run.space, SPEC.constraints)
    off = bounds.costs(trial.policy)["size_bytes"] * 1.5
    bounds.learn([Trial(-1, trial.policy, "", TrialState.COMPLETE, 0, Measurement({"size_bytes": off}))])
    assert bounds.learned is None
