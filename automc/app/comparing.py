"""Two trials beside each other: how their metrics differ, and what their policies ask of each layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from automc.app.report import policy_rows
from automc.app.tables import cell, table
from automc.core.metrics import Measurement
from automc.core.order import SITE as ORDER_SITE
from automc.core.trial import Trial

if TYPE_CHECKING:
    from automc.app.study import Study

WHOLE = "(whole network)"


@dataclass(frozen=True)
class Difference:
    """A metric of two measurements, in its own unit.

    Attributes:
        difference: second minus first. relative: that over the first; None where the first is 0.
        error: standard error of the difference, ``sqrt(e1^2 + e2^2)``; None where one of them has none. Both are
            mostly measured on the same inputs, which makes the true one smaller.
    """

    metric: str
    first: float | None
    second: float | None
    difference: float | None = None
    relative: float | None = None
    error: float | None = None


@dataclass(frozen=True)
class Contrast:
    """What one setting of one layer is in two policies; None where a policy does not have it."""

    layer: str
    setting: str
    first: Any
    second: Any

    @property
    def differs(self) -> bool:
        return bool(self.first != self.second)


@dataclass(frozen=True)
class Comparison:
    """Two trials compared. ``names`` are as the user wrote them; ``notes`` say what makes them hard to compare."""

    names: tuple[str, str]
    metrics: tuple[Difference, ...]
    policy: tuple[Contrast, ...]
    notes: tuple[str, ...]


def compare(first: tuple[Study, Trial], second: tuple[Study, Trial]) -> Comparison:
    """Two trials of one study or of two."""
    studies, trials = (first[0], second[0]), (first[1], second[1])
    names = tuple(f"{study.name}/{trial.number}" for study, trial in (first, second))
    asked = [_asked(trial, study) for study, trial in (first, second)]
    keys = dict.fromkeys([*asked[0], *asked[1]])
    order = {layer: place for place, layer in enumerate(dict.fromkeys(layer for layer, _ in keys))}
    policy = [Contrast(*key, asked[0].get(key), asked[1].get(key)) for key in keys]
    policy.sort(key=lambda contrast: order[contrast.layer])
    metrics = differences(*(trial.measurement or Measurement({}) for trial in trials))
    return Comparison((names[0], names[1]), tuple(metrics), tuple(policy), tuple(_notes(studies, trials)))


def differences(first: Measurement, second: Measurement) -> list[Difference]:
    """One row a metric that either has."""
    return [_difference(name, first, second) for name in dict.fromkeys([*first.metrics, *second.metrics])]


def _difference(name: str, first: Measurement, second: Measurement) -> Difference:
    a, b = first.metrics.get(name), second.metrics.get(name)
    if a is None or b is None:
        return Difference(name, a, b)
    errors = [found.errors.get(name) for found in (first, second)]
    error = None if None in errors else math.hypot(*(e for e in errors if e is not None))
    return Difference(name, a, b, b - a, b / a - 1 if a else None, error)


def _asked(trial: Trial, study: Study) -> dict[tuple[str, str], Any]:
    """What the policy asks, by (layer, setting); the settings of the whole network first."""
    found: dict[tuple[str, str], Any] = {
        (WHOLE, "order" if site == ORDER_SITE else f"{site.operator} {site.setting}"): value
        for site, value in trial.policy.items()
        if site.layer == "*"
    }
    for row in policy_rows(trial, study.layers):
        settings = {name: value for name, value in row.items() if name not in ("layer", "kind", "group")}
        found |= {(row["layer"], name): value for name, value in settings.items() if value is not None}
    return found


def _notes(studies: Sequence[Study], trials: Sequence[Trial]) -> list[str]:
    """What should be the same for a fair comparison, and is not."""
    specs = [study.spec for study in studies]
    notes = [
        f"{what} differ: {a} and {b}"
        for what, a, b in (
            ("models", specs[0].model.name, specs[1].model.name),
            ("data", specs[0].data.name, specs[1].data.name),
            ("tasks", specs[0].task.name, specs[1].task.name),
            ("evaluators", specs[0].evaluator.name, specs[1].evaluator.name),
            ("rungs", trials[0].rung, trials[1].rung),
        )
        if a != b
    ]
    unmeasured = [f"{s.name}/{t.number} is {t.state.value}" for s, t in zip(studies, trials, strict=True)]
    return notes + [said for said, t in zip(unmeasured, trials, strict=True) if t.measurement is None]


def comparison_data(found: Comparison, everything: bool) -> dict[str, Any]:
    """As ``--json`` has it."""
    return {
        "first": found.names[0],
        "second": found.names[1],
        "notes": list(found.notes),
        "metrics": [asdict(row) for row in found.metrics],
        "policy": [asdict(row) for row in found.policy if everything or row.differs],
    }


def comparison_text(found: Comparison, everything: bool) -> str:
    """Notes, metrics, and one row a layer with ``first -> second`` where a setting differs."""
    parts = ["\n".join(f"note: {note}" for note in found.notes)] if found.notes else []
    if found.metrics:
        parts.append(table(difference_rows(found.metrics, found.names), (), RIGHT + found.names))
    rows = policy_contrast(found.policy, everything)
    parts.append(table(rows) if rows else "the policies are the same")
    return "\n\n".join(parts)


RIGHT = ("difference", "error", "relative")


def difference_rows(metrics: Sequence[Difference], names: tuple[str, str]) -> list[dict[str, str]]:
    """The metrics as rows of a table, each in its own unit; no column of errors where there are none."""
    rows = [
        {
            "metric": row.metric,
            names[0]: cell(row.metric, row.first),
            # A trial beside itself has one name.
            names[1] if names[1] != names[0] else f"{names[1]} ": cell(row.metric, row.second),
            "difference": _signed(row.metric, row.difference),
            "error": "-" if row.error is None else f"± {cell(row.metric, row.error)}",
            "relative": "-" if row.relative is None else f"{row.relative:+.1%}",
        }
        for row in metrics
    ]
    if any(row.error is not None for row in metrics):
        return rows
    return [{name: value for name, value in row.items() if name != "error"} for row in rows]


def policy_contrast(policy: Sequence[Contrast], everything: bool) -> list[dict[str, str]]:
    """One row a layer, one column a setting; of the same only what ``everything`` asks for."""
    shown = [row for row in policy if everything or row.differs]
    settings = dict.fromkeys(row.setting for row in shown)
    layers: dict[str, dict[str, str]] = {}
    for row in shown:
        layers.setdefault(row.layer, {"layer": row.layer, **dict.fromkeys(settings, "")})[row.setting] = _pair(row)
    return list(layers.values())


def _pair(row: Contrast) -> str:
    first, second = cell(row.setting, row.first), cell(row.setting, row.second)
    return f"{first} -> {second}" if row.differs else first


def _signed(metric: str, value: float | None) -> str:
    text = cell(metric, value)
    return f"+{text}" if value is not None and value > 0 else text
