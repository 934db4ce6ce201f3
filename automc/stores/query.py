"""The filter tree in SQL: the same meaning as ``filters.matches``, where NULL would otherwise make a third truth."""

from __future__ import annotations

import math
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement

from automc.stores import tables as t
from automc.stores.filters import ERRORS, SIGNS, Both, Compare, Either, Filter, Literal, Member, Name, Not

Condition = ColumnElement[bool]
Operand = ColumnElement[float] | ColumnElement[str]


class Columns:
    """What a filter's names stand for in SQL; remembers which metrics must be joined."""

    def __init__(self) -> None:
        self._metrics: dict[str, sa.FromClause] = {}

    def value(self, name: str) -> Operand:
        """NULL where the trial lacks it or it is NaN; infinities compare as in Python."""
        if name == "samples":
            return sa.case((self.present(name), t.trial.c.samples))
        if name in t.trial.c:
            return t.trial.c[name]
        metric, infinite = self._metric(name), {"+inf": number(math.inf), "-inf": number(-math.inf)}
        if name in ERRORS:
            return sa.case(infinite, value=metric.c.error_kind, else_=metric.c.error)
        return sa.case(infinite, value=metric.c.kind, else_=metric.c.value)

    def present(self, name: str) -> Condition:
        if name in ("seconds", "samples"):
            return t.trial.c.realized.is_not(None)
        if name in ERRORS:
            return self._metric(name).c.error_kind.is_not(None)
        return sa.true() if name in t.trial.c else self._metric(name).c.name.is_not(None)

    def joined(self) -> sa.FromClause:
        """The trials with the metrics that were named."""
        found: sa.FromClause = t.trial
        for name, metric in self._metrics.items():
            same = (metric.c.study_id == t.trial.c.study_id, metric.c.number == t.trial.c.number, metric.c.name == name)
            found = found.outerjoin(metric, sa.and_(*same))
        return found

    def _metric(self, name: str) -> sa.FromClause:
        """The row of a metric, or of the one whose standard error this is."""
        return self._metrics.setdefault(ERRORS.get(name, name), t.metric.alias(f"m_{len(self._metrics)}"))


def number(value: float) -> ColumnElement[float]:
    """A bound parameter that stays a double beside an integer column."""
    return sa.literal(value, sa.Double)


def compile(filter: Filter, columns: Columns) -> Condition:
    """The filter as an SQL condition over ``columns.joined()``; it is never NULL."""
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
        case Compare(left, sign, right):
            return _compare(left, sign, right, columns)


def order_by(keys: list[tuple[str, bool]], columns: Columns) -> list[ColumnElement[Any]]:
    """Sort terms: each key with its missing values last, then the trial's number."""
    terms: list[ColumnElement[Any]] = []
    for name, descending in keys:
        value = columns.value(name)
        terms += [value.is_(None), value.desc() if descending else value.asc()]
    return [*terms, t.trial.c.number]


def _compare(left: Name | Literal, sign: str, right: Name | Literal, columns: Columns) -> Condition:
    a, b = (columns.value(side.name) if isinstance(side, Name) else _literal(side) for side in (left, right))
    if sign != "!=":
        return _known(SIGNS[sign](a, b))
    both = [columns.present(side.name) for side in (left, right) if isinstance(side, Name)]
    return sa.and_(*both, sa.not_(_known(a == b)))


def _literal(value: Literal) -> Operand:
    return number(value) if isinstance(value, float) else sa.literal(value, sa.Text)


def _known(condition: Any) -> Condition:
    return sa.func.coalesce(condition, sa.false(), type_=sa.Boolean)
