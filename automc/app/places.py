"""A document as a tree in which every value knows its file, line and key path, and a list of its mistakes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from automc.errors import SpecError

T = TypeVar("T")
Scalar = str | int | float | bool | None

STUDY, SPACE, OVERRIDE = 0, 1, 2
"""The sources of a study, in the order in which their mistakes are listed."""

MOST_MISTAKES = 20
_LONGEST = 600


class Place(NamedTuple):
    """Where a value was written. ``line`` counts from 1; 0 for an override, which has none."""

    source: int
    label: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.label}:{self.line}" if self.line else self.label


def one_line(text: str) -> str:
    """The text without anything that a terminal would not print, and not endless."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 3] + "..."


@dataclass
class Mistakes:
    """Every mistake found so far, so that a user can mend all of them at once."""

    found: list[tuple[Place, str]] = field(default_factory=list)

    def add(self, place: Place, path: str, message: str) -> None:
        self.found.append((place, one_line(f"{place}: {path}: {message}" if path else f"{place}: {message}")))

    def raise_all(self) -> None:
        """Raises SpecError, one line a mistake in the order of their lines, if there is any."""
        lines = [line for _, line in sorted(self.found, key=lambda item: (item[0].source, item[0].line))]
        more = len(lines) - MOST_MISTAKES
        if lines:
            raise SpecError("\n".join(lines[:MOST_MISTAKES] + ([f"... and {more} more mistakes"] if more > 0 else [])))


@dataclass
class Node:
    """A value of a document.

    Attributes:
        value: a scalar, a list of nodes, or nodes by key.
        path: the keys that lead here, as in ``rules[2].settings``.
        place: the line of the key (or list item) that introduces the value.
        mistakes: shared by all nodes of a study.
    """

    value: Scalar | list[Node] | dict[str, Node]
    path: str
    place: Place
    mistakes: Mistakes

    def below(self, key: str | int) -> str:
        """The path of a child."""
        if isinstance(key, int):
            return f"{self.path}[{key}]"
        return f"{self.path}.{key}" if self.path else key

    def attempt(self, reader: Callable[[Node], T]) -> tuple[T, ...]:
        """What the reader makes of this node, or nothing: its SpecError becomes a mistake at this place."""
        try:
            return (reader(self),)
        except SpecError as error:
            self.complain(str(error))
            return ()

    def read(self, reader: Callable[[Node], T], fallback: T) -> T:
        """As ``attempt``, with a value to go on with after a mistake."""
        return next(iter(self.attempt(reader)), fallback)

    def complain(self, message: str) -> None:
        """Record a mistake here, or at the override that changed a part of this value."""
        children = self.value.values() if isinstance(self.value, dict) else ()
        changed = [child.place for child in children if child.place.source == OVERRIDE]
        self.mistakes.add(changed[0] if changed else self.place, self.path, message)

    def deepest(self, *keys: str) -> Node:
        """The node at the end of these keys (of items of a list: their places), or the last one that exists."""
        node = self
        for key in keys:
            if isinstance(node.value, dict) and key in node.value:
                node = node.value[key]
            elif isinstance(node.value, list) and key.isdecimal() and int(key) < len(node.value):
                node = node.value[int(key)]
            else:
                break
        return node
