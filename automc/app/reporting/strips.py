"""What the members of the front ask of each layer: one strip a member, one cell a layer, the darker the more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from automc.app.reporting import svg
from automc.app.reporting.document import Picture
from automc.app.reporting.found import Found
from automc.core.trial import Trial

MOST = 16
"""So many members are shown; of more, an even choice, the picked one among them."""


@dataclass(frozen=True)
class Quantity:
    """A setting that is drawn. ``shade``: how much of the layer is gone by it, from 0 (untouched) to 1."""

    setting: str
    title: str
    shade: Callable[[Any], float]


def _of_bits(bits: float) -> float:
    return 1 - min(bits, 8.0) / 9 if bits < 32 else 0.0


QUANTITIES = (
    Quantity("dropped", "layer dropped", float),
    Quantity("prune_ratio", "share of channels removed", float),
    Quantity("rank_ratio", "share of the full rank that is kept", lambda kept: 1 - float(kept)),
    Quantity("sparsity", "share of weights set to zero", float),
    Quantity("weight_bits", "bits of weights", _of_bits),
    Quantity("activation_bits", "bits of activations", _of_bits),
)


def chosen(found: Found) -> list[Trial]:
    """The members that are shown, in order of the front."""
    members = list(found.front)
    if len(members) <= MOST:
        return members
    even = set(np.linspace(0, len(members) - 1, MOST - 1).astype(int).tolist())
    picked = found.picked.number if found.picked else None
    return [trial for place, trial in enumerate(members) if place in even or trial.number == picked]


def strips_picture(found: Found, asked: Mapping[int, Sequence[Mapping[str, Any]]]) -> Picture | None:
    """All strips, one block a quantity; None where nothing of the kind was searched or there is no front.

    Args:
        asked: of each member, by number, what it asks of each layer.
    """
    members = chosen(found)
    rows = {trial.number: asked[trial.number] for trial in members}
    layers = [layer.name for layer in found.layers.layers]
    shown = [q for q in QUANTITIES if any(row.get(q.setting) is not None for one in rows.values() for row in one)]
    if not shown or not layers:
        return None
    side = max(min((svg.WIDTH - 70) / len(layers), 26.0), 7.0)
    picked = found.picked.number if found.picked else None
    parts, top = [], 0.0
    for quantity in shown:
        parts.append(svg.words(quantity.title, klass="axis", x=62, y=top + 14))
        top += 20
        for number, one in rows.items():
            parts.append(_strip(number, one, quantity, (side, top), number == picked))
            top += 15
        top += 10
    parts += _names(layers, side, top)
    depth = min(max(map(len, layers)), 24) * 5 + 12
    said = f"Settings by layer of {len(members)} members of the front, best {found.spec.objectives[0].metric} first"
    some = "" if len(members) == len(found.front) else f" {len(members)} of {len(found.front)} members are shown."
    caption = f"{said}: a row a trial, a column a layer as they are run. The darker, the more is taken away.{some}"
    return Picture(svg.picture(parts, said, max(62 + side * len(layers) + 8, 400), top + depth), caption)


def _strip(
    number: int, rows: Sequence[Mapping[str, Any]], quantity: Quantity, place: tuple[float, float], picked: bool
) -> str:
    """One member's cells, its number in front."""
    side, top = place
    parts = [svg.words(str(number), klass="picked-name" if picked else "tick", x=56, y=11, text_anchor="end")]
    for column, row in enumerate(rows):
        value = row.get(quantity.setting)
        shade = 0.0 if value is None else min(max(quantity.shade(value), 0.0), 1.0)
        x = 62 + column * side
        said = svg.hint(_said(number, row, quantity.setting))
        klass = "none" if value is None else "cell"
        parts.append(svg.tag("rect", said, klass=klass, x=x, width=side - 1, height=14, fill_opacity=shade))
        if side >= 15 and value is not None and quantity.setting.endswith("bits") and value < 32:
            ink = "on-dark" if shade > 0.6 else "on-light"
            parts.append(svg.words(str(value), klass=ink, x=x + side / 2, y=11, text_anchor="middle"))
    return svg.tag("g", *parts, data_trial=number, transform=f"translate(0 {top:g})")


def _said(number: int, row: Mapping[str, Any], setting: str) -> str:
    value, real = row.get(setting), row.get(f"real {setting}")
    asked = "nothing asked" if value is None else f"{setting} {value}"
    came_out = f" (came out as {real:.4g})" if isinstance(real, (int, float)) and real != value else ""
    return f"trial {number}, {row['layer']}\n{asked}{came_out}"


def _names(layers: Sequence[str], side: float, top: float) -> list[str]:
    """The layers' names below, turned; where columns are narrow, every other or fewer."""
    every = max(1, round(11 / side + 0.4))
    parts = []
    for column in range(0, len(layers), every):
        x = 62 + column * side + side / 2
        name = layers[column] if len(layers[column]) <= 24 else "…" + layers[column][-23:]
        turned = f"rotate(-90 {x + 3:.1f} {top + 2:.1f})"
        parts.append(svg.words(name, klass="tick", x=x + 3, y=top + 2, text_anchor="end", transform=turned))
    return parts
