"""A study in a few figures and in columns, quick also for a hundred thousand trials: what lists and charts need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from automc.app.listing import current_front
from automc.app.report import policy_rows
from automc.app.reporting.scatter import drawn
from automc.core.metrics import METRICS
from automc.core.pareto import covered
from automc.core.trial import EXCLUDED, Trial, TrialState
from automc.errors import SpecError
from automc.stores.columns import feasible

if TYPE_CHECKING:
    from automc.app.study import Study
    from automc.stores.columns import Numbers

_WHOLE = ("layer", "kind", "group")


def figures(study: Study, counts: Mapping[TrialState, int]) -> dict[str, Any]:
    """Counts by state, the budget, best values, the front's size and the share of the box that it covers.

    Args:
        counts: as ``StudySummary`` has them.
    """
    spec, members = study.spec, current_front(study)
    metrics = [t.measurement.metrics for t in members if t.measurement]
    return {
        "counts": {state.value: counts[state] for state in TrialState},
        "finished": sum(count for state, count in counts.items() if state.finished),
        "budget": spec.budget.trials,
        "best": {o.metric: min(metrics, key=o.loss)[o.metric] for o in spec.objectives if metrics},
        "front": len(members),
        "covered": covered(members, spec.objectives, spec.constraints, study.baseline),
    }


def columns(
    study: Study, read: Callable[[str, Sequence[str]], Numbers], axes: tuple[str, str], colour: str | None, most: int
) -> dict[str, Any]:
    """Every complete trial in the plane of two metrics, as columns; of very many those near the front and some others.

    Args:
        read: the columns of metrics of a study. axes: as ``charts.pick_axes`` gives them. colour: a third metric.
        most: trials off the front; all of the front is there.

    ``place``: how many trials had finished when each did, itself among them.

    Raises:
        SpecError: no such metric.
    """
    if colour is not None and colour not in METRICS:
        raise SpecError(f"colour {colour}: no such metric (metrics: {', '.join(METRICS)})")
    x, y = axes
    constraints = study.spec.constraints
    wanted = [x, y, *([colour] if colour else []), *(c.metric for c in constraints)]
    known = read(study.name, list(dict.fromkeys(wanted)))
    spots = np.stack([known.values[x], known.values[y]], axis=1)
    counts = np.isfinite(spots).all(axis=1) & ~np.isin(known.number, _excluded(study))
    members = np.isin(known.number, [trial.number for trial in current_front(study)])
    kept, total = drawn(spots, counts & members, counts & ~members, most)
    broken = ~feasible(known, constraints) & ~members
    kinds = np.where(members, "front", np.where(broken, "infeasible", "other"))
    return {
        "axes": {"x": x, "y": y, "colour": colour},
        "number": known.number[kept],
        "rung": known.rung[kept],
        "place": known.place[kept],
        "kind": kinds[kept],
        "x": known.values[x][kept],
        "y": known.values[y][kept],
        "colour": known.values[colour][kept] if colour else None,
        "baseline": {name: study.baseline.get(name) for name in (x, y, *([colour] if colour else []))},
        "constraints": [str(c) for c in constraints],
        "shown": int((~members[kept]).sum()),
        "total": total,
    }


def matrix(study: Study, members: Sequence[Trial]) -> dict[str, Any]:
    """What policies ask of each layer: by setting a row a trial and a column a layer, None where nothing is asked.

    ``whole`` has the settings of the whole network, by trial.
    """
    layers = study.layers
    params, macs = (max(sum(getattr(layer, what) for layer in layers.layers), 1) for what in ("params", "macs"))
    asked = [policy_rows(trial, layers) for trial in members]
    settings = dict.fromkeys(n for rows in asked for row in rows for n in row if n not in _WHOLE and n[:5] != "real ")
    return {
        "trials": [trial.number for trial in members],
        "layers": [
            {"name": one.name, "kind": one.kind, "params": one.params / params, "macs": one.macs / macs}
            for one in layers.layers
        ],
        "settings": {name: [[row.get(name) for row in rows] for rows in asked] for name in settings},
        "whole": [{f"{s.operator}.{s.setting}": v for s, v in t.policy.items() if s.layer == "*"} for t in members],
    }


def _excluded(study: Study) -> list[int]:
    """Trials that the revision in force cannot use; the first one can use all."""
    if not study.spec.revision:
        return []
    return [trial.number for trial in study.counted() if trial.reason == EXCLUDED]
