"""The known front against trying everything, and its costs against those that proposers predict."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from automc.core.analytic import Analytic
from automc.core.pareto import undominated
from automc.core.policy import Policy
from automc.core.rules import Rule, resolve
from automc.core.space import Choice, Real, SearchSpace
from automc.errors import EvaluationError
from automc.evaluation.known_front import known_front
from automc.evaluation.synthetic import SyntheticEvaluator, SyntheticSettings
from automc.operators import OPERATORS, ORDER

PRUNE = Rule("prune", {"prune_ratio": Real(0.0, 0.8, step=0.2)})
BITS = Rule("quantize", {"weight_bits": Choice((2, 4, 8)), "activation_bits": Choice((8,))})


def network(layers: int, *rules: Rule, seed: int = 0) -> tuple[SyntheticEvaluator, SearchSpace]:
    evaluator = SyntheticEvaluator(SyntheticSettings(layers=layers, seed=seed))
    return evaluator, resolve(rules, ORDER, evaluator.table, OPERATORS)


def measured(evaluator: SyntheticEvaluator, policy: Policy, metric: str) -> tuple[float, float]:
    metrics = evaluator.evaluate(policy, 0, lambda step, value: True).metrics
    return metrics["top1"], metrics[metric]


def tried(evaluator: SyntheticEvaluator, space: SearchSpace, metric: str) -> list[tuple[float, float]]:
    """The front by evaluating every policy, by ascending cost."""
    values = [decision.domain.values(1) for decision in space.decisions]
    sites = [decision.site for decision in space.decisions]
    policies = (space.policy(dict(zip(sites, chosen, strict=True))) for chosen in product(*values))
    found = np.array(sorted({measured(evaluator, policy, metric) for policy in policies}, key=lambda p: p[1]))
    return found[undominated(found * [-1, 1])].tolist()


@pytest.mark.parametrize("metric", ["macs", "params_ratio", "bops", "bops_ratio", "size_bytes", "size_ratio"])
def test_the_front_is_what_trying_everything_finds(metric: str) -> None:
    evaluator, space = network(3, PRUNE, BITS)
    assert space.size == 5**2 * 3**3
    found = known_front(evaluator, space, metric)
    assert found == pytest.approx(np.array(tried(evaluator, space, metric)), rel=1e-12)


def test_decisions_that_do_nothing_there_change_nothing() -> None:
    idle = Rule("distill", {"kd_alpha": Real(0.0, 1.0), "kd_temperature": Real(1.0, 8.0)})
    alone, more = network(3, PRUNE), network(3, PRUNE, idle)
    assert (known_front(*alone, "macs") == known_front(*more, "macs")).all()
    criteria = Rule("prune", {"prune_ratio": Real(0.0, 0.8, step=0.2), "criterion": Choice(("l1", "l2"))})
    assert (known_front(*alone, "macs") == known_front(*network(3, criteria), "macs")).all()


def test_a_continuous_range_has_the_front_of_its_channels() -> None:
    """A fine grid that has every n / 16 and n / 32 gives the same; so does no policy better than a random one."""
    whole = network(3, Rule("prune", {"prune_ratio": Real(0.0, 0.75)}))
    grid = network(3, Rule("prune", {"prune_ratio": Real(0.0, 0.75, step=1 / 32)}))
    found = known_front(*whole, "macs")
    assert found == pytest.approx(known_front(*grid, "macs"))
    draw = np.random.default_rng(0)
    for cube in draw.random((200, len(whole[1]))):
        top1, macs = measured(whole[0], whole[1].decode(cube.tolist()), "macs")
        assert found[found[:, 1] <= macs, 0].max() >= top1 - 1e-12


@pytest.mark.parametrize("precision", [0.02, 0.3])
def test_a_coarser_front_is_as_near_as_it_says(precision: float) -> None:
    evaluator, space = network(5, PRUNE, BITS)
    whole, fewer = known_front(evaluator, space, "bops"), known_front(evaluator, space, "bops", precision)
    assert len(fewer) < len(whole)
    for top1, bops in whole.tolist():
        assert fewer[fewer[:, 1] <= bops * math.exp(precision) + 1e-9, 0].max() >= top1 - 1e-12
    kept = {(round(a, 12), b) for a, b in whole.tolist()}
    assert any((round(a, 12), b) in kept for a, b in fewer.tolist())


def test_no_policy_is_beyond_the_front_of_a_whole_network() -> None:
    evaluator, space = network(8, PRUNE, BITS, seed=3)
    front = known_front(evaluator, space, "bops_ratio", 0.02)
    assert (np.diff(front[:, 1]) > 0).all()
    assert (np.diff(front[:, 0]) > 0).all()
    draw = np.random.default_rng(0)
    for cube in draw.random((300, len(space))):
        top1, cost = measured(evaluator, space.decode(cube.tolist()), "bops_ratio")
        assert front[front[:, 1] <= cost * math.exp(0.02), 0].max(initial=0.0) >= top1 - 1e-12


def test_what_cannot_be_known_is_refused_in_one_line() -> None:
    evaluator, space = network(3, PRUNE)
    with pytest.raises(EvaluationError, match="the metric must be one of params, macs, bops, size_bytes or a ratio"):
        known_front(evaluator, space, "latency_ms")
    evaluator, space = network(3, Rule("quantize", {"weight_bits": Real(2.0, 8.0)}))
    with pytest.raises(EvaluationError, match="must have a choice or steps"):
        known_front(evaluator, space, "bops")


def test_its_costs_are_those_that_proposers_predict() -> None:
    """So that a policy that is feasible by construction is feasible when measured."""
    evaluator, space = network(8, PRUNE, BITS)
    analytic = Analytic(evaluator.table)
    for cube in np.random.default_rng(0).random((50, len(space))):
        policy = space.decode(cube.tolist())
        metrics, predicted = evaluator.evaluate(policy, 0, lambda step, value: True).metrics, analytic.costs(policy)
        assert predicted == pytest.approx({name: metrics[name] for name in predicted}, rel=1e-12)
