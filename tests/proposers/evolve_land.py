"""Synthetic landscapes with a sensitivity table that is wrong by a factor a site."""

import math
from dataclasses import replace

import numpy as np

from automc.core.probing import probes_of
from automc.core.rules import Rule, resolve
from automc.core.sensitivity import Probe, Sensitivity
from automc.core.space import Choice, Real, SearchSpace
from automc.core.study import Rung
from automc.core.trial import Trial, TrialState
from automc.evaluation.synthetic import SyntheticEvaluator, SyntheticSettings
from automc.operators import OPERATORS, ORDER

RULES = (
    Rule("prune", {"prune_ratio": Real(0.0, 0.8, step=0.1)}),
    Rule("quantize", {"weight_bits": Choice((2, 3, 4, 6, 8)), "activation_bits": Choice((4, 8))}),
)


def land(
    layers: int, seed: int, table: bool, rules: tuple[Rule, ...] = RULES, rungs: tuple[Rung, ...] = (Rung(),)
) -> tuple[SyntheticEvaluator, SearchSpace]:
    """A landscape and its space; damages of the table are off by a factor of exp(0.5 z) a site, z standard normal."""
    evaluator = SyntheticEvaluator(SyntheticSettings(layers=layers, seed=seed), rungs)
    space = resolve(rules, ORDER, evaluator.table, OPERATORS)
    if not table:
        return evaluator, space
    draw = np.random.default_rng(seed)
    off = {decision.site: math.exp(0.5 * draw.standard_normal()) for decision in space.decisions}
    probes = [
        Probe(site, value, {"loss": evaluator.harm(policy) * off[site]}) for site, value, policy in probes_of(space)
    ]
    return evaluator, replace(space, layers=replace(space.layers, sensitivity=Sensitivity(tuple(probes))))


def mixed(space: SearchSpace, count: int, draw: np.random.Generator) -> np.ndarray:
    """Points of policies from light to heavy, shape (count, decisions)."""
    level = draw.random((count, 1))
    return np.clip(level + 0.35 * draw.standard_normal((count, len(space))), 0.0, 1.0)


def measured(evaluator: SyntheticEvaluator, number: int, policy, rung: int = 0) -> Trial:
    found = evaluator.evaluate(policy, rung, lambda step, value: True)
    return Trial(number, policy, "", TrialState.COMPLETE, rung, found, attempts=1)


def searched(proposer, evaluator: SyntheticEvaluator, count: int) -> list[Trial]:
    """The trials of a search, each told before the next is asked."""
    trials: list[Trial] = []
    for number in range(count):
        trials.append(measured(evaluator, number, proposer.ask(range(number, number + 1))[0].policy))
        proposer.tell(trials[-1:])
    return trials
