"""What a study keeps that was found before its first trial: sensitivities, and trials of other studies."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from automc.app import identity, warm
from automc.app.driving import talk
from automc.app.live import counting
from automc.app.study import built
from automc.core.policy import Policy
from automc.core.ports import Prober
from automc.core.probing import measures_of, probed, unknown_probes
from automc.core.rules import nearest
from automc.core.sensitivity import MEASURES, Sensitivity
from automc.core.space import SearchSpace
from automc.core.study import StudySpec
from automc.core.transfer import Setup
from automc.errors import CompressionError, NotFinite, SpecError


@dataclass(frozen=True)
class Probing:
    """What has to be measured before a proposer can begin.

    Attributes:
        measures: of sensitivity.MEASURES. probes: the policies to measure. known: what is measured already.
    """

    measures: tuple[str, ...]
    probes: tuple[Policy, ...]
    known: Sensitivity


def facts(
    spec: StudySpec,
    setup: Setup,
    evaluator: Any,
    origins: Sequence[warm.Origin],
    known: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The facts of a study, or of its next revision; sensitivities are measured now.

    Args:
        known: the facts so far; what the setup says of space and baseline takes their place.
    """
    space = sensed(spec, setup, evaluator, origins)
    entries = warm.entries(origins, spec, setup)
    for line in warm.lines(warm.summary({warm.KEY: entries})):
        talk(line)
    found = {identity.KEY: identity.digests(evaluator), **(known or {})}
    found |= {"baseline": setup.baseline, "space": space.to_data()}
    if known is None or space is not setup.space:
        found["layers"] = space.layers.to_data()
    return {**found, warm.KEY: [*found.get(warm.KEY, ()), *entries]}


def sensed(spec: StudySpec, setup: Setup, evaluator: Any, origins: Sequence[warm.Origin] = ()) -> SearchSpace:
    """The setup's space, in its layer table the sensitivities that the spec's proposer asks for.

    Where the evaluator cannot measure any, those of a similar network stand in for them, if an origin has such.
    """
    plan = planned(spec, setup, evaluator, origins)
    space = setup.space
    if not plan.probes and not set(plan.measures) - set(space.layers.sensitivity.measures):
        return space
    if isinstance(evaluator, Prober):
        if plan.probes:
            talk(f"measuring what single decisions damage: {len(plan.probes)} probes ({', '.join(plan.measures)})")
        with counting("probe", sys.stderr) as heard:
            found = probed(space, evaluator, plan.measures, plan.known, heard)
    else:
        found = warm.guessed_sensitivity(origins, setup)
        if not found:
            talk(f"evaluator {spec.evaluator.name} measures no sensitivities; {spec.proposer.name} does without them")
            return space
    return replace(space, layers=replace(space.layers, sensitivity=found))


def planned(spec: StudySpec, setup: Setup, evaluator: Any, origins: Sequence[warm.Origin] = ()) -> Probing:
    """What ``sensed`` would measure.

    Raises:
        SpecError: as ``built``.
    """
    have = setup.space.layers.sensitivity
    wanted = {*measures_of(built(spec, setup.space)[0]), *have.measures}
    measures = tuple(measure for measure in MEASURES if measure in wanted)
    known = Sensitivity((*warm.known_sensitivity(origins, setup).probes, *have.probes))
    probes = unknown_probes(setup.space, measures, known) if isinstance(evaluator, Prober) else []
    return Probing(measures, tuple(probes), known)


def measurable(spec: StudySpec, baseline: Mapping[str, float]) -> None:
    """Whether what the study asks for is measured. Raises SpecError."""
    wanted = {c.metric: f"constraints[{place}]: {c}" for place, c in enumerate(spec.constraints)}
    wanted |= {o.metric: f"objectives.{o.metric}" for o in spec.objectives}
    for metric, place in wanted.items():
        if metric not in baseline and metric != "seconds":
            known = ", ".join(baseline)
            raise SpecError(
                f"{place}: evaluator {spec.evaluator.name} measures no {metric} here{nearest(metric, baseline)} "
                f"(it measures: {known})"
            )


def seconds_per_probe(evaluator: Prober, plan: Probing) -> float:
    """Measured on two of the probes that are to come, of which the first also prepares the evaluator."""
    seconds = 0.0
    for policy in plan.probes[:2]:
        started = time.perf_counter()
        with suppress(CompressionError, NotFinite):
            evaluator.damage(policy, plan.measures)
        seconds = time.perf_counter() - started
    return seconds
