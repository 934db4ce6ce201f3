"""How the front grew, drawn over trials and over time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from automc.app.reporting import svg
from automc.app.reporting.document import Block, Folded, Grid, Picture
from automc.app.reporting.found import Found, work

ROWS = 8


def progress(found: Found) -> list[Block]:
    """The curve over trials, and over time where that was measured; and some of its steps as a table."""
    steps, total = found.growth, sum(count.number for count in found.counts if count.state.finished)
    if not steps:
        return []
    seconds = work(found.counts)
    unit, size = next((u, s) for u, s in (("hours", 3600.0), ("minutes", 60.0), ("seconds", 0.0)) if seconds >= s)
    size = size or 1.0
    blocks: list[Block] = [
        _curve([(float(s.done), s.share) for s in steps], float(total), "trials", "by how many had finished")
    ]
    if seconds > 0:
        spots = [(s.seconds / size, s.share) for s in steps]
        note = "by evaluation time, all workers together; failed trials and answers from the store count none"
        blocks.append(_curve(spots, seconds / size, f"{unit} of evaluation", note))
    places = np.unique(np.linspace(0, len(steps) - 1, min(ROWS, len(steps))).astype(int))
    rows = [
        {"trials": f"{steps[i].done:,}", "seconds": f"{steps[i].seconds:,.1f}", "share": f"{steps[i].share:.2%}"}
        for i in places
    ]
    return [*blocks, Folded("some of the steps", Grid(rows, ("trials", "seconds", "share")))]


def _curve(spots: Sequence[tuple[float, float]], end: float, x_label: str, note: str) -> Picture:
    height = 240
    across = svg.Scale(0.0, max(end, 1e-9), svg.LEFT, svg.WIDTH - svg.RIGHT)
    up = svg.Scale(0.0, max(share for _, share in spots) * 1.08 or 1.0, height - svg.BOTTOM, svg.TOP)
    stairs = [(spots[0][0], 0.0)]
    for x, share in spots:
        stairs += [(x, stairs[-1][1]), (x, share)]
    stairs.append((end, spots[-1][1]))
    parts = svg.frame(across, up, x_label, "share of the box")
    parts.append(svg.path(((across(a), up(b)) for a, b in stairs), "curve"))
    for x, share in spots:
        said = svg.hint(f"{x:.4g} {x_label}: {share:.2%}")
        parts.append(svg.tag("circle", said, klass="step", cx=across(x), cy=up(share), r=3))
    said = f"Share of the box below the original model that the front covers, {note}."
    return Picture(svg.picture(parts, said, height=height), said)
