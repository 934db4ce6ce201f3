"""SVG by hand: elements with everything escaped, and axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 380
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 14, 44


def tag(name: str, *inside: str, **attributes: object) -> str:
    """An element. ``inside`` is SVG already; an attribute ``stroke_width`` is written ``stroke-width``, and ``klass``
    is ``class``."""
    said = "".join(
        f' {"class" if key == "klass" else key.replace("_", "-")}="{_short(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{said}>{''.join(inside)}</{name}>" if inside else f"<{name}{said}/>"


def words(text: str, **attributes: object) -> str:
    """A text element."""
    return tag("text", escape(text), **attributes)


def hint(text: str) -> str:
    """What is shown when the pointer rests on the element around it."""
    return tag("title", escape(text))


def picture(inside: Iterable[str], label: str, width: float = WIDTH, height: float = HEIGHT) -> str:
    """A whole SVG element that scales with the page; ``label`` is read aloud in its place."""
    box = f"0 0 {width:g} {height:g}"
    return tag("svg", *inside, viewBox=box, width=width, role="img", aria_label=label)


def _short(value: object) -> str:
    """An attribute's text; numbers, of which a picture has thousands, have nothing to escape."""
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value) if isinstance(value, int) else escape(str(value))


@dataclass(frozen=True)
class Scale:
    """From values to pixels, linear or logarithmic. ``start`` and ``end`` are the pixels of ``low`` and ``high``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log10(v) for v in (self.low, self.high, value)) if self.log else self._ends(value)
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def _ends(self, value: float) -> tuple[float, float, float]:
        return self.low, self.high, value

    def ticks(self) -> list[float]:
        """Round values between the ends: powers of ten and their doubles and fives, or steps of 1, 2 or 5."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            found = [m * 10.0**p for p in powers for m in (1, 2, 5) if self.low <= m * 10.0**p <= self.high]
            return found if len(found) <= 8 else [tick for tick in found if f"{tick:e}"[0] == "1"]
        rough = (self.high - self.low) / 6
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def scale(values: Sequence[float], start: float, end: float) -> Scale:
    """A scale around the values with a little air; logarithmic where they are positive and far apart.

    Args:
        values: finite, at least one.
    """
    low, high = min(values), max(values)
    if low > 0 and high / low > 20:
        return Scale(low / 1.15, high * 1.15, start, end, log=True)
    air = (high - low) * 0.04 or abs(low) * 0.1 or 1.0
    return Scale(low - air, high + air, start, end)


def frame(x: Scale, y: Scale, x_label: str, y_label: str) -> list[str]:
    """Grid, ticks and labels of a plot."""
    parts = []
    for tick in x.ticks():
        at = x(tick)
        parts.append(tag("line", klass="grid", x1=at, x2=at, y1=y.start, y2=y.end))
        parts.append(words(brief(tick), klass="tick", x=at, y=y.start + 16, text_anchor="middle"))
    for tick in y.ticks():
        at = y(tick)
        parts.append(tag("line", klass="grid", x1=x.start, x2=x.end, y1=at, y2=at))
        parts.append(words(brief(tick), klass="tick", x=x.start - 6, y=at + 4, text_anchor="end"))
    middle, height = (x.start + x.end) / 2, (y.start + y.end) / 2
    parts.append(words(x_label, klass="axis", x=middle, y=y.start + 36, text_anchor="middle"))
    turn = f"rotate(-90 14 {height:.1f})"
    return [*parts, words(y_label, klass="axis", x=14, y=height, text_anchor="middle", transform=turn)]


def brief(value: float) -> str:
    """A tick's number: 25k, 1.5M, 0.05."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}" if value else "0"


def path(spots: Iterable[tuple[float, float]], klass: str) -> str:
    """A line through pixels."""
    return tag("path", klass=klass, d="M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in spots))
