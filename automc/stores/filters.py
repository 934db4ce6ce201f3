"""The filter language of ``automc trials --where``.

    top1 >= 0.95 and (size_ratio < 0.2 or not state in (failed, stopped)) and reason != "oom"
    all layer("layer3.*").weight_bits < 4 and kd_temperature > 3 and latency_ms is not null

Names are the metrics (METRICS), ``METRIC_error`` for the standard error of one that has it, ``samples`` for the number
of inputs of the task's metrics, ``number`` (or ``trial``), ``rung``, ``seconds``, ``twin``, ``state``, ``reason`` and
``fingerprint``. The last three hold words and know ``==``, ``!=`` and ``in`` only; a fingerprint is named by its first
digits. A comparison needs at least one name. ``not`` binds before ``and``, and ``and`` before ``or``.

``NAME is null`` holds where the trial lacks the value: not measured, no twin, an empty reason. Every other test of what
a trial lacks is false, whichever sign it has; NaN is a value, and compares as in Python.

A setting of the whole network goes by its name. One of layers is named by a glob over layers, groups or blocks:
``layer("conv*").weight_bits``. Then the test must hold for any of them (which may also be written before it), or with
``all`` before it for all of them; where a policy decides none of them, both are false, and ``is null`` is true.
``prune.criterion`` and ``layer("*").prune.criterion`` say whose setting it is. ``true`` and ``false`` equal 1 and 0.

The text is parsed into a tree, and ``matches`` here and ``compile`` in query.py give the tree the same meaning in
Python and in SQL.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from automc.core.metrics import METRICS
from automc.core.policy import Value
from automc.core.rules import nearest
from automc.core.trial import REASONS, Trial, TrialState
from automc.stores.decisions import Places, Vocabulary, number

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
    *("samples", "twin", "fingerprint"),
)
"""Every name a filter or a sort may use, beside settings."""

ALIASES: Mapping[str, str] = {"trial": "number"}
"""Other words for the same: the views for SQL users say ``trial``, where ``number`` would be a riddle."""

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
class Begins:
    """The fingerprint begins with one of these digits."""

    starts: tuple[str, ...]
    negated: bool = False


@dataclass(frozen=True)
class Null:
    subject: Name | Places


@dataclass(frozen=True)
class Decided:
    """A test of decisions: ``sign`` is one of SIGNS with one value, or ``in`` or ``not in`` with some."""

    places: Places
    sign: str
    values: tuple[Literal, ...]


@dataclass(frozen=True)
class Not:
    inner: Filter


@dataclass(frozen=True)
class Both:
    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class Either:
    parts: tuple[Filter, ...]


Filter: TypeAlias = "Compare | Member | Begins | Null | Decided | Not | Both | Either"


def parse(text: str, known: Vocabulary | None = None) -> Filter:
    """The tree of a filter.

    Args:
        known: the decisions of the study that is asked; without them no setting of the whole network is known, and
            whatever is said of layers is taken as it comes.

    Raises:
        SpecError: the text breaks a rule of the language; the message has the column (from 1).
    """
    from automc.stores.filter_parser import read_filter

    return read_filter(text, known or Vocabulary())


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
        case Begins(starts, negated):
            return trial.policy.fingerprint.startswith(starts) != negated
        case Null(subject):
            if isinstance(subject, Places):
                return not _decisions(subject, trial)
            return value_of(subject.name, trial) in (None, "")
        case Decided(places, sign, values):
            found = [_fits(value, sign, values) for value in _decisions(places, trial)]
            return bool(found) and (all(found) if places.every else any(found))
        case Compare(left, sign, right):
            a, b = (value_of(side.name, trial) if isinstance(side, Name) else side for side in (left, right))
            return a is not None and b is not None and SIGNS[sign](a, b)


def value_of(name: str, trial: Trial) -> Literal | None:
    """What a name stands for in a trial; None where the trial lacks it."""
    if name in ("number", "rung", "twin"):
        found = getattr(trial, name)
        return None if found is None else float(found)
    if name in ("state", "reason", "fingerprint"):
        return {"state": trial.state.value, "reason": trial.reason, "fingerprint": trial.policy.fingerprint}[name]
    measured = trial.measurement
    if measured is None:
        return None
    if name in ("seconds", "samples"):
        return float(getattr(measured, name))
    return measured.errors.get(ERRORS[name]) if name in ERRORS else measured.metrics.get(name)


def hint(name: str, known: Vocabulary | None = None) -> str:
    """The nearest name, and all names, to end an error with."""
    settings = known.whole if known else []
    of = f"; settings: {', '.join(settings)}" if settings else ""
    return f"{nearest(name, [*NAMES, *settings])} (names: {', '.join(NAMES)}{of})"


def _decisions(places: Places, trial: Trial) -> Sequence[Value]:
    return [value for site, value in trial.policy.items() if places.hold(site)]


def _fits(value: Value, sign: str, values: tuple[Literal, ...]) -> bool:
    found = value if isinstance(value, str) else number(value)
    if sign in ("in", "not in"):
        return (found in values) == (sign == "in")
    if sign in ("==", "!="):
        return SIGNS[sign](found, values[0])
    return isinstance(found, float) and SIGNS[sign](found, values[0])
