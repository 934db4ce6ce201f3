"""Whether a database is whole: what its files, its policies, its numbers and its trials promise each other."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from automc.core.policy import Policy
from automc.core.trial import EXCLUDED, TrialState
from automc.errors import SpecError, StoreError
from automc.stores import more_tables as m
from automc.stores import tables as t
from automc.stores.codec import loads, read_spec
from automc.stores.decisions import packed
from automc.stores.layouts import read_layouts

_AT_ONCE = 1_000
_FINISHED = [state.value for state in TrialState if state.finished]


def faults(connection: sa.Connection) -> Iterator[str]:
    """One line a fault of a database of the present schema; none where it is whole. Fronts are looked at elsewhere."""
    found = False
    for line in _file(connection):
        found = True
        yield line
    if found:
        return  # what a damaged file says of its content means nothing
    studies = connection.execute(sa.select(t.study.c.id, t.study.c.name).order_by(t.study.c.id)).all()
    yield from _policies(connection)
    for study_id, name in studies:
        yield from _study(connection, study_id, name)
        yield from _numbers(connection, study_id, name)
        yield from _trials(connection, study_id, name)
        yield from _decisions(connection, study_id, name)


def _file(connection: sa.Connection) -> Iterator[str]:
    """What SQLite finds; a PostgreSQL server holds its keys itself."""
    if connection.dialect.name != "sqlite":
        return
    for (line,) in connection.exec_driver_sql("PRAGMA integrity_check(20)"):
        if line != "ok":
            yield f"the file is damaged: {line}"
    lacking = Counter((row[0], row[2]) for row in connection.exec_driver_sql("PRAGMA foreign_key_check"))
    for (table, parent), count in lacking.items():
        yield f"{table}: {count} rows without their {parent}"


def _policies(connection: sa.Connection) -> Iterator[str]:
    p = t.policy.c
    for fingerprint, text in _streamed(connection, sa.select(p.fingerprint, p.json).order_by(p.fingerprint)):
        if hashlib.sha256(text.encode()).hexdigest() != fingerprint:
            yield f"policy {fingerprint}: is not the policy of that fingerprint"
            continue
        try:
            canonical = Policy.from_json(text).to_json()
        except (SpecError, TypeError) as error:
            yield f"policy {fingerprint}: cannot be read: {error}"
            continue
        if canonical != text:
            yield f"policy {fingerprint}: is not written canonically"


def _study(connection: sa.Connection, study_id: int, name: str) -> Iterator[str]:
    r, where = t.revision.c, f"study {name!r}"
    last, facts = connection.execute(
        sa.select(t.study.c.revision, t.study.c.facts).where(t.study.c.id == study_id)
    ).one()
    rows = connection.execute(sa.select(r.revision, r.spec).where(r.study_id == study_id).order_by(r.revision)).all()
    if [row.revision for row in rows] != list(range(last - len(rows) + 1, last + 1)) or not rows:
        yield f"{where}: has the revisions {[row.revision for row in rows]}, and {last} is in force"
    for revision, text in rows:
        try:
            spec = read_spec(name, text)
        except StoreError as error:
            yield f"{error} (revision {revision})"
            continue
        if (spec.name, spec.revision) != (name, revision):
            yield f"{where}: revision {revision} says it is revision {spec.revision} of {spec.name!r}"
    try:
        if not isinstance(loads(facts), dict):
            yield f"{where}: its facts are no mapping"
    except (ValueError, RecursionError) as error:
        yield f"{where}: its facts cannot be read: {error}"


def _numbers(connection: sa.Connection, study_id: int, name: str) -> Iterator[str]:
    """Numbers from 0 and places from 1, each without gaps; a place for each finished trial and for no other."""
    c = t.trial.c
    finished = c.state.in_(_FINISHED)
    amounts = sa.select(
        sa.func.count(),
        sa.func.min(c.number),
        sa.func.max(c.number),
        sa.func.count().filter(finished),
        sa.func.count(c.place).filter(finished),
        sa.func.count(c.place),
        sa.func.min(c.place),
        sa.func.max(c.place),
    )
    found: Any = connection.execute(amounts.where(c.study_id == study_id)).one()
    count, low, high, done, placed, places, first, last = found
    if count and (low, high) != (0, count - 1):
        yield f"study {name!r}: has {count} trials, numbered {low} to {high}"
    if not done == placed == places:
        yield f"study {name!r}: has {done} finished trials, and {places} places in the order of finishing"
    elif done and (first, last) != (1, done):
        yield f"study {name!r}: its {done} finished trials have the places {first} to {last}"


def _trials(connection: sa.Connection, study_id: int, name: str) -> Iterator[str]:
    c, a, twin = t.trial.c, m.attempt.c, t.trial.alias("twin")
    run = sa.exists().where(a.study_id == c.study_id, a.number == c.number, a.attempt == c.attempts)
    answered = sa.exists().where(
        twin.c.study_id == c.study_id, twin.c.number == c.twin, twin.c.number < c.number, twin.c.realized.is_not(None)
    )
    measured = sa.exists().where(t.metric.c.study_id == c.study_id, t.metric.c.number == c.number)
    done, complete = c.state.in_(_FINISHED), c.state == TrialState.COMPLETE.value
    rules = {
        "was started, and has no attempt": (c.attempts > 0, ~run),
        "is finished, and has neither attempt nor twin": (
            done,
            c.attempts == 0,
            c.twin.is_(None),
            c.reason != EXCLUDED,
        ),
        "is answered by a twin that was not measured before it": (c.twin.is_not(None), ~answered),
        "is complete, and has no measurement": (complete, sa.or_(c.realized.is_(None), ~measured)),
        "has metrics, and no measurement": (c.realized.is_(None), measured),
    }
    for said, terms in rules.items():
        for number in connection.execute(sa.select(c.number).where(c.study_id == study_id, *terms).order_by(c.number)):
            yield f"trial {name}/{number[0]}: {said}"


def _decisions(connection: sa.Connection, study_id: int, name: str) -> Iterator[str]:
    """What filters see of a policy is the policy."""
    c, p = t.trial.c, t.policy.c
    layouts = read_layouts(connection, study_id)
    rows = sa.select(c.number, c.layout, c.decisions, p.json).join(t.policy, p.fingerprint == c.policy)
    for number, layout, decisions, text in _streamed(connection, rows.where(c.study_id == study_id).order_by(c.number)):
        try:
            policy = Policy.from_json(text)
        except (SpecError, TypeError):
            continue  # said already
        if layouts.get(layout) != list(policy) or bytes(decisions or b"") != packed(policy):
            yield f"trial {name}/{number}: its packed decisions are not those of its policy"


def _streamed(connection: sa.Connection, statement: sa.Select[Any]) -> Iterator[Any]:
    return iter(connection.execute(statement.execution_options(yield_per=_AT_ONCE)))
