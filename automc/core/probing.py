"""Measuring a sensitivity table: every decision alone, at a few of its values, the rest of the network untouched."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from automc.core.policy import Policy, Site, Value
from automc.core.ports import Prober, Proposer
from automc.core.sensitivity import Probe, Sensitivity
from automc.core.space import Choice, Decision, SearchSpace
from automc.errors import CompressionError, NotFinite

LEVELS = 5
"""Values of a range that are probed, besides the neutral one; of a choice all are."""


def probed(space: SearchSpace, prober: Prober, measures: Sequence[str]) -> Sensitivity:
    """The table of a space.

    Args:
        measures: of sensitivity.MEASURES.
    """
    probes = []
    for site, value, policy in probes_of(space):
        try:
            damage = dict(prober.damage(policy, measures)) if policy else dict.fromkeys(measures, 0.0)
        except (CompressionError, NotFinite):
            damage = dict.fromkeys(measures, math.inf)
        probes.append(Probe(site, value, damage))
    return Sensitivity(tuple(probes))


def measures_of(proposer: Proposer) -> tuple[str, ...]:
    """Of sensitivity.MEASURES, what a proposer wants to be in the layer table: its attribute ``measures``, if any."""
    inner = getattr(proposer, "inner", proposer)
    return tuple(getattr(inner, "measures", ()))


def probes_of(space: SearchSpace) -> Iterator[tuple[Site, Value, Policy]]:
    """What to probe: site, value, and the policy that has only this; the empty one for the neutral value.

    Decisions that only say how something is done (a criterion, a method) have no damage of their own: beside a probe
    they are as the operator has them by itself. So are those that need training.
    """
    for decision in space.decisions:
        if not _measurable(decision):
            continue
        site, neutral = decision.site, decision.neutral
        assert neutral is not None
        beside = {s: v for s, v in space.fixed.items() if s[:2] == site[:2]}
        for value in sorted({*_levels(decision), neutral}, key=float):
            yield site, value, Policy({**beside, site: value} if value != neutral else {})


def _measurable(decision: Decision) -> bool:
    domain = decision.domain
    numbers = not isinstance(domain, Choice) or domain.ordered or set(domain.options) <= {False, True}
    return numbers and decision.neutral is not None and not decision.needs_training


def _levels(decision: Decision) -> list[Value]:
    """All values of a choice; of a range its ends and some between, evenly spread."""
    if isinstance(decision.domain, Choice):
        return list(decision.domain.options)
    values = decision.domain.values(LEVELS)
    if len(values) <= LEVELS:
        return values
    return [values[round(i * (len(values) - 1) / LEVELS)] for i in range(LEVELS + 1)]
