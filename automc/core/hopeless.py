"""When the first inputs already tell that a policy is hopeless: a sequential test over growing subsets.

A policy is hopeless when it cannot join the front: a complete, feasible rival is at least as good in everything, or a
task metric breaks a constraint. Costs (MACs, bytes) are known before the first input is run; task metrics are known
after the last. In between stands a sample: n of the N inputs of the search split, drawn without replacement, because
the split is walked in one random order.

The promise. Take any policy that is *not* hopeless. The probability, over the order, that a test ends its evaluation
is at most ``doubt``. A test looks a few times (``looks``) and asks several questions (rivals, constraints), and each
question at each look gets an equal part of ``doubt`` (Bonferroni). Of a metric that is a share of the inputs, such as
top1, the answer is exact: if K of N inputs are right, the number right among n has the hypergeometric distribution, so

    P(at most k right among n) = sum_{x <= k} C(K, x) C(N - K, n - x) / C(N, n)

and this falls with K: K = the rival's count is the worst case of "at least as good as the rival". Of other means, such
as the loss, the answer is a normal approximation with the finite-population correction sqrt((N - n) / (N - 1)).
A rival must win every task metric that is an objective; each is tested at the full level, because a stop needs all of
them (intersection-union test, Berger 1982), and is wrong only if one of them is.

All trials share one order, so their wrong stops are not independent; the expected number of front members that a
search loses is at most ``doubt`` times their number all the same. A proposer that learns from stopped trials has seen
a little of the order; that dependence is not accounted for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from automc.core.metrics import Constraint, EarlyEnd, Estimate, Objective
from automc.core.pareto import undominated
from automc.core.required import require

FRACTIONS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Shares of the inputs after which a test looks. Each look doubles the inputs: at most twice as many are run as
needed, while a look after every batch would split ``doubt`` into fifty parts instead of five."""

FEWEST = 64
"""No look before so many inputs: it could tell nothing."""


class Rival(NamedTuple):
    """A complete, feasible trial of the same rung, and its metrics on all inputs."""

    number: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Doubt:
    """Settings of the test.

    Attributes:
        doubt: the probability, in [0, 0.5], with which an evaluation may be ended early though its policy belongs to
            the front; 0 runs all inputs of every policy.
    """

    doubt: float = 0.001

    def __post_init__(self) -> None:
        require(self, {"doubt": (0 <= self.doubt <= 0.5, "a probability in [0, 0.5]")})


@dataclass(frozen=True)
class Sample:
    """A task metric after the first ``seen`` inputs of ``total``.

    Attributes:
        mean: whether it is the mean of one number an input. Others (an average precision, the worst class) may be
            biased on a part of the inputs: nothing is concluded from them.
        hits: of a share, the number of ones among the inputs seen; None for any other metric.
    """

    estimate: Estimate
    seen: int
    total: int
    mean: bool = True
    hits: int | None = None

    def chance_of_at_least(self, bound: float) -> float:
        """How probable a value so low is, at most, if the value on all inputs is at least ``bound``; 1 if unknown."""
        if self.hits is None:
            return self._tail(bound - self.estimate.value)
        return hypergeometric(self.hits, self.seen, math.ceil(bound * self.total - _ROUNDING), self.total)

    def chance_of_at_most(self, bound: float) -> float:
        """How probable a value so high is, at most, if the value on all inputs is at most ``bound``; 1 if unknown."""
        if self.hits is None:
            return self._tail(self.estimate.value - bound)
        misses = self.total - math.floor(bound * self.total + _ROUNDING)
        return hypergeometric(self.seen - self.hits, self.seen, misses, self.total)

    def _tail(self, gap: float) -> float:
        """P(standard normal > gap / error); a sample without spread tells nothing about its error."""
        n, total, error = self.seen, self.total, self.estimate.error
        if not self.mean or not 2 <= n < total or not (math.isfinite(error) and error > 0) or not math.isfinite(gap):
            return 1.0
        # Bessel's n / (n - 1) for the spread within the sample, and the finite-population correction.
        factor = math.sqrt(n / (n - 1) * (total - n) / (total - 1))
        return 0.5 * math.erfc(gap / (error * factor) / math.sqrt(2))


_ROUNDING = 1e-6
"""A share times its inputs is a whole number but for rounding."""


