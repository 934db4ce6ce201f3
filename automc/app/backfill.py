"""Metrics that were not asked for when a trial was measured: the front is evaluated again, and only they are added."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from automc.app.live import counting
from automc.core.metrics import Measurement
from automc.core.pareto import front
from automc.core.revision import Reading, aims
from automc.core.space import SearchSpace
from automc.core.study import StudySpec
from automc.core.trial import EXCLUDED, Trial, TrialState
from automc.errors import EvaluationError
from automc.operators import OPERATORS

SAME = 1e-6
"""Relative: what the order of a sum may change in a metric."""


def backfilled(
    records: Sequence[Trial], specs: Sequence[StudySpec], space: SearchSpace, evaluator: Any
) -> dict[int, Measurement]:
    """What is new of the members of the front that lack a metric which the last revision needs, by number.

    Args:
        records: all trials, as they are stored. specs: every revision, the one to come last; space: of that.
        evaluator: of that.

    Raises:
        EvaluationError: a metric that is stored does not come out again as it was.
    """
    needed = aims(specs[-1])
    lacking = [
        t for t in _front(records, specs, space) if t.measurement and set(needed) - {*t.measurement.metrics, "seconds"}
    ]
    found: dict[int, Measurement] = {}
    with counting("backfill", sys.stderr) as heard:
        for done, trial in enumerate(lacking, 1):
            found[trial.number] = _added(trial, evaluator.evaluate(trial.policy, trial.rung, lambda step, value: True))
            heard(done, len(lacking))
    return found


def _front(records: Sequence[Trial], specs: Sequence[StudySpec], space: SearchSpace) -> list[Trial]:
    """The trials that nothing beats in the objectives of all revisions, as far as every trial has them."""
    spec = replace(specs[-1], objectives=(), constraints=())
    read = Reading((*specs[:-1], spec), lambda: space, records, OPERATORS)
    seen = [t for t in map(read, records) if t.state is TrialState.COMPLETE and t.measurement and t.reason != EXCLUDED]
    common = set.intersection(*(set(t.measurement.metrics) for t in seen if t.measurement)) if seen else set()
    wanted = {o.metric: o for each in specs for o in each.objectives}
    objectives = [o for o in wanted.values() if o.metric in common]
    constraints = [c for c in specs[-1].constraints if c.metric in common]
    return [records[member.number] for member in front(seen, objectives, constraints)]


def _added(trial: Trial, again: Measurement) -> Measurement:
    stored: Mapping[str, float] = trial.measurement.metrics if trial.measurement else {}
    for name, value in again.metrics.items():
        timed = name == "seconds" or name.startswith("latency_")
        if name in stored and not timed and not math.isclose(value, stored[name], rel_tol=SAME, abs_tol=1e-12):
            raise EvaluationError(
                f"backfill: trial {trial.number} had {name} {stored[name]:.10g} and now has {value:.10g}: model, data, "
                "machine or automc are not what they were, so nothing is stored; go on without --backfill"
            )
    new = {name: value for name, value in again.metrics.items() if name not in stored and name != "seconds"}
    return Measurement(new, errors={name: error for name, error in again.errors.items() if name in new})
