"""Which budget a proposal is made for: a sweep over what the objectives leave open."""

from __future__ import annotations

import math
from collections.abc import Sequence

from automc.core.budget import ANALYTIC, Budget
from automc.core.metrics import METRICS, Constraint, Objective, feasible
from automc.core.space import SearchSpace
from automc.core.trial import Trial, TrialState
from automc.errors import SpecError

PROXY = "bops_ratio"
"""Swept in the place of a cost that does not follow from the policy alone (latency, energy)."""

_MARGIN = 1.02
_BEYOND = 0.75
"""How far below the cheapest feasible policy aims go, as a share of its cost."""

_BASES = (2, 3, 5, 7, 11)


class Targets:
    """The bounds that proposals aim at.

    A study that minimises a cost wants a front, so the bound of this cost goes from what the space can reach to what
    the original has (or a constraint allows), evenly over the logarithm, in the order of a Halton sequence: any first
    few proposals are spread over the whole front. Constraints hold for every proposal. ``task`` is the objective that
    is to be best under them. Where a constraint shows only when measured, the sweep ends a little below the cheapest
    policy that was told and keeps it: farther down most proposals would be of no use.

    Attributes:
        remarks: what a user should know of them, a line each. cheapest: by swept cost, that of the cheapest policy told
            that keeps all constraints.

    Raises:
        SpecError: nothing limits the cost: neither an objective nor a constraint.
    """

    def __init__(
        self, space: SearchSpace, objectives: Sequence[Objective], constraints: Sequence[Constraint], budget: Budget
    ) -> None:
        costs = [o for o in objectives if o.metric in METRICS and is_cost(o)]
        self.swept = tuple(dict.fromkeys(o.metric if o.metric in ANALYTIC else PROXY for o in costs))
        unpredicted = [o.metric for o in costs if o.metric not in ANALYTIC]
        self.remarks = tuple(
            f"policies are proposed for levels of {PROXY}, because {metric} is known only when it is measured"
            for metric in unpredicted
        )
        self.fixed = budget.constraints
        self._constraints = tuple(constraints)
        self._doubtful = len(self.fixed) < len(self._constraints)
        self.cheapest: dict[str, float] = {}
        tasks = [o for o in objectives if not is_cost(o)]
        if not self.swept and not any(c.sign == "<=" for c in self.fixed):
            raise SpecError(
                f"nothing limits what a policy costs: add an objective or a constraint on {', '.join(ANALYTIC)}"
            )
        self.task = tasks[0] if tasks else None
        corners = [space.decode([0.5 if math.isnan(u) else u for u in c]) for c in (budget.cheapest, budget.dearest)]
        least, most = (budget.costs(policy) for policy in corners)
        bounds = {c.metric: c.bound for c in self.fixed if c.sign == "<="}
        self._range = {
            metric: (least[metric] * _MARGIN, max(min(most[metric], bounds.get(metric, math.inf)), least[metric]))
            for metric in self.swept
        }

    def tell(self, trials: Sequence[Trial]) -> None:
        """Trials of any rung; those of another study (numbers below 0) say nothing of what can be reached here."""
        for trial in trials if self._doubtful else ():
            if trial.number >= 0 and trial.state is TrialState.COMPLETE and trial.measurement is not None:
                metrics = trial.measurement.metrics
                if feasible(self._constraints, metrics):
                    for metric in self.swept:
                        if metric in metrics:
                            self.cheapest[metric] = min(metrics[metric], self.cheapest.get(metric, math.inf))

    def at(self, number: int) -> tuple[Constraint, ...]:
        """The bounds of the ``number``-th aim, from 0: those of the study, then one for every swept cost."""
        swept = []
        for base, metric in zip(_BASES, self.swept, strict=False):
            low, high = self._range[metric]
            low = min(max(low, _BEYOND * self.cheapest.get(metric, 0.0)), high)
            swept.append(self._bound(metric, low, high, radical_inverse(number + 1, base)))
        return (*self.fixed, *swept)

    def _bound(self, metric: str, low: float, high: float, share: float) -> Constraint:
        value = low * (high / low) ** share if 0 < low < high else max(low, high)
        return Constraint(metric, "<=", value)


def is_cost(objective: Objective) -> bool:
    """Whether it is about what the network costs, not about how well it does its task."""
    return not METRICS[objective.metric].sampled and objective.direction == "minimize"


def radical_inverse(number: int, base: int) -> float:
    """The digits of a number mirrored at the point, in [0, 1): Halton's sequence (1960)."""
    share, place = 0.0, 1.0
    while number:
        number, digit = divmod(number, base)
        place /= base
        share += digit * place
    return share
