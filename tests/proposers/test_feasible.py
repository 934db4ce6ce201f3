"""The wrapper around every proposer: what it asks keeps the budget, and what kept it already is not touched."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from automc.core.budget import Budget
from automc.core.metrics import Constraint, Measurement
from automc.core.ports import Proposal, Stateful
from automc.core.rules import Rule, resolve
from automc.core.space import Choice, Real, SearchSpace
from automc.core.trial import Trial, TrialState
from automc.errors import StoreError
from automc.evaluation.synthetic import SyntheticEvaluator, SyntheticSettings
from automc.operators import OPERATORS, ORDER
from automc.proposers.feasible import FeasibleProposer

EVALUATOR = SyntheticEvaluator(SyntheticSettings(layers=5))
RULES = (
    Rule("prune", {"prune_ratio": Real(0.0, 0.7, step=0.1)}),
    Rule("quantize", {"weight_bits": Choice((2, 4, 8)), "activation_bits": Choice((4, 8))}),
)
SPACE: SearchSpace = resolve(RULES, ORDER, EVALUATOR.table, OPERATORS)
BOUNDS = (Constraint("bops_ratio", "<=", 0.02),)


class Points:
    """Asks for a random point a number, and hears."""

    def __init__(self) -> None:
        self.told: list[Trial] = []

    def ask(self, numbers: range) -> list[Proposal]:
        return [Proposal(SPACE.decode(np.random.default_rng(n).random(len(SPACE)).tolist()), f"{n}") for n in numbers]

    def tell(self, trials: Sequence[Trial]) -> None:
        self.told += trials


class Remembering(Points):
    def state(self) -> bytes:
        return b"\n\x00what was told\n"

    def restore(self, state: bytes) -> None:
        if state != self.state():
            raise StoreError("not mine")


def measured(number: int, proposal: Proposal, size: float) -> Trial:
    found = Measurement({"size_bytes": size})
    return Trial(number, proposal.policy, proposal.memo, TrialState.COMPLETE, 0, found, attempts=1)


def test_all_that_is_asked_keeps_the_budget_and_the_rest_is_as_it_was() -> None:
    inner, budget = Points(), Budget(SPACE, BOUNDS)
    wrapper = FeasibleProposer.around(inner, SPACE, budget)
    before, after = inner.ask(range(60)), wrapper.ask(range(60))
    kept = [budget.holds(proposal.policy) for proposal in before]
    assert 0 < sum(kept) < 60
    for same, old, new in zip(kept, before, after, strict=True):
        assert SPACE.policy(new.policy) == new.policy
        assert EVALUATOR.evaluate(new.policy, 0, lambda step, value: True).metrics["bops_ratio"] <= BOUNDS[0].bound
        assert (new == old) == same
        assert new.memo == old.memo


def test_what_is_asked_depends_on_the_number_alone() -> None:
    wrapper = FeasibleProposer.around(Points(), SPACE, Budget(SPACE, BOUNDS))
    assert [wrapper.ask(range(i, i + 1))[0] for i in (5, 3, 4)] == [wrapper.ask(range(3, 6))[i] for i in (2, 0, 1)]


def test_its_proposer_hears_everything_and_the_budget_learns_the_bytes() -> None:
    inner, budget = Points(), Budget(SPACE, (Constraint("size_ratio", "<=", 0.1),))
    wrapper = FeasibleProposer.around(inner, SPACE, budget)
    proposal = wrapper.ask(range(1))[0]
    trials = [
        measured(0, proposal, 1.2 * budget.costs(proposal.policy)["size_bytes"]),
        Trial(1, proposal.policy, "", TrialState.FAILED, 0, reason="error"),
    ]
    assert budget.holds(proposal.policy)
    wrapper.tell(trials)
    assert inner.told == trials
    assert budget.learned == pytest.approx(1.2)
    assert all(budget.costs(p.policy)["size_ratio"] * 1.2 <= 0.1 for p in wrapper.ask(range(20)))


def test_it_is_stateful_where_its_proposer_is_and_keeps_what_the_budget_learned() -> None:
    assert not isinstance(FeasibleProposer.around(Points(), SPACE, Budget(SPACE, BOUNDS)), Stateful)
    budgets = [Budget(SPACE, BOUNDS) for _ in range(2)]
    first, second = (FeasibleProposer.around(Remembering(), SPACE, budget) for budget in budgets)
    assert isinstance(first, Stateful)
    assert isinstance(second, Stateful)
    proposal = first.ask(range(1))[0]
    first.tell([measured(0, proposal, 1.1 * budgets[0].costs(proposal.policy)["size_bytes"])])
    second.restore(first.state())
    assert budgets[1].learned == budgets[0].learned == pytest.approx(1.1)
    for wrong in (b"", b"{}\n", b"null\nabc", b'{"learned": 3}\nabc'):
        with pytest.raises(StoreError, match=r"not mine|does not begin"):
            second.restore(wrong)
        assert budgets[1].learned == pytest.approx(1.1)
