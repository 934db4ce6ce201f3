"""Reading the domain of a setting: a scalar fixes it, a list is a choice, a mapping is a range."""

from __future__ import annotations

from itertools import pairwise

from automc.app.places import Node
from automc.app.readers import Fields, Reader, items, number, refused
from automc.core.policy import Value
from automc.core.rules import nearest
from automc.core.space import Choice, Domain, Real, Setting, written
from automc.errors import SpecError


def domain(setting: Setting) -> Reader[Domain]:
    """A domain inside the legal one of ``setting``; without a value, the suggested one.

    A range over a setting with listed values stands for those of them that lie in the range.
    """

    def read(node: Node) -> Domain:
        if node.value is None:
            return suggested(setting)
        if isinstance(node.value, dict):
            return _range(node, setting.legal)
        if not isinstance(node.value, list):
            return Choice((_value(node, setting.legal),))
        values = [value for item in items(node) for value in item.attempt(lambda n: _value(n, setting.legal))]
        return Choice(tuple(values)) if len(values) == len(node.value) else setting.legal

    return read


def suggested(setting: Setting) -> Domain:
    """The domain of a setting for which the space gives none.

    Raises:
        SpecError: the operator suggests none.
    """
    if setting.suggested is None:
        raise SpecError(f"needs a value (allowed: {describe(setting.legal)})")
    return setting.suggested


def describe(legal: Domain) -> str:
    """``1..8 or 32`` for whole numbers in a row, else the values themselves; ``0..0.99`` for a range."""
    if isinstance(legal, Real):
        return f"{legal.low:g}..{legal.high:g}"
    if not all(type(option) is int for option in legal.options):
        return ", ".join(written(option) for option in legal.options)
    runs: list[list[Value]] = [[legal.options[0]]]
    for left, right in pairwise(legal.options):
        runs[-1].append(right) if right == int(left) + 1 else runs.append([right])
    if all(len(run) < 3 for run in runs):
        return ", ".join(str(option) for option in legal.options)
    return " or ".join(f"{run[0]}..{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _value(node: Node, legal: Domain) -> Value:
    value = node.value
    if isinstance(value, (list, dict)) or value is None or not legal.holds(value):
        raise refused(value, describe(legal), _near(value, legal))
    return float(value) if isinstance(legal, Real) else legal.normal(value)


def _near(value: object, legal: Domain) -> str:
    if isinstance(value, bool) or value != value:
        return ""
    if isinstance(value, (int, float)) and isinstance(legal, Real):
        return f", did you mean {legal.low if value < legal.low else legal.high:g}?"
    options = legal.options if isinstance(legal, Choice) else ()
    numbers = [option for option in options if isinstance(option, (int, float)) and not isinstance(option, bool)]
    if isinstance(value, (int, float)) and numbers:
        return f", did you mean {min(numbers, key=lambda option: abs(option - value))}?"
    return nearest(value, [str(option) for option in options]) if isinstance(value, str) else ""


def _range(node: Node, legal: Domain) -> Domain:
    if isinstance(legal, Choice) and not legal.ordered:
        raise SpecError(f"has no range: list some of {describe(legal)}")
    low, high = (legal.low, legal.high) if isinstance(legal, Real) else (legal.options[0], legal.options[-1])
    inside = number(float(low), float(high))
    before = len(node.mistakes.found)
    fields = Fields(node, ("low", "high", "step", "log"))
    start, end = fields.need("low", inside, 0.0), fields.need("high", inside, 1.0)
    step: float | None = fields.get("step", number(0, above=True), None)
    log = fields.get("log", _flag, False)
    if len(node.mistakes.found) > before:
        return legal
    found = Real(start, end, step, log)
    return found if isinstance(legal, Real) else _between(found, legal)


def _between(span: Real, legal: Choice) -> Choice:
    if span.log:
        raise SpecError("a logarithmic range needs a setting of real numbers")
    values = tuple(option for option in legal.options if span.holds(option))
    if not values:
        raise SpecError(f"no value between {span.low:g} and {span.high:g} is allowed (allowed: {describe(legal)})")
    return Choice(values)


def _flag(node: Node) -> bool:
    if not isinstance(node.value, bool):
        raise refused(node.value, "true or false")
    return node.value
