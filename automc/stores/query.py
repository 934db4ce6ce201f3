"""The filter tree in SQL: the same meaning as ``filters.matches``, where NULL would otherwise make a third truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement

from automc.core.policy import Site
from automc.errors import SpecError
from automc.stores import tables as t
from automc.stores.decisions import INFINITE, WIDTH, Places, code
from automc.stores.filters import (
    ERRORS,
    SIGNS,
    Begins,
    Both,
    Compare,
    Decided,
    Either,
    Filter,
    Literal,
    Member,
    Name,
    Not,
    Null,
)
from automc.stores.paging import Key, Position

Condition = ColumnElement[bool]
Operand = ColumnElement[float] | ColumnElement[str]
Packed = ColumnElement[Any]
Layouts = Mapping[int, Sequence[Site]]
"""The sites of a study's policies, by the number that its trials carry."""

MAX_PLACES = 10_000
"""Decisions that a filter may test in SQL; databases limit what a statement may hold."""

_AT_ONCE = 200
"""Terms of one AND or OR: SQLite takes trees up to 1,000 deep, and a chain is as deep as it is long."""

_OF_TRIAL = {"fingerprint": "policy"}


class Columns:
    """What a filter's names stand for in SQL; remembers which metrics must be joined."""

    def __init__(self, layouts: Layouts | None = None) -> None:
        self._metrics: dict[str, sa.FromClause] = {}
        self._layouts = layouts or {}
        self._places = 0
        self.shown: tuple[str, ...] = ()

    def show(self, names: Sequence[str]) -> None:
        """Select these metrics, too."""
        self.shown = tuple(names)
        for name in names:
            self.metric(name)

    def selected(self) -> list[ColumnElement[Any]]:
        """Of each metric that is shown: value, kind, error and its kind."""
        found = [self.metric(name).c for name in self.shown]
        return [column for c in found for column in (c.value, c.kind, c.error, c.error_kind)]

    def value(self, name: str) -> Operand:
        """NULL where the trial lacks it or it is NaN; infinities compare as in Python."""
        if name == "samples":
            return sa.case((self.present(name), t.trial.c.samples))
        if (column := _of_trial(name)) is not None:
            return column
        metric = self.metric(name)
        if name in ERRORS:
            return _joined(metric.c.error, metric.c.error_kind)
        return _joined(metric.c.value, metric.c.kind)

    def present(self, name: str) -> Condition:
        """Whether the trial has it."""
        if name in ("seconds", "samples"):
            return t.trial.c.realized.is_not(None)
        if name == "twin":
            return t.trial.c.twin.is_not(None)
        if name in ERRORS:
            return self.metric(name).c.error_kind.is_not(None)
        return sa.true() if _of_trial(name) is not None else self.metric(name).c.name.is_not(None)

    def joined(self, base: sa.FromClause = t.trial) -> sa.FromClause:
        """The trials, or what they are joined to, with the metrics that were named."""
        found = base
        for name, metric in self._metrics.items():
            same = (metric.c.study_id == t.trial.c.study_id, metric.c.number == t.trial.c.number, metric.c.name == name)
            found = found.outerjoin(metric, sa.and_(*same))
        return found

    def decisions(self, places: Places) -> list[tuple[Condition, list[Packed]]]:
        """Of each layout that has such decisions the condition to be of it, and their packed values."""
        found: list[tuple[Condition, list[Packed]]] = []
        for layout, sites in self._layouts.items():
            at = [1 + WIDTH * place for place, site in enumerate(sites) if places.hold(site)]
            self._places += len(at)
            if self._places > MAX_PLACES:
                raise SpecError(f"filter: tests more than {MAX_PLACES:,} decisions of a policy; name fewer layers")
            if at:
                found.append((t.trial.c.layout == layout, [_packed(place) for place in at]))
        return found

    def metric(self, name: str) -> sa.FromClause:
        """The row of a metric, or of the one whose standard error this is."""
        return self._metrics.setdefault(ERRORS.get(name, name), t.metric.alias(f"m_{len(self._metrics)}"))


def number(value: float) -> ColumnElement[float]:
    """A bound parameter that stays a double beside an integer column."""
    return sa.literal(value, sa.Double)


