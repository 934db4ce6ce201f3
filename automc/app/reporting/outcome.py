"""The sections of a report about the result: the picked model, the front, its layers, what mattered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from automc.app.comparing import RIGHT, difference_rows, differences
from automc.app.importance import SHARE, Importance, decision_row
from automc.app.report import policy_rows
from automc.app.reporting.document import Block, Folded, Grid, Section, Text
from automc.app.reporting.found import Found, measured, metrics_of
from automc.app.reporting.scatter import pareto_picture
from automc.app.reporting.strips import strips_picture
from automc.app.tables import cell
from automc.core.metrics import Measurement
from automc.core.trial import Trial

MOST_ROWS = 50
MOST_DECISIONS = 15


def picked(found: Found) -> Section:
    """The original model against the picked one, and the picked policy layer by layer."""
    title = "The original and the picked model"
    if found.picked is None:
        return Section(title, [Text("There is no front yet: no complete trial meets the constraints.")])
    trial = found.picked
    ours = measured(trial)
    # A metric that compares with the original has none there; what a network does not have is not compared.
    rows = differences(Measurement(found.baseline), ours)
    names = ("original", f"trial {trial.number}")
    shown = difference_rows(rows, names)
    for row, difference in zip(shown, rows, strict=True):
        error = ours.errors.get(difference.metric)
        row[names[1]] += f" ± {cell(difference.metric, error)}" if error is not None else ""
    said = f"Trial {trial.number} on rung {trial.rung}, picked from the front by the rule {found.pick}."
    blocks: list[Block] = [Text(said), Grid(shown, (*RIGHT, *names))]
    policy = [{key: cell(key, value) for key, value in row.items()} for row in policy_rows(trial, found.layers)]
    whole = [
        f"{site.operator} {site.setting} {cell(site.setting, value)}"
        for site, value in trial.policy.items()
        if site.layer == "*"
    ]
    if whole:
        blocks.append(Text("For the whole network: " + ", ".join(whole) + "."))
    return Section(title, [*blocks, Folded(f"the policy of trial {trial.number}, layer by layer", Grid(policy))])


def front(found: Found) -> Section:
    """The picture of the front, one for each objective after the first, and its table."""
    names = [o.metric for o in found.spec.objectives]
    others = names[1:] or [next(n for n in (*(c.metric for c in found.spec.constraints), "seconds") if n not in names)]
    blocks: list[Block] = [pareto_picture(found, x, names[0]) for x in others]
    if found.front:
        rows = [_member(trial, found) for trial in found.front[:MOST_ROWS]]
        numbers = [name for name in rows[0] if name != "fingerprint"]
        blocks.append(Grid(rows, numbers))
        if len(found.front) > MOST_ROWS:
            blocks.append(Text(f"The first {MOST_ROWS} of {len(found.front)} members."))
    return Section("The front", blocks)


def _member(trial: Trial, found: Found) -> dict[str, str]:
    metrics, errors = metrics_of(trial), measured(trial).errors
    names = [o.metric for o in found.spec.objectives]
    names += [c.metric for c in found.spec.constraints if c.metric not in names]
    row = {"trial": str(trial.number), "rung": str(trial.rung)}
    for name in dict.fromkeys(names):
        row[name] = cell(name, metrics.get(name)) + (f" ± {cell(name, errors[name])}" if name in errors else "")
    return {**row, "seconds": cell("seconds", metrics.get("seconds")), "fingerprint": trial.policy.fingerprint[:12]}


def layers(found: Found) -> Section | None:
    """The strips, and the mean over the front for who reads no pictures; None where there is nothing of the kind."""
    asked = {trial.number: policy_rows(trial, found.layers) for trial in found.front}
    strips = strips_picture(found, asked)
    if strips is None:
        return None
    ranges = Grid(_ranges(found, list(asked.values())))
    return Section("The front, layer by layer", [strips, Folded("the range over the front", ranges)])


def _ranges(found: Found, tables: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, str]]:
    """Of each layer and setting the least and the greatest value over the front, words as they are."""
    settings = dict.fromkeys(key for one in tables for key in one[0] if key not in ("layer", "kind", "group"))
    rows = []
    for place, layer in enumerate(found.layers.layers):
        row = {"layer": layer.name}
        for setting in settings:
            values = {one[place].get(setting) for one in tables} - {None}
            row[setting] = _range(setting, values)
        rows.append(row)
    return rows


def _range(setting: str, values: set[object]) -> str:
    if not values:
        return "-"
    try:
        found = sorted(values)  # type: ignore[type-var]
    except TypeError:
        found = sorted(values, key=str)
    if any(isinstance(value, (str, bool)) for value in found):
        return ", ".join(cell(setting, value) for value in found)
    ends = [cell(setting, value) for value in (found[0], found[-1])]
    return ends[0] if all(a == b for a, b in pairwise(ends)) else " to ".join(ends)


def mattered(found: Found) -> Section:
    """Which decisions mattered, by setting, by layer and one by one; or why nobody can tell."""
    title = "What mattered"
    if not isinstance(found.mattered, Importance):
        return Section(title, [Text(found.mattered.removeprefix("importance: "))])
    result = found.mattered
    note = result.note[0].upper() + result.note[1:]
    about = (
        "Share: how much worse the forest predicts when the decision is shuffled (permutation importance, Breiman "
        "2001), of all decisions together. Trend: rank correlation of the decision's value with the metric."
    )
    grids: list[Block] = []
    for name, shares in (("setting", result.by_setting), ("layer", result.by_layer)):
        rows = [{name: key, "share": f"{share:.1%}"} for key, share in list(shares.items())[:MOST_DECISIONS]]
        grids.append(Grid(rows, SHARE, bar="share"))
    decisions = Grid([decision_row(weight) for weight in result.decisions[:MOST_DECISIONS]], SHARE, bar="share")
    return Section(f"{title} for {result.metric}", [Text(f"{note}. {about}"), *grids, decisions])
