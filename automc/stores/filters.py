"""The filter language of ``automc trials --where``.

    top1 >= 0.95 and (size_ratio < 0.2 or not state in (failed, stopped)) and reason != "oom"

Names are the metrics (METRICS), ``METRIC_error`` for the standard error of one that has it, ``samples`` for the number
of inputs of the task's metrics, ``number``, ``rung``, ``seconds``, ``state`` and ``reason``. A comparison needs
at least one name; ``state`` and ``reason`` know ``==``, ``!=`` and ``in`` only. ``not`` binds before ``and``, and
``and`` before ``or``. A comparison with a metric that the trial lacks is false, whichever sign it has; NaN
compares as in Python. The text is parsed into a tree, and ``matches`` here and ``compile`` in query.py give the
tree the same meaning in Python and in SQL.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from automc.core.metrics import METRICS
from automc.core.rules import nearest
from automc.core.trial import REASONS, Trial, TrialState
from automc.errors import SpecError

Literal: TypeAlias = "float | str"

WORDS: Mapping[str, tuple[str, ...]] = {
    "state": tuple(state.value for state in TrialState),
    "reason": ("", *REASONS),
}
"""The names whose values are words, and the words they take."""

ERRORS: Mapping[str, str] = {f"{name}_error": name for name, metric in METRICS.items() if metric.has_error}
"""The names of standard errors, and whose they are."""

NAMES: tuple[str, ...] = (
    *("number", "rung", "seconds", *WORDS),
    *(name for name in METRICS if name != "seconds"),
    *ERRORS,
    "samples",
)
"""Every name a filter or a sort may use."""

SIGNS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


class Name(NamedTuple):
    """One of NAMES."""

    name: str


@dataclass(frozen=True)
class Compare:
    left: Name | Literal
    sign: str
    right: Name | Literal


@dataclass(frozen=True)
class Member:
    name: Name
    values: tuple[Literal, ...]
    negated: bool = False


@dataclass(frozen=True)
class Not:
    inner: Filter


@dataclass(frozen=True)
class Both:
    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class Either:
    parts: tuple[Filter, ...]


Filter: TypeAlias = "Compare | Member | Not | Both | Either"


def parse(text: str) -> Filter:
    """The tree of a filter.

    Raises:
        SpecError: the text breaks a rule of the language; the message has the column (from 1).
    """
    from automc.stores.filter_parser import read_filter

    return read_filter(text)


def matches(filter: Filter, trial: Trial) -> bool:
    """Whether the filter holds for the trial."""
    match filter:
        case Not(inner):
            return not matches(inner, trial)
        case Both(parts):
            return all(matches(part, trial) for part in parts)
        case Either(parts):
            return any(matches(part, trial) for part in parts)
        case Member(name, values, negated):
            value = value_of(name.name, trial)
            return value is not None and (value in values) != negated
        case Compare(left, sign, right):
            a, b = (value_of(side.name, trial) if isinstance(side, Name) else side for side in (left, right))
            return a is not None and b is not None and SIGNS[sign](a, b)


def value_of(name: str, trial: Trial) -> Literal | None:
    """What a name stands for in a trial; None where the trial lacks it."""
    if name in ("number", "rung"):
        return float(getattr(trial, name))
    if name == "state":
        return trial.state.value
    if name == "reason":
        return trial.reason
    found = trial.measurement
    if found is None:
        return None
    if name in ("seconds", "samples"):
        return float(getattr(found, name))
    return found.errors.get(ERRORS[name]) if name in ERRORS else found.metrics.get(name)


def sort_keys(sort: Sequence[str]) -> list[tuple[str, bool]]:
    """(name, whether descending) of each sort key.

    Raises:
        SpecError: a name that no filter knows.
    """
    keys = [(key.removeprefix("-"), key.startswith("-")) for key in sort]
    for name, _ in keys:
        if name not in NAMES:
            raise SpecError(f"sort: unknown name {name!r}{hint(name)}")
    return keys


def check_limit(limit: int | None) -> None:
    """Raises SpecError for a negative limit."""
    if limit is not None and limit < 0:
        raise SpecError(f"limit: 0 or more trials, not {limit}")


def hint(name: str) -> str:
    """The nearest name, and all names, to end an error with."""
    return f"{nearest(name, NAMES)} (names: {', '.join(NAMES)})"
