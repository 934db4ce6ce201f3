"""A search as a picture: every trial in the plane of two metrics, as text or as a PNG file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from automc.app.tables import cell
from automc.core.metrics import METRICS, feasible
from automc.core.study import StudySpec
from automc.core.trial import Trial, TrialState
from automc.errors import SpecError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from automc.app.study import Study

Spot = tuple[float, float]

MOST = 1000
"""So many trials make a picture; of more it has an even choice, and all of the front."""

_BLUE, _GREY, _ORANGE = "#1f5fa8", "#9aa3ad", "#d9730d"


@dataclass(frozen=True)
class Chart:
    """Where the trials of a study lie in the plane of metric ``x`` and metric ``y``.

    Attributes:
        front: ``(x, y)`` of the feasible undominated trials, by x. numbers: their trial numbers.
        others: feasible trials off the front. infeasible: trials that break a constraint.
        baseline: the original model, where both metrics are known of it.
        stairs: the two metrics are the only objectives, so the front may be joined by a line.
        left_out: so many trials were not looked at, being too many for a picture.
    """

    name: str
    x: str
    y: str
    front: tuple[Spot, ...]
    numbers: tuple[int, ...]
    others: tuple[Spot, ...]
    infeasible: tuple[Spot, ...]
    baseline: Spot | None
    stairs: bool
    left_out: int = 0

    @property
    def spots(self) -> tuple[Spot, ...]:
        base = (self.baseline,) if self.baseline else ()
        return (*self.front, *self.others, *self.infeasible, *base)


def chart(
    spec: StudySpec,
    trials: Iterable[Trial],
    front: Sequence[Trial],
    baseline: Mapping[str, float],
    axes: tuple[str, str],
    left_out: int = 0,
) -> Chart:
    """Sort the complete trials of a study into a chart; ``axes`` as ``pick_axes`` gives them.

    Args:
        trials: all of the study, or some of them; the front is drawn anyway. left_out: how many are not among them.
    """
    x, y = axes
    chosen = {trial.number for trial in front}
    kinds: dict[str, list[tuple[Spot, int]]] = {"front": [], "others": [], "infeasible": []}
    for trial in {trial.number: trial for trial in (*front, *trials)}.values():
        if trial.state is not TrialState.COMPLETE or trial.measurement is None:
            continue
        metrics = {"seconds": trial.measurement.seconds, **trial.measurement.metrics}
        spot = _spot(metrics, axes)
        if spot is None:
            continue
        holds = feasible(spec.constraints, metrics)
        kind = "front" if trial.number in chosen else "others" if holds else "infeasible"
        kinds[kind].append((spot, trial.number))
    members = sorted(kinds["front"])
    return Chart(
        spec.name,
        x,
        y,
        front=tuple(spot for spot, _ in members),
        numbers=tuple(number for _, number in members),
        others=tuple(spot for spot, _ in kinds["others"]),
        infeasible=tuple(spot for spot, _ in kinds["infeasible"]),
        baseline=_spot(baseline, axes),
        stairs={x, y} == {o.metric for o in spec.objectives},
        left_out=left_out,
    )


def of(study: Study, axes: tuple[str, str], at: int | None = None) -> Chart:
    """The chart of a study; of the front ``at`` see ``Study.front``."""
    trials, left_out = study.sample(MOST)
    return chart(study.spec, trials, study.front(at), study.baseline, axes, left_out)


def pick_axes(spec: StudySpec, x: str | None, y: str | None) -> tuple[str, str]:
    """The two metrics to draw: those asked for, else the second and first objective.

    Raises:
        SpecError: no metric of that name, or twice the same.
    """
    names = [o.metric for o in spec.objectives] + [c.metric for c in spec.constraints] + ["seconds"]
    y = y or next(name for name in names if name != x)
    x = x or next(name for name in names if name != y)
    for option, name in (("--x", x), ("--y", y)):
        if name not in METRICS:
            raise SpecError(f"{option} {name}: no such metric (metrics: {', '.join(METRICS)})")
    if x == y:
        raise SpecError(f"x and y: both are {x}; a picture needs two metrics")
    return x, y


def _spot(metrics: Mapping[str, float], axes: tuple[str, str]) -> Spot | None:
    x, y = (metrics.get(name, math.nan) for name in axes)
    return (x, y) if math.isfinite(x) and math.isfinite(y) else None


def scatter(data: Chart, width: int = 64, height: int = 16) -> str:
    """The chart in ``height`` lines of text: ``*`` front, ``.`` others, ``o`` infeasible, ``B`` the original model."""
    if not data.spots:
        return "(no complete trial has both metrics yet)"
    logarithmic = _orders([spot[0] for spot in data.spots])
    (left, right), (bottom, top) = (_range([spot[i] for spot in data.spots]) for i in (0, 1))
    base = [data.baseline] if data.baseline else []
    grid = [[" "] * width for _ in range(height)]
    for mark, spots in (("o", data.infeasible), (".", data.others), ("B", base), ("*", data.front)):
        for x, y in spots:
            share = math.log(x / left) / math.log(right / left) if logarithmic else (x - left) / (right - left)
            grid[round((top - y) / (top - bottom) * (height - 1))][round(share * (width - 1))] = mark
    labels = {0: cell(data.y, top), height - 1: cell(data.y, bottom)}
    gutter = max(len(text) for text in labels.values())
    lines = [f"{labels.get(i, ''):>{gutter}} |{''.join(row).rstrip()}" for i, row in enumerate(grid)]
    ends = cell(data.x, left), cell(data.x, right)
    foot = ends[0] + ends[1].rjust(width - len(ends[0]))
    across = f"{data.x} (logarithmic)" if logarithmic else data.x
    legend = f"{data.y} over {across}    * front  . other  o infeasible  B original"
    legend += f"    {data.left_out:,} more trials" if data.left_out else ""
    return "\n".join(
        [*lines, " " * gutter + " +" + "-" * width, " " * (gutter + 2) + foot, " " * (gutter + 2) + legend]
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5 * max(abs(low), 1e-9), high + 0.5 * max(abs(high), 1e-9))


def png(data: Chart) -> bytes:
    """The chart as a PNG file of 1440 x 900 pixels.

    Raises:
        SpecError: there is nothing to draw.
    """
    if not data.spots:
        raise SpecError(
            f"no complete trial of {data.name} has both {data.x} and {data.y} yet, so there is nothing to draw"
        )
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 6.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    _draw(figure.add_subplot(), data)
    file = BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _draw(axes: Axes, data: Chart) -> None:
    if data.infeasible:
        axes.scatter(*_columns(data.infeasible), s=34, facecolors="none", edgecolors=_GREY, label="breaks a constraint")
    if data.others:
        axes.scatter(*_columns(data.others), s=34, color=_GREY, alpha=0.75, linewidths=0, label="feasible")
    if data.front:
        if data.stairs:
            axes.step(*_columns(data.front), where=_where(data), color=_BLUE, linewidth=1.6, alpha=0.8, zorder=3)
        axes.scatter(
            *_columns(data.front), s=70, color=_BLUE, edgecolors="white", linewidths=1, zorder=4, label="Pareto front"
        )
    if data.baseline:
        axes.scatter(*data.baseline, s=190, marker="*", color=_ORANGE, zorder=5, label="original model")
    _dress(axes, data)
    for spot, number in _apart(axes, data):
        axes.annotate(
            str(number), spot, (6, -4), textcoords="offset points", fontsize=9, color=_BLUE, va="top", zorder=6
        )


def _dress(axes: Axes, data: Chart) -> None:
    """Scales, labels, grid and legend."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if _orders([spot[0] for spot in data.spots]):
        axes.set_xscale("log", subs=(2, 5))
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 10 else f"{value:g}"))
    total = len(data.spots) - bool(data.baseline)
    more = f", {data.left_out:,} more not drawn" if data.left_out else ""
    axes.set_title(f"{data.name}: {len(data.front)} of {total} trials on the front{more}", pad=12, fontsize=14)
    axes.set_xlabel(_label(data.x), fontsize=12)
    axes.set_ylabel(_label(data.y), fontsize=12)
    axes.tick_params(labelsize=10.5)
    axes.grid(True, color="#e3e6ea", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=10.5, frameon=True, framealpha=0.95, edgecolor="#d0d5da")


def _columns(spots: Sequence[Spot]) -> tuple[list[float], list[float]]:
    return [spot[0] for spot in spots], [spot[1] for spot in spots]


def _where(data: Chart) -> Any:
    """The side on which the stairs bound what the front dominates (the front is sorted by x)."""
    return "post" if METRICS[data.x].direction == "minimize" else "pre"


def _orders(values: Sequence[float]) -> bool:
    """Worth a logarithmic axis: all positive and spread over more than a factor of 20."""
    return min(values) > 0 and max(values) / min(values) > 20


def _apart(axes: Axes, data: Chart, pixels: float = 36.0) -> list[tuple[Spot, int]]:
    """The front members whose numbers can be written without covering one another, first come first served."""
    axes.autoscale_view()
    chosen: list[tuple[Spot, int]] = []
    places: list[Spot] = []
    for spot, number in zip(data.front, data.numbers, strict=True):
        x, y = axes.transData.transform(spot)
        if all(abs(x - a) > pixels or abs(y - b) > pixels / 2 for a, b in places):
            chosen.append((spot, number))
            places.append((x, y))
    return chosen


def _label(metric: str) -> str:
    unit = METRICS[metric].unit
    return metric if unit in ("ratio", "count") else f"{metric} [{unit}]"