def compile(filter: Filter, columns: Columns) -> Condition:
    """The filter as an SQL condition over ``columns.joined()``; it is never NULL.

    Raises:
        SpecError: it tests too many decisions.
    """
    match filter:
        case Not(inner):
            return sa.not_(compile(inner, columns))
        case Both(parts):
            return sa.and_(*(compile(part, columns) for part in parts))
        case Either(parts):
            return sa.or_(*(compile(part, columns) for part in parts))
        case Member(name, values, negated):
            inside = _known(columns.value(name.name).in_([_literal(value) for value in values]))
            return sa.and_(columns.present(name.name), sa.not_(inside)) if negated else inside
        case Begins(starts, negated):
            begins = sa.or_(*(sa.func.substr(t.trial.c.policy, 1, len(start)) == start for start in starts))
            return sa.not_(begins) if negated else begins
        case Null(subject):
            if isinstance(subject, Places):
                return sa.not_(sa.or_(sa.false(), *(of_layout for of_layout, _ in columns.decisions(subject))))
            return t.trial.c.reason == "" if subject.name == "reason" else sa.not_(columns.present(subject.name))
        case Decided():
            return _decided(filter, columns)
        case Compare(left, sign, right):
            return _compare(left, sign, right, columns)


def order_by(
    keys: Sequence[Key], columns: Columns, number: ColumnElement[int] = t.trial.c.number
) -> list[ColumnElement[Any]]:
    """Sort terms: each key with its missing values last, then the trial's number, which a joined table may have too."""
    terms: list[ColumnElement[Any]] = []
    for name, descending in keys:
        value = columns.value(name)
        # An index gives the order of what every trial has, where nothing else is asked for.
        terms += [] if name in ("number", "rung", "state", "reason") else [value.is_(None)]
        terms.append(value.desc() if descending else value.asc())
    return [*terms, number]


def after(
    keys: Sequence[Key], at: Position, columns: Columns, number: ColumnElement[int] = t.trial.c.number
) -> Condition:
    """Whether a trial comes behind a position in the order of ``order_by``; NULL is no."""
    further: Condition = number > at.number
    for (name, descending), reached in reversed(list(zip(keys, at.values, strict=True))):
        value: Any = columns.value(name)
        if reached is None:
            further = sa.and_(value.is_(None), further)
            continue
        bound = _literal(reached)
        beyond = value < bound if descending else value > bound
        further = sa.or_(beyond, value.is_(None), sa.and_(value == bound, further))
    return further


def _packed(place: int) -> Packed:
    """One decision of a trial; the place, from 1, is text of ours and no parameter, of which there may not be many."""
    return sa.func.substr(t.trial.c.decisions, sa.literal_column(str(place)), sa.literal_column(str(WIDTH)))


def _of_trial(name: str) -> sa.Column[Any] | None:
    return t.trial.c.get(_OF_TRIAL.get(name, name))


def _joined(value: ColumnElement[float], kind: ColumnElement[str]) -> Operand:
    return sa.case({"+inf": number(math.inf), "-inf": number(-math.inf)}, value=kind, else_=value)


def _compare(left: Name | Literal, sign: str, right: Name | Literal, columns: Columns) -> Condition:
    a, b = (columns.value(side.name) if isinstance(side, Name) else _literal(side) for side in (left, right))
    if sign != "!=":
        return _known(SIGNS[sign](a, b))
    both = [columns.present(side.name) for side in (left, right) if isinstance(side, Name)]
    return sa.and_(*both, sa.not_(_known(a == b)))


def _decided(filter: Decided, columns: Columns) -> Condition:
    """Never NULL: a trial of the layout has all of its bytes."""
    join = sa.and_ if filter.places.every else sa.or_
    kept = [
        sa.and_(of_layout, _chained(join, [_fits(value, filter) for value in packed]))
        for of_layout, packed in columns.decisions(filter.places)
    ]
    return _chained(sa.or_, [sa.false(), *kept])


def _fits(packed: Packed, filter: Decided) -> Condition:
    wanted = [sa.literal(code(value), sa.LargeBinary) for value in filter.values]
    if filter.sign in ("in", "not in"):
        return packed.in_(wanted) if filter.sign == "in" else packed.not_in(wanted)
    holds: Condition = SIGNS[filter.sign](packed, wanted[0])  # type: ignore[assignment]  # a column's own signs
    if filter.sign in (">", ">="):  # words have codes above all numbers
        return sa.and_(holds, packed <= sa.literal(INFINITE, sa.LargeBinary))
    return holds


def _chained(join: Callable[..., Condition], terms: Sequence[Condition]) -> Condition:
    """AND or OR of any number of terms, as a tree that is not deep."""
    while len(terms) > _AT_ONCE:
        groups = [terms[i : i + _AT_ONCE] for i in range(0, len(terms), _AT_ONCE)]
        terms = [sa.case((join(*group), sa.true()), else_=sa.false()) for group in groups]
    return join(*terms)


def _literal(value: Literal) -> Operand:
    return number(value) if isinstance(value, float) else sa.literal(value, sa.Text)


def _known(condition: Any) -> Condition:
    return sa.func.coalesce(condition, sa.false(), type_=sa.Boolean)
