"""What a user should know of a study before it costs anything: nothing is wrong, but not all may be as it was meant."""

from __future__ import annotations

from automc.app.study import built
from automc.core.budget import ANALYTIC, Budget
from automc.core.space import SearchSpace
from automc.core.study import StudySpec
from automc.measure.runtimes import without_kernels
from automc.operators import OPERATORS


def remarks(spec: StudySpec, space: SearchSpace) -> list[str]:
    """One line each: what the proposer says of itself (its attribute ``remarks``, if any), of objectives that no
    decision can change, and of values that bring no speed in the runtime that the space names.

    Raises:
        SpecError: as ``built``.
    """
    proposer = built(spec, space)[0]
    return [*getattr(getattr(proposer, "inner", proposer), "remarks", ()), *_idle(spec, space), *_slow(spec, space)]


def _slow(spec: StudySpec, space: SearchSpace) -> list[str]:
    return list(without_kernels(spec.runtime, space, OPERATORS.values())) if spec.runtime else []


def _idle(spec: StudySpec, space: SearchSpace) -> list[str]:
    budget = Budget(space, ())
    ends = [budget.costs(space.decode([u if u == u else 0.5 for u in c])) for c in (budget.cheapest, budget.dearest)]
    metrics = [o.metric for o in spec.objectives if o.metric in ANALYTIC]
    return [
        f"objective {metric} cannot change in this space: every policy has {ends[0][metric]:,.6g}"
        for metric in metrics
        if ends[0][metric] == ends[1][metric]
    ]
