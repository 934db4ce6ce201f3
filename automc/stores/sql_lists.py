"""Questions to the trials in SQL: trials for which a filter holds, and lists of them page by page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import sqlalchemy as sa

from automc.core.trial import Trial
from automc.stores import tables as t
from automc.stores.codec import join, split
from automc.stores.database import Database
from automc.stores.filters import ERRORS, parse
from automc.stores.layouts import read_layouts, vocabulary
from automc.stores.paging import (
    Key,
    Listing,
    Page,
    Position,
    Row,
    check_limit,
    cut,
    known,
    measures,
    read_cursor,
    sort_keys,
    whole,
)
from automc.stores.query import Columns, Condition, after, compile, order_by
from automc.stores.rows import COLUMNS, as_read, read_metrics, read_trials
from automc.stores.select import Answer, Caps, select

_OWN = (
    *(t.trial.c[name] for name in ("number", "state", "rung", "reason")),
    t.trial.c.realized.is_not(None),
    *(t.trial.c[name] for name in ("seconds", "samples", "twin", "policy")),
)
_KINDS = ("-inf", "finite", "+inf")
"""Of metrics, in their order; NaN has none."""


class ListTables(Database):
    """``query``, ``page`` and ``select`` of a TrialDatabase."""

    def query(self, study: str, where: str = "", sort: Sequence[str] = (), limit: int | None = None) -> Sequence[Trial]:
        check_limit(limit)
        keys = sort_keys(sort)
        with self._read(study) as (connection, study_id):
            columns, condition = _asked(connection, study_id, where)
            order = order_by(keys, columns)
            found = sa.select(*COLUMNS).select_from(columns.joined()).where(t.trial.c.study_id == study_id, condition)
            return read_trials(connection, study_id, found.order_by(*order).limit(limit))

    def page(self, study: str, listing: Listing) -> Page:
        check_limit(listing.limit)
        keys = sort_keys(listing.sort)
        at, wanted = read_cursor(listing.after, keys), measures(listing, keys)
        with self._read(study) as (connection, study_id):
            columns, condition = _asked(connection, study_id, listing.where)
            if listing.columns and listing.limit is None:
                return Page(_narrow(connection, (study_id, columns, condition), listing.columns, keys, at))
            if wanted and listing.limit is None:  # of a few trials the metrics are looked up when they are known
                columns.show(wanted)
            found: list[Any] = []
            for statement in _parts(study_id, columns, condition, keys, at):
                left = None if listing.limit is None else listing.limit + 1 - len(found)
                found += connection.execute(statement.limit(left)).all() if left != 0 else []
            metrics = _shown(found, columns.shown) if columns.shown else _looked_up(connection, study_id, found, wanted)
            return cut(_rows(found, metrics), listing, keys)

    def select(self, text: str, caps: Caps) -> Answer:
        return select(self._engine.url, text, caps)


def _narrow(
    connection: sa.Connection,
    asked: tuple[int, Columns, Condition],
    names: Sequence[str],
    keys: list[Key],
    at: Position | None,
) -> list[Row]:
    """All rows of a list with a few columns: nothing else is read, which an index often has."""
    study_id, columns, condition = asked
    own = [cell for name in names for cell in _cell(columns, known("columns", name))]
    found: list[Any] = []
    for statement in _parts(study_id, columns, condition, keys, at, own):
        found += as_read(connection.execute(statement))
    cells = list(zip(*found, strict=True))
    values = [map(_value, *cells[place : place + 2]) for place in range(0, len(cells), 2)]
    return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def _cell(columns: Columns, name: str) -> tuple[Any, Any]:
    """The value of a name, and what kind of number it is: "" where it is as it is stored, None where it is lacking."""
    if name in ERRORS or not (name in t.trial.c or name == "fingerprint"):
        metric = columns.metric(name)
        return (metric.c.error, metric.c.error_kind) if name in ERRORS else (metric.c.value, metric.c.kind)
    if name == "seconds":
        return t.trial.c.seconds, sa.case((columns.present(name), "nan"))
    return columns.value(name), sa.literal("")


def _value(value: Any, kind: str | None) -> Any:
    return value if value is not None or not kind else float(kind)


def _asked(connection: sa.Connection, study_id: int, where: str) -> tuple[Columns, Condition]:
    """What the names of a filter stand for in this study, and the filter."""
    layouts = read_layouts(connection, study_id)
    columns = Columns(layouts)
    if not where.strip():
        return columns, sa.true()
    return columns, compile(parse(where, vocabulary(connection, study_id, layouts)), columns)


def _parts(
    study_id: int,
    columns: Columns,
    condition: Condition,
    keys: list[Key],
    at: Position | None,
    own: Sequence[Any] = (),
) -> Iterator[sa.Select[Any]]:
    """Statements whose rows, one behind the other, are the list.

    Where it is sorted by a metric first, there is one for each kind of number, so that the index of metrics gives the
    rows in their order and the first few cost no more than a few.
    """
    cells = own or (*_OWN, *columns.selected())
    if not keys or keys[0][0] in t.trial.c or keys[0][0] in (*ERRORS, "fingerprint"):
        terms = [] if at is None else [after(keys, at, columns)]
        order = order_by(keys, columns)
        found = sa.select(*cells).select_from(columns.joined()).where(t.trial.c.study_id == study_id, condition, *terms)
        yield found.order_by(*order)
        return
    (name, descending), rest = keys[0], keys[1:]
    value, behind = (None, None) if at is None else (at.values[0], Position(at.values[1:], at.number))
    kinds = _KINDS[::-1] if descending else _KINDS
    reached = None if at is None else "missing" if value is None else split(float(value))[1]
    for kind in kinds[kinds.index(reached) if reached in kinds else len(kinds) if reached else 0 :]:
        m = t.metric.alias("sorted")
        tail = order_by(rest, columns, m.c.number)
        terms = [m.c.study_id == study_id, m.c.name == name, m.c.kind == kind]
        order = [m.c.value.desc() if descending else m.c.value.asc()]  # of infinities too: so goes the index
        if kind == reached and behind is not None:
            further = after(rest, behind, columns, m.c.number)
            terms += _beyond(m.c.value, float(value or 0.0), descending, further) if kind == "finite" else [further]
        base = m.join(t.trial, sa.and_(t.trial.c.study_id == m.c.study_id, t.trial.c.number == m.c.number))
        source = sa.select(*cells).select_from(columns.joined(base))
        yield source.where(t.trial.c.study_id == study_id, condition, *terms).order_by(*order, *tail)
    m = t.metric.alias("lacking")
    same = (m.c.study_id == study_id, m.c.number == t.trial.c.number, m.c.name == name, m.c.kind != "nan")
    terms = [~sa.exists().where(*same)]
    if reached == "missing" and behind is not None:
        terms.append(after(rest, behind, columns))
    source = sa.select(*cells).select_from(columns.joined())
    yield source.where(t.trial.c.study_id == study_id, condition, *terms).order_by(*order_by(rest, columns))


def _beyond(value: Any, reached: float, descending: bool, further: Condition) -> list[Condition]:
    """Values from the one reached on; the first term, alone, tells an index where to begin."""
    if descending:
        return [value <= reached, sa.or_(value < reached, further)]
    return [value >= reached, sa.or_(value > reached, further)]


Metrics: TypeAlias = Mapping[int, tuple[dict[str, float], dict[str, float]]]
"""By number of the trial its metrics and their errors."""


def _looked_up(connection: sa.Connection, study_id: int, found: list[Any], wanted: list[str] | None) -> Metrics:
    measured = [row[0] for row in found if row[4]]
    return read_metrics(connection, study_id, measured, wanted) if measured and wanted != [] else {}


def _shown(found: list[Any], names: Sequence[str]) -> Metrics:
    """Of rows that have them behind what every trial has."""
    metrics: dict[int, tuple[dict[str, float], dict[str, float]]] = {}
    for number, *row in found:
        values: dict[str, float] = {}
        errors: dict[str, float] = {}
        for at, name in enumerate(names):
            value, kind, error, error_kind = row[len(_OWN) - 1 + 4 * at :][:4]
            if kind is not None:
                values[name] = join(value, kind)
            if error_kind is not None:
                errors[name] = join(error, error_kind)
        metrics[number] = (values, errors)
    return metrics


def _rows(found: list[Any], metrics: Metrics) -> list[Row]:
    rows = []
    for number, state, rung, reason, is_measured, seconds, samples, twin, fingerprint, *_ in found:
        words = {"state": state, "reason": reason, "fingerprint": fingerprint}
        own, errors = metrics.get(number, ({}, {}))
        known = (math.nan if seconds is None else seconds, own, errors, samples if is_measured else None)
        rows.append(whole(number, rung, words, *known, twin))
    return rows
