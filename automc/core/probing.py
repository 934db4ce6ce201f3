"""Measuring a sensitivity table: every decision alone, at a few of its values, the rest of the network untouched."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from automc.core.analytic import Analytic
from automc.core.policy import Policy, Site, Value
from automc.core.ports import Prober, Proposer
from automc.core.sensitivity import Probe, Sensitivity
from automc.core.space import Choice, Decision, SearchSpace
from automc.errors import CompressionError, NotFinite

LEVELS = 5
"""Values of a range that are probed, besides the neutral one; of a choice all are."""


def probed(
    space: SearchSpace,
    prober: Prober,
    measures: Sequence[str],
    known: Sensitivity | None = None,
    heard: Callable[[int, int], None] = lambda done, total: None,
) -> Sensitivity:
    """The table of a space.

    Args:
        measures: of sensitivity.MEASURES. known: what was measured of this network before and is not measured again.
        heard: called after every probe that was measured with how many are done, and how many there will be.
    """
    before, total, done = _damages(known), len(unknown_probes(space, measures, known)), 0
    probes = []
    for site, value, policy in probes_of(space):
        damage = dict(before.get((site, value), {})) if policy else dict.fromkeys(measures, 0.0)
        wanted = [measure for measure in measures if measure not in damage]
        try:
            damage |= prober.damage(policy, wanted) if wanted else {}
        except (CompressionError, NotFinite):
            damage |= dict.fromkeys(wanted, math.inf)
        if wanted:
            done += 1
            heard(done, total)
        probes.append(Probe(site, value, {measure: damage[measure] for measure in measures}))
    return Sensitivity(tuple(probes))


def unknown_probes(space: SearchSpace, measures: Sequence[str], known: Sensitivity | None = None) -> list[Policy]:
    """The policies that ``probed`` would hand to the prober."""
    before = _damages(known)
    return [
        policy
        for site, value, policy in probes_of(space)
        if policy and not set(measures) <= set(before.get((site, value), {}))
    ]


def measures_of(proposer: Proposer) -> tuple[str, ...]:
    """Of sensitivity.MEASURES, what a proposer wants to be in the layer table: its attribute ``measures``, if any."""
    inner = getattr(proposer, "inner", proposer)
    return tuple(getattr(inner, "measures", ()))


def probes_of(space: SearchSpace) -> Iterator[tuple[Site, Value, Policy]]:
    """What to probe: site, value, and the policy that has only this; the empty one for the neutral value.

    In the order of the layers, so that a prober can go on from what the network did up to the layer before.

    Decisions that only say how something is done (a criterion, a method) have no damage of their own: beside a probe
    they are as the operator has them by itself. So are those that need training.
    """
    for decision in sorted(space.decisions, key=_depth(space)):
        if not _measurable(decision):
            continue
        site, neutral = decision.site, decision.neutral
        assert neutral is not None
        beside = {s: v for s, v in space.fixed.items() if s[:2] == site[:2]}
        for value in sorted({*_levels(decision), neutral}, key=float):
            yield site, value, Policy({**beside, site: value} if value != neutral else {})


def _depth(space: SearchSpace) -> Callable[[Decision], int]:
    """The first layer that a decision changes."""
    index, touched = {layer.name: layer.index for layer in space.layers.layers}, Analytic(space.layers).touched
    return lambda decision: min((index[name] for name in touched(decision.site)), default=0)


def _damages(known: Sensitivity | None) -> Mapping[tuple[Site, Value], Mapping[str, float]]:
    found: dict[tuple[Site, Value], Mapping[str, float]] = {}
    for probe in known.probes if known else ():
        key = (probe.site, probe.value)
        found[key] = {**found.get(key, {}), **probe.damage}
    return found


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
