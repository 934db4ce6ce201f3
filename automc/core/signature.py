"""Settings of a part: which there are, and what each may be, read off the signature that takes them.

A setting is a parameter with a default. Its type is the default's; what else holds is the rule in its annotation, as in
``population: Annotated[int, Within(2, 10_000)] = 20``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from automc.core.required import no_such_setting
from automc.core.rules import nearest
from automc.errors import SpecError

MOST = 1_000_000
"""Where a count has no limit of its own: more trials than any study has."""


class Rule(Protocol):
    """What a setting may be."""

    def wrong(self, value: Any) -> str:
        """What is wrong with a value, "" where nothing is."""
        ...


@dataclass(frozen=True)
class Within:
    """A number from low to high; ``above`` and ``below`` leave out the ends, ``zero`` lets 0 in."""

    low: float
    high: float
    above: bool = False
    below: bool = False
    zero: bool = False

    def wrong(self, value: float) -> str:
        end = (self.above and value == self.low) or (self.below and value == self.high)
        inside = (self.low <= value <= self.high and not end) or (self.zero and value == 0)
        return "" if inside else f"must be {self}, not {value!r}"

    def __str__(self) -> str:
        low, high = f"{self.low:,.7g}", f"{self.high:,.7g}"
        if self.above or self.below:
            return f"{'above' if self.above else 'at least'} {low} and {'below' if self.below else 'at most'} {high}"
        return f"{'0 or ' * self.zero}from {low} to {high}"


@dataclass(frozen=True)
class OneOf:
    """One of these words."""

    words: tuple[str, ...]

    def wrong(self, value: str) -> str:
        if value in self.words:
            return ""
        return f"must be one of {', '.join(self.words)}, not {value!r}{nearest(value, self.words)}"


def mistakes(make: Callable[..., object], name: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with settings, by key.

    Args:
        make: takes them. name: of the part, for messages.
    """
    known = _settings(make)
    found = {key: _mistake(name, known, key, value) for key, value in settings.items()}
    return {key: message for key, message in found.items() if message}


def made(make: Callable[..., Any], kind: str, name: str, settings: Mapping[str, Any], *arguments: Any) -> Any:
    """What ``make`` makes of the arguments and settings.

    Raises:
        SpecError: one line a wrong setting, each with its key path; or what ``make`` raises.
    """
    wrong = mistakes(make, name, settings)
    if wrong:
        raise SpecError("\n".join(f"{kind}.settings.{key}: {message}" for key, message in wrong.items()))
    return make(*arguments, **settings)


def _settings(make: Callable[..., object]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(make, eval_str=True).parameters
    return {key: found for key, found in parameters.items() if found.default is not found.empty}


def _mistake(name: str, known: Mapping[str, inspect.Parameter], key: str, value: object) -> str:
    if key not in known:
        return no_such_setting(name, key, known)
    rules = [rule for rule in getattr(known[key].annotation, "__metadata__", ()) if hasattr(rule, "wrong")]
    wanted = type(known[key].default)
    # A whole number will do where a fraction may stand.
    fits = isinstance(value, (int, float) if wanted is float else wanted) and isinstance(value, bool) == (
        wanted is bool
    )
    if wanted in _TYPES and not fits:
        span = "".join(f" {rule}" for rule in rules if isinstance(rule, Within))
        return f"must be {_TYPES[wanted]}{span}, not {value!r}"
    return next((wrong for rule in rules if (wrong := rule.wrong(value))), "")


_TYPES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
