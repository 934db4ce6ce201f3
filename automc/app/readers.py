"""Readers: small functions from a node to a value, which raise SpecError with what was given and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from automc.app.places import Node
from automc.core.required import show
from automc.core.rules import nearest
from automc.errors import SpecError

T = TypeVar("T")
Reader = Callable[[Node], T]


def refused(value: object, allowed: str, hint: str = "") -> SpecError:
    return SpecError(f"{show(value)} is not allowed (allowed: {allowed}){hint}")


def unknown(word: str, words: Iterable[str], what: str) -> SpecError:
    names = list(words)
    return SpecError(f"unknown {what} {word!r} (allowed: {', '.join(names)}){nearest(word, names)}")


def text(node: Node) -> str:
    value = node.value
    if isinstance(value, (int, float)):
        raise SpecError(f"must be text, not {show(value)} (write it in quotes)")
    if not isinstance(value, str) or not value.strip():
        raise SpecError(f"must be text, not {show(value)}")
    return value


def word(words: Iterable[str], what: str) -> Reader[str]:
    """One of these names."""
    names = list(words)

    def read(node: Node) -> str:
        name = text(node)
        if name not in names:
            raise unknown(name, names, what)
        return name

    return read


def integer(low: int, high: int | None = None) -> Reader[int]:
    """A whole number from low to high, both included."""
    allowed = f"a whole number {_span(low, high)}"

    def read(node: Node) -> int:
        value = _numeric(node, allowed)
        if isinstance(value, float):
            raise refused(value, allowed, f", did you mean {int(value)}?" if value.is_integer() else "")
        if value < low or (high is not None and value > high):
            raise refused(value, allowed, f", did you mean {low if value < low else high}?")
        return value

    return read


def number(low: float, high: float = math.inf, above: bool = False) -> Reader[float]:
    """A finite number from low to high, both included; ``above`` leaves out low itself."""
    allowed = f"a number {_span(low, None if math.isinf(high) else high, above)}"

    def read(node: Node) -> float:
        value = _numeric(node, allowed)
        if not math.isfinite(value) or value < low or value > high or (above and value == low):
            near = high if value > high and math.isfinite(high) else low
            raise refused(value, allowed, "" if above and near == low else f", did you mean {near:g}?")
        return float(value)

    return read


def _numeric(node: Node, allowed: str) -> int | float:
    value = node.value
    if isinstance(value, str) and len(value) < 30 and value.strip().lstrip("+-").replace(".", "", 1).isdecimal():
        raise refused(value, allowed, ", remove the quotes")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise refused(value, allowed)
    if isinstance(value, int) and abs(value) > 2**63:
        raise refused(float(value) if abs(value) < 10**300 else math.inf, allowed)
    return value


def _span(low: float, high: float | None, above: bool = False) -> str:
    if high is None:
        return f"above {low:g}" if above else f"of at least {low:g}"
    return f"above {low:g}, at most {high:g}" if above else f"from {low:.12g} to {high:.12g}"


def items(node: Node, what: str = "list") -> list[Node]:
    """The items of a list that is not empty."""
    if not isinstance(node.value, list):
        raise SpecError(f"must be a {what}, not {show(node.value)}")
    if not node.value:
        raise SpecError(f"must be a {what} of at least one item")
    return node.value


def many(reader: Reader[T]) -> Reader[tuple[T, ...]]:
    """A list that is not empty, or a single value, which counts as a list of one."""

    def read(node: Node) -> tuple[T, ...]:
        if not isinstance(node.value, list):
            return (reader(node),)
        return tuple(value for item in items(node) for value in item.attempt(reader))

    return read


def plain(node: Node) -> Any:
    """Scalars, lists and mappings, as JSON can carry them; without what is refused, of which no more is to be said."""
    value = node.value
    if isinstance(value, list):
        return [found for item in value for found in item.attempt(plain)]
    if isinstance(value, dict):
        return {key: found for key, child in value.items() for found in child.attempt(plain)}
    if isinstance(value, float) and not math.isfinite(value):
        raise refused(value, "finite numbers, text, true/false, null, lists, mappings")
    return value


def settings(node: Node) -> dict[str, Any]:
    if not isinstance(node.value, dict):
        raise SpecError(f"must be a mapping of setting to value, not {show(node.value)}")
    return dict(plain(node))


class Fields:
    """A mapping whose keys are known; an unknown one is recorded as a mistake with the nearest known key.

    A key without a value counts as left out.

    Raises:
        SpecError: the node is no mapping.
    """

    def __init__(self, node: Node, known: Sequence[str], hint: str = "") -> None:
        allowed = ", ".join(known)
        if not isinstance(node.value, dict):
            raise SpecError(f"must be a mapping with the keys {allowed}, not {show(node.value)}")
        self.node = node
        for key, child in node.value.items():
            if key not in known:
                message = f"unknown key {key!r} (allowed: {allowed}){nearest(key, known) or hint}"
                node.mistakes.add(child.place, node.path, message)
        self._given = {key: child for key, child in node.value.items() if key in known and child.value is not None}

    def __contains__(self, key: str) -> bool:
        return key in self._given

    def __getitem__(self, key: str) -> Node:
        return self._given[key]

    def get(self, key: str, reader: Reader[T], default: T) -> T:
        return self._given[key].read(reader, default) if key in self._given else default

    def need(self, key: str, reader: Reader[T], fallback: T, example: str = "") -> T:
        if key not in self._given:
            hint = f", for example {key}: {example}" if example else ""
            place = self.node.deepest(key)
            place.mistakes.add(place.place, self.node.path, f"{key} is missing{hint}")
        return self.get(key, reader, fallback)
