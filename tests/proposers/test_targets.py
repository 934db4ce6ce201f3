"""Aims: reachable, spread over what the objectives leave open, and within the constraints."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import qmc

from automc.core.budget import Budget
from automc.core.metrics import Constraint, Objective
from automc.core.policy import Policy
from automc.core.rules import Rule, resolve
from automc.core.space import Choice, Real, SearchSpace
from automc.core.trial import Measurement, Trial, TrialState
from automc.errors import SpecError
from automc.evaluation.synthetic import SyntheticEvaluator, SyntheticSettings
from automc.operators import OPERATORS, ORDER
from automc.proposers.targets import PROXY, Targets, radical_inverse

RULES = (
    Rule("prune", {"prune_ratio": Real(0.0, 0.7, step=0.1)}),
    Rule("quantize", {"weight_bits": Choice((2, 4, 8)), "activation_bits": Choice((4, 8))}),
)
TOP1 = Objective("top1")


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return resolve(RULES, ORDER, SyntheticEvaluator(SyntheticSettings(layers=6)).table, OPERATORS)


def aimed(space: SearchSpace, *objectives: Objective, constraints: tuple[str, ...] = ()) -> tuple[Targets, Budget]:
    parsed = [Constraint.parse(text) for text in constraints]
    budget = Budget(space, parsed)
    return Targets(space, objectives, parsed, budget), budget


@pytest.mark.parametrize("base", [2, 3, 5, 7, 11])
def test_the_radical_inverse_is_halton_s_sequence(base: int) -> None:
    place = [2, 3, 5, 7, 11].index(base)
    wanted = qmc.Halton(place + 1, scramble=False).random(200)[:, place]
    assert np.allclose([radical_inverse(i, base) for i in range(200)], wanted, atol=1e-12)


@pytest.mark.parametrize(
    ("metrics", "constraints"),
    [
        (("size_bytes",), ()),
        (("bops_ratio",), ("size_ratio <= 0.2",)),
        (("macs_ratio",), ("macs_ratio <= 0.4",)),
        (("params", "bops"), ()),
    ],
)
def test_every_aim_is_reachable(space: SearchSpace, metrics: tuple[str, ...], constraints: tuple[str, ...]) -> None:
    targets, budget = aimed(space, TOP1, *map(Objective, metrics), constraints=constraints)
    draw = np.random.default_rng(0)
    for number in range(40):
        bounds = targets.at(number)
        assert bounds[: len(constraints)] == budget.constraints
        fitted = space.decode(budget.fit(draw.random(len(space)).tolist(), bounds))
        single = [(b,) for b in bounds] if len(metrics) > 1 else [bounds]
        assert all(budget.holds(space.decode(budget.fit(space.encode(fitted), each)), each) for each in single)


def test_any_first_few_aims_are_spread_evenly_over_the_logarithm(space: SearchSpace) -> None:
    targets, budget = aimed(space, TOP1, Objective("bops_ratio"))
    corners = [space.decode([0.5 if math.isnan(u) else u for u in c]) for c in (budget.cheapest, budget.dearest)]
    low, high = (math.log(budget.costs(policy)["bops_ratio"]) for policy in corners)
    for count in (8, 16, 64):
        at = np.sort([(math.log(targets.at(i)[-1].bound) - low) / (high - low) for i in range(count)])
        assert np.diff([0.0, *at, 1.0]).max() < 2.1 / count
        assert at.min() >= 0
        assert at.max() <= 1


def test_a_constraint_ends_the_sweep_of_its_own_cost(space: SearchSpace) -> None:
    targets, _ = aimed(space, TOP1, Objective("macs_ratio"), constraints=("macs_ratio <= 0.5",))
    assert max(targets.at(i)[-1].bound for i in range(64)) <= 0.5
    assert {targets.at(i)[0] for i in range(4)} == {Constraint("macs_ratio", "<=", 0.5)}


def test_what_does_not_follow_from_the_policy_has_a_stand_in(space: SearchSpace) -> None:
    targets, _ = aimed(space, Objective("latency_ms"), TOP1, Objective("energy_model_mj"), Objective("params"))
    assert targets.swept == (PROXY, "params")
    assert targets.task == TOP1
    assert [c.metric for c in targets.at(0)] == [PROXY, "params"]


def test_one_objective_aims_at_the_constraints(space: SearchSpace) -> None:
    targets, budget = aimed(space, TOP1, constraints=("macs_ratio <= 0.5", "top1 >= 0.9"))
    assert targets.at(0) == targets.at(7) == budget.constraints == (Constraint("macs_ratio", "<=", 0.5),)


def test_without_any_limit_there_is_nothing_to_aim_at(space: SearchSpace) -> None:
    with pytest.raises(
        SpecError, match="nothing limits what a policy costs: add an objective or a constraint on params"
    ):
        aimed(space, TOP1, constraints=("macs_ratio >= 0.1",))


def measured(number: int, size: float, top1: float, state: TrialState = TrialState.COMPLETE) -> Trial:
    return Trial(number, Policy({}), state=state, measurement=Measurement({"size_bytes": size, "top1": top1}))


def test_aims_end_a_little_below_the_cheapest_that_keeps_every_constraint(space: SearchSpace) -> None:
    """What breaks one, was ended, or is of another study does not count; the spread is as even as before."""
    targets, _ = aimed(space, TOP1, Objective("size_bytes"), constraints=("top1 >= 0.9",))
    free, _ = aimed(space, TOP1, Objective("size_bytes"))
    before = [targets.at(i)[-1].bound for i in range(64)]
    assert before == [free.at(i)[-1].bound for i in range(64)]
    low, high = min(before), max(before)
    middle = math.sqrt(low * high)
    useless = [measured(0, low, 0.89), measured(1, low, 1.0, TrialState.STOPPED), measured(-1, low, 1.0)]
    targets.tell([*useless, measured(2, middle, 0.9), measured(3, 1.1 * middle, 1.0)])
    after = [targets.at(i)[-1].bound for i in range(64)]
    floor = 0.75 * middle
    assert floor <= min(after) < 1.1 * floor
    shares = [math.log(bound / floor) / math.log(after[-1] / floor) for bound in after]
    assert np.allclose(np.array(shares) / shares[0], [radical_inverse(i + 1, 2) / 0.5 for i in range(64)])
    targets.tell([measured(4, low / 10, 1.0)])
    assert [targets.at(i)[-1].bound for i in range(64)] == before
    free.tell([measured(5, middle, 1.0)])
    assert [free.at(i)[-1].bound for i in range(64)] == before, "where every policy can be kept feasible nothing ends"
