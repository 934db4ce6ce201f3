"""Proposers that run out of their own policies ask others that were not told yet, where the space has some."""

import numpy as np
import pytest

from automc.core.budget import Budget
from automc.core.metrics import Constraint, Objective
from automc.core.rules import Rule, resolve
from automc.core.space import Choice, Real
from automc.core.study import Rung
from automc.core.trial import Trial, TrialState
from automc.evaluation.synthetic import SyntheticEvaluator, SyntheticSettings
from automc.operators import OPERATORS, ORDER
from automc.proposers.fresh import fresh
from automc.proposers.members import member

LAND = SyntheticEvaluator(SyntheticSettings(layers=3), (Rung(steps=5),))
LOSS = {"kd_alpha": Real(0.0, 1.0, step=0.1), "kd_temperature": Real(1.0, 8.0, step=1.0)}
BITS = {"weight_bits": Choice((2, 3, 4, 5, 6, 8)), "activation_bits": Choice((4, 8))}


@pytest.mark.parametrize(
    ("name", "rule", "bounds", "more"),
    [
        ("greedy", Rule("distill", LOSS), (), (Objective("size_bytes"),)),
        ("allocate", Rule("quantize", BITS), (Constraint.parse("bops_ratio <= 0.1"),), ()),
    ],
)
def test_no_policy_is_asked_twice_while_there_are_others(name, rule, bounds, more):
    space = resolve([rule], ORDER, LAND.table, OPERATORS)
    made = member(name, space, (Objective("top1"), *more), bounds, 0)
    budget, asked = Budget(space, bounds), []
    for number in range(60):
        (proposal,) = made.ask(range(number, number + 1))
        asked.append(proposal.policy)
        assert budget.holds(proposal.policy)
        measured = LAND.evaluate(proposal.policy, 0, lambda step, value: True)
        made.tell([Trial(number, proposal.policy, proposal.memo, TrialState.COMPLETE, 0, measured)])
    assert len(set(asked)) == 60 < space.size


def test_where_all_were_told_the_policy_comes_back():
    space = resolve([Rule("quantize", BITS)], ORDER, LAND.table, OPERATORS)
    policy, draw = space.decode([0.5] * len(space)), np.random.default_rng(0)
    assert fresh(space, Budget(space, ()), policy, lambda found: True, draw) == policy
    near = fresh(space, Budget(space, ()), policy, lambda found: found == policy, draw)
    assert sum(near[site] != policy[site] for site in policy) == 1
