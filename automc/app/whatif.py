"""What if one decision of a trial were another: which decisions there are, and what the change would come to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from automc.app import editing
from automc.app.picking import measured
from automc.core.budget import ANALYTIC
from automc.core.metrics import METRICS
from automc.errors import SpecError
from automc.operators import OPERATORS

if TYPE_CHECKING:
    from automc.app.study import Study

LEVELS = 11
"""So many values of a continuous decision are offered."""


def sites(study: Study) -> list[dict[str, Any]]:
    """The decisions about layers: where, which layers that is about, and the values there are."""
    space, table = editing.space_of(study), study.layers
    inside = {
        "group": {group.name: list(group.producers) for group in table.groups},
        "block": {block.name: list(block.layers) for block in table.blocks},
    }
    return [
        {
            **site._asdict(),
            "layers": inside.get(OPERATORS[site.operator].scope, {}).get(site.layer, [site.layer]),
            "options": decision.domain.values(LEVELS),
        }
        for decision in space.decisions
        if (site := decision.site).layer != "*"
    ]


def predicted(study: Study, number: int, edits: Sequence[str]) -> dict[str, Any]:
    """What a trial's metrics would be with these edits (see ``editing.edited``): what was measured of it, moved by the
    difference that is predicted between the two policies.

    Returns: by metric ``now``, ``predicted``, ``error`` (of what is read off trials) and ``how``; ``known`` is the
        trial that has this policy already, or None; ``note``: how far to trust it.

    Raises:
        UnknownTrial. SpecError: the trial was not measured, or the edits break a rule.
    """
    from automc.app.predicting import Prediction

    trial = study.trial(number)
    now = measured(trial)
    if not now:
        raise SpecError(f"trial {study.name}/{number} is {trial.state.value}: nothing was measured that could change")
    policy = editing.edited(study, trial.policy, edits)
    prediction = Prediction(editing.space_of(study), study.counted(), trial.rung)
    (before, _), (after, errors) = prediction.metrics(trial.policy), prediction.metrics(policy)
    rows = {
        name: {
            "now": now[name],
            "predicted": _within(name, now[name] + after[name] - before[name]),
            "error": errors.get(name),
            "how": "computed" if name in ANALYTIC else "read off trials",
        }
        for name in now
        if name in before and name in after
    }
    same = study.trials(f"fingerprint == '{policy.fingerprint}' and rung == {trial.rung}", limit=1)
    known = int(same["number"].iloc[0]) if len(same) else None
    note = "" if known is None else f"Trial {known} has this policy already. "
    if prediction.rung not in (None, trial.rung):
        note += f"Too few trials of rung {trial.rung} were measured: those of rung {prediction.rung} teach here. "
    if prediction.beyond(policy):
        note += "More damage is predicted than any trial had: what is read off trials is a guess here."
    return {"metrics": rows, "known": known, "fingerprint": policy.fingerprint, "note": note.strip()}


def _within(metric: str, value: float) -> float:
    """No share of inputs above 1, no cost below 0."""
    found = METRICS[metric]
    least = value if found.signed else max(value, 0.0)
    return min(least, 1.0) if found.sampled and found.unit == "ratio" else least
