"""Costs as vectors: the four ratios that follow from a policy, and the bounds on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from automc.core.analytic import RATIOS
from automc.core.budget import Budget
from automc.core.metrics import Constraint
from automc.proposers.ddpg.steps import Array

CURRENCIES = tuple(RATIOS.values())
"""In the order of the vectors."""


def vector(costs: Mapping[str, float]) -> Array:
    """Shape (4,), NaN where a cost is absent."""
    return np.array([costs.get(name, math.nan) for name in CURRENCIES])


def bounds(constraints: Sequence[Constraint], original: Mapping[str, float], sign: str = "<=") -> Array:
    """The tightest bound on each ratio, shape (4,); infinite (or minus infinite, of lower bounds) where there is none.

    Args:
        constraints: those of other metrics are passed over. original: costs of the untouched network.
    """
    found = np.full(len(CURRENCIES), math.inf)
    for constraint in constraints:
        if constraint.sign == sign and (constraint.metric in RATIOS or constraint.metric in CURRENCIES):
            ratio = RATIOS.get(constraint.metric)
            value = constraint.bound / max(original[constraint.metric], 1.0) if ratio else constraint.bound
            place = CURRENCIES.index(ratio or constraint.metric)
            found[place] = min(found[place], value if sign == "<=" else -value)
    return found if sign == "<=" else -found


def margins(budget: Budget) -> Array:
    """By how much predicted costs must be multiplied to be on the safe side, shape (4,): see Budget."""
    return np.array([budget.margin(name) for name in CURRENCIES])
