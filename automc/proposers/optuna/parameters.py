"""Decisions as Optuna's distributions."""

from __future__ import annotations

from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from automc.core.policy import Policy, Value
from automc.core.space import Choice, Decision


def distribution(decision: Decision) -> BaseDistribution:
    """Integers for what is ordered and finite (as two things always are), floats for what is continuous, categories
    for the rest."""
    domain = decision.domain
    if isinstance(domain, Choice):
        count = len(domain.options)
        return (
            IntDistribution(0, count - 1) if domain.ordered or count == 2 else CategoricalDistribution(domain.options)
        )
    if domain.step is not None:
        return IntDistribution(0, int(domain.size) - 1)
    return FloatDistribution(domain.low, domain.high, log=domain.log)


def value(decision: Decision, asked: Any) -> Value:
    """What Optuna's value of a decision stands for."""
    if isinstance(distribution(decision), IntDistribution):
        return decision.domain.decode((asked + 0.5) / decision.domain.size)
    found: Value = asked
    return found


def parameter(decision: Decision, policy: Policy) -> Any:
    """A policy's value of a decision, as Optuna writes it."""
    chosen = policy[decision.site]
    if isinstance(distribution(decision), IntDistribution):
        return int(decision.domain.encode(chosen) * decision.domain.size)
    return decision.domain.normal(chosen) if isinstance(decision.domain, Choice) else chosen
