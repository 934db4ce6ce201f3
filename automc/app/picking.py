"""Which member of a front is meant."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from automc.core.metrics import Objective, losses
from automc.core.pareto import knee
from automc.core.rules import nearest
from automc.core.trial import Trial
from automc.errors import SpecError, UnknownTrial
from automc.stores.paging import Listing

if TYPE_CHECKING:
    from automc.app.study import Study


def picked(study: Study, pick: str, members: Sequence[Trial], best: Objective | None = None) -> Trial:
    """One member of the front, see ``Study.picked``."""
    if not members:
        raise UnknownTrial(f"study {study.name!r} has no front yet: no complete trial meets its constraints")
    spec = study.spec
    if best is not None:
        return _extreme(study, _kept(study, pick, members) if pick else members, best, str(best.metric))
    if pick == "knee":
        return members[knee(np.array([losses(spec.objectives, measured(t)) for t in members]))]
    side, colon, metric = pick.partition(":")
    if colon and side in ("max", "min"):
        return _extreme(study, members, objective(side, metric), pick)
    if not any(sign in pick for sign in "<>=! "):
        rules = "knee, max:METRIC, min:METRIC or a filter such as 'size_ratio <= 0.1'"
        raise SpecError(f"pick {pick!r}: no such rule{nearest(pick, ['knee'])} (allowed: {rules})")
    named = {_quantity(word) for word in re.findall(r"\w+", pick)}
    by = next((o for o in spec.objectives if _quantity(o.metric) not in named), spec.objectives[0])
    return min(_kept(study, pick, members), key=lambda t: by.loss(measured(t)))


def objective(side: str, metric: str) -> Objective:
    """``min`` or ``max`` of a metric. Raises SpecError."""
    return Objective(metric, "maximize" if side == "max" else "minimize")


def measured(trial: Trial) -> Mapping[str, float]:
    """A trial's metrics, seconds included."""
    return {"seconds": trial.measurement.seconds, **trial.measurement.metrics} if trial.measurement else {}


def _extreme(study: Study, members: Sequence[Trial], best: Objective, said: str) -> Trial:
    known = [t for t in members if best.metric in measured(t)]
    if not known:
        listed = ", ".join(measured(members[0]))
        raise SpecError(f"pick {said!r}: this study did not measure {best.metric} (it has: {listed})")
    return min(known, key=lambda t: best.loss(measured(t)))


def _kept(study: Study, where: str, members: Sequence[Trial]) -> list[Trial]:
    """The members that a filter holds for."""
    fitting = {row["number"] for row in study.store.page(study.name, Listing(where, columns=("number",))).rows}
    chosen = [t for t in members if t.number in fitting]
    if not chosen:
        raise UnknownTrial(f"study {study.name!r}: no member of the front has {where}")
    return chosen


def _quantity(metric: str) -> str:
    """What a metric measures, whatever its unit: size_bytes and size_ratio are both about size."""
    return re.sub("_(ratio|bytes|ms|mj)$", "", metric)