def hypergeometric(right: int, seen: int, all_right: int, total: int) -> float:
    """P(at most ``right`` right among ``seen``) when ``all_right`` of ``total`` inputs are right.

    Exact to about ten digits: logarithms of the terms, one from the other.

    Args:
        right: 0..seen. seen: 0..total. all_right: beyond 0..total the answer is that of the nearest end, where
            below 0 means "no input need be right" (probability 1), above total "impossible" (probability 0).
    """
    if all_right > total:
        return 0.0
    low = max(seen - (total - all_right), 0)  # so many must be right, however they are drawn
    if right >= min(seen, all_right):
        return 1.0
    if right < low:
        return 0.0
    wrong = total - all_right
    start = _log_choose(all_right, right) + _log_choose(wrong, seen - right) - _log_choose(total, seen)
    x = np.arange(right, low, -1, dtype=np.float64)
    steps = np.log(x * (wrong - seen + x)) - np.log((all_right - x + 1) * (seen - x + 1))  # log P(x - 1) / P(x)
    terms = start + np.concatenate([[0.0], np.cumsum(steps)])
    return min(float(np.exp(terms).sum()), 1.0)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def looks(total: int) -> list[int]:
    """After how many of ``total`` inputs a test looks, ascending; none where there are few."""
    found = {math.ceil(total * fraction) for fraction in FRACTIONS}
    return sorted(count for count in found if FEWEST <= count < total)


@dataclass(frozen=True)
class Contest:
    """What a policy must reach while its inputs are run.

    Attributes:
        constraints: those whose breach is final: none on a rung below the last, where a later repair may mend it.
        known: the policy's costs, known before any input is run.
        doubt: see Doubt. total: inputs of the split.
    """

    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    known: Mapping[str, float]
    rivals: tuple[Rival, ...]
    doubt: float
    total: int

    @property
    def looks(self) -> list[int]:
        """After how many inputs to ask for the verdict; none where it could tell nothing."""
        return looks(self.total) if self.doubt > 0 and (self.rivals or self.constraints) else []

    def verdict(self, samples: Mapping[str, Sample]) -> EarlyEnd | None:
        """Why the policy is hopeless after these inputs, or None. For use at ``looks`` only.

        Args:
            samples: every task metric, by name.
        """
        rivals = self._candidates(samples)
        limits = [c for c in self.constraints if c.metric in samples]
        if not rivals and not limits:
            return None
        level = self.doubt / (len(self.looks) * (len(rivals) + len(limits)))
        for limit in limits:
            sample = samples[limit.metric]
            chance = sample.chance_of_at_least if limit.sign == ">=" else sample.chance_of_at_most
            if chance(limit.bound) < level:
                return EarlyEnd("infeasible", self._told(f"breaks {limit}", {limit.metric: sample}))
        tested = {o.metric: samples[o.metric] for o in self.objectives if o.metric in samples}
        for rival in rivals:
            if all(_chance(o, tested[o.metric], rival) < level for o in self.objectives if o.metric in tested):
                theirs = "".join(f", {name} {rival.metrics[name]:.4g}" for name in tested)
                return EarlyEnd("dominated", self._told(f"trial {rival.number} costs no more{theirs}", tested))
        return None

    def _candidates(self, samples: Mapping[str, Sample]) -> list[Rival]:
        """The rivals that cost no more, less those that another one beats in every task metric.

        None where an objective will be known only after the last input (a latency): nobody can be dominated yet.
        """
        costs = [o for o in self.objectives if o.metric not in samples]
        open_ = [o for o in self.objectives if o.metric in samples]
        if any(math.isinf(o.loss(self.known)) for o in costs):
            return []
        found = [r for r in self.rivals if all(o.loss(r.metrics) <= o.loss(self.known) for o in costs)]
        points = {tuple(o.loss(r.metrics) for o in open_): r for r in reversed(found)}  # of equals the first
        if not open_ or not points:
            return found[:1]
        keep = undominated(np.array(list(points)))
        return [rival for rival, kept in zip(points.values(), keep, strict=True) if kept]

    def _told(self, why: str, samples: Mapping[str, Sample]) -> str:
        found = ", ".join(f"{name} {s.estimate.value:.4g} ± {s.estimate.error:.2g}" for name, s in samples.items())
        count = max((s.seen for s in samples.values()), default=0)
        return f"{why}; {found or 'as'} on the first {count} of {self.total} inputs; doubt {self.doubt:g}"


def _chance(objective: Objective, sample: Sample, rival: Rival) -> float:
    """How probable such a sample is, at most, if the policy is at least as good as the rival."""
    best = rival.metrics[objective.metric]
    return sample.chance_of_at_least(best) if objective.direction == "maximize" else sample.chance_of_at_most(best)
