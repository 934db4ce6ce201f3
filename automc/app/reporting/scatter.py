"""Complete trials in the plane of two metrics; of very many, those that were once on the front and some others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from automc.app.reporting import svg
from automc.app.reporting.document import Picture
from automc.app.reporting.found import Found, complete, measured, metrics_of
from automc.app.tables import cell
from automc.core.metrics import METRICS, feasible
from automc.core.trial import Trial

MOST = 2000
"""So many trials off the front are drawn from columns: half the nearest to it, half an even choice of the others."""


@dataclass(frozen=True)
class Dot:
    """A trial, or the original model, in the plane. ``error`` is the standard error of x and of y, 0 where unknown."""

    x: float
    y: float
    kind: str
    hint: str
    trial: int | None = None
    error: tuple[float, float] = (0.0, 0.0)


def pareto_picture(found: Found, x: str, y: str) -> Picture:
    """The picture with its legend."""
    dots = dots_of(found, x, y)
    if not dots:
        return Picture("", f"No complete trial has both {x} and {y} yet.")
    left, right = svg.LEFT, svg.WIDTH - svg.RIGHT
    across = svg.scale([dot.x for dot in dots], left, right)
    up = svg.scale([dot.y for dot in dots], svg.HEIGHT - svg.BOTTOM, svg.TOP)
    parts = svg.frame(across, up, label(x), label(y))
    members = sorted((dot.x, dot.y) for dot in dots if dot.kind in ("front", "picked"))
    if members and {x, y} == {o.metric for o in found.spec.objectives}:
        falls = next(o for o in found.spec.objectives if o.metric == x).direction == "minimize"
        parts.append(svg.path(((across(a), up(b)) for a, b in _stairs(members, falls)), "stairs"))
    order = {kind: place for place, kind in enumerate(("infeasible", "other", "front", "picked", "original"))}
    for dot in sorted(dots, key=lambda dot: order[dot.kind]):
        parts.append(_mark(dot, across, up))
    said = f"{y} over {x} of study {found.name}: {len(members)} trials on the front"
    total = sum(count.number for count in found.counts)
    thinned = "" if len(found.trials) == total else f" Of {total:,} trials those once on the front and an even choice."
    caption = (
        "Blue: the front; orange ring: the picked trial; grey: other trials; hollow: a constraint is broken; "
        f"diamond: the original model. Bars are one standard error.{thinned}"
    )
    return Picture(svg.picture(parts, said), caption)


def dots_of(found: Found, x: str, y: str) -> list[Dot]:
    """Every complete trial looked at that has both metrics as finite numbers, and the original model."""
    members = {trial.number for trial in found.front}
    picked = found.picked.number if found.picked else None
    dots = []
    for trial in complete(found.counted):
        metrics = metrics_of(trial)
        if not _both(metrics, x, y):
            continue
        holds = feasible(found.spec.constraints, metrics)
        kind = "picked" if trial.number == picked else "front" if trial.number in members else "other"
        errors = measured(trial).errors
        error = (errors.get(x, 0.0), errors.get(y, 0.0)) if kind != "other" else (0.0, 0.0)
        said = hint(trial, found)
        dots.append(Dot(metrics[x], metrics[y], kind if holds else "infeasible", said, trial.number, error))
    if _both(found.baseline, x, y):
        said = "\n".join(["the original model", *(f"{n} {cell(n, found.baseline[n])}" for n in (y, x))])
        dots.append(Dot(found.baseline[x], found.baseline[y], "original", said))
    return dots


def hint(trial: Trial, found: Found) -> str:
    """Number, and the metrics the study is about with their errors."""
    names = dict.fromkeys([*(o.metric for o in found.spec.objectives), *(c.metric for c in found.spec.constraints)])
    metrics, errors = metrics_of(trial), measured(trial).errors
    lines = [
        f"{name} {cell(name, metrics[name])}" + (f" ± {cell(name, errors[name])}" if name in errors else "")
        for name in names
        if name in metrics
    ]
    return "\n".join([f"trial {trial.number}, rung {trial.rung}", *lines])


def nearest(spots: NDArray[np.float64], members: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """Which of the spots to draw where there are more than ``most``: half of so many are the nearest to a member.

    Args:
        spots, members: shape (spots, 2), (members, 2). Where there are no members, near means near the first spot.
    """
    if len(spots) <= most:
        return np.arange(len(spots))
    near = members if len(members) else spots[:1]
    span = np.ptp(spots, axis=0)
    span[span == 0] = 1.0
    distance = np.full(len(spots), math.inf)
    for member in near:
        distance = np.minimum(distance, (((spots - member) / span) ** 2).sum(axis=1))
    ranked = np.argsort(distance, kind="stable")
    far = ranked[most // 2 :]
    return np.array([*ranked[: most // 2], *far[np.linspace(0, len(far) - 1, most - most // 2).astype(int)]], dtype=int)


def drawn(
    spots: NDArray[np.float64], members: NDArray[np.bool_], others: NDArray[np.bool_], most: int
) -> tuple[NDArray[np.int64], int]:
    """The indices of the spots to draw, in order: all members, and at most so many of the others; how many others there
    are."""
    off = np.flatnonzero(others)
    chosen = off[nearest(spots[off], spots[members], most)]
    return np.sort(np.concatenate([np.flatnonzero(members), chosen])), len(off)


def label(metric: str) -> str:
    """A metric with its unit."""
    unit = METRICS[metric].unit
    return metric if unit in ("ratio", "count") else f"{metric} [{unit}]"


def _stairs(members: Sequence[tuple[float, float]], falls: bool) -> list[tuple[float, float]]:
    """The edge of what the members dominate; ``falls``: less x is better."""
    corners = [(b[0], a[1]) if falls else (a[0], b[1]) for a, b in pairwise(members)]
    return [spot for pair in zip(members, corners, strict=False) for spot in pair] + list(members[-1:])


def _both(metrics: Mapping[str, float], x: str, y: str) -> bool:
    return all(math.isfinite(metrics.get(name, math.nan)) for name in (x, y))


def _mark(dot: Dot, across: svg.Scale, up: svg.Scale) -> str:
    a, b = across(dot.x), up(dot.y)
    if dot.kind == "original":
        spots = f"{a:.1f},{b - 7:.1f} {a + 7:.1f},{b:.1f} {a:.1f},{b + 7:.1f} {a - 7:.1f},{b:.1f}"
        return svg.tag("polygon", svg.hint(dot.hint), klass="original", points=spots)
    radius = {"front": 4.5, "picked": 5.5}.get(dot.kind, 2.5)
    circle = svg.tag("circle", svg.hint(dot.hint), klass=dot.kind, cx=a, cy=b, r=radius, data_trial=dot.trial)
    return "".join([*_bars(dot, across, up), circle])


def _bars(dot: Dot, across: svg.Scale, up: svg.Scale) -> Iterable[str]:
    """One standard error to both sides, where there is one; what a logarithmic axis cannot show ends at its edge."""
    wide, high = dot.error
    if high > 0:
        low = max(dot.y - high, up.low)
        yield svg.tag("line", klass="error", x1=across(dot.x), x2=across(dot.x), y1=up(low), y2=up(dot.y + high))
    if wide > 0:
        low = max(dot.x - wide, across.low)
        yield svg.tag("line", klass="error", x1=across(low), x2=across(dot.x + wide), y1=up(dot.y), y2=up(dot.y))
