"""Operations that take long (exports), and the log of events, in SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sqlalchemy as sa

from automc.errors import StoreError
from automc.stores import more_tables as m
from automc.stores import service_tables as v
from automc.stores import tables as t
from automc.stores.codec import dumps, loads, now_text
from automc.stores.database import Database
from automc.stores.rows import standing


@dataclass(frozen=True)
class Operation:
    """An export that was asked for.

    Attributes:
        state: queued, running, done or failed. result: plain data when done, or when files broke a promise.
        said: why it failed.
        created, finished: UTC, ISO 8601.
    """

    id: str
    study: str
    number: int
    formats: Sequence[str]
    state: str = "queued"
    result: Mapping[str, Any] = field(default_factory=dict)
    said: str = ""
    created: str = ""
    finished: str | None = None


class Event(NamedTuple):
    """A line of a study's log; ``number`` is of the trial, None where it is of the study."""

    id: int
    at: str
    kind: str
    number: int | None
    text: str


class OperationTables(Database):
    """Operations and events."""

    def begin_operation(self, operation: Operation) -> None:
        """Add one, queued. Raises UnknownStudy, UnknownTrial."""
        with self._lock(operation.study) as (connection, study_id):
            standing(connection, operation.study, study_id, operation.number)
            row = {"id": operation.id, "study_id": study_id, "number": operation.number, "state": "queued"}
            row |= {"formats": dumps(list(operation.formats)), "created": now_text()}
            connection.execute(v.operation.insert().values(row))

    def change_operation(self, id: str, state: str, result: Mapping[str, Any] | None = None, said: str = "") -> None:
        """Go on with one."""
        done = {"finished": now_text()} if state in ("done", "failed") else {}
        row = {"state": state, "result": dumps(result) if result else "", "said": said, **done}
        with self._changing() as connection:
            connection.execute(v.operation.update().where(v.operation.c.id == id).values(row))

    def operation(self, id: str) -> Operation:
        """One by its id. Raises StoreError."""
        found = self._operations(v.operation.c.id == id)
        if not found:
            raise StoreError(f"no operation {id!r}")
        return found[0]

    def operations(self, *states: str) -> Sequence[Operation]:
        """Those in these states, oldest first."""
        return self._operations(v.operation.c.state.in_(states))

    def _operations(self, wanted: sa.ColumnElement[bool]) -> list[Operation]:
        c, names = v.operation.c, ("id", "number", "formats", "state", "result", "said", "created", "finished")
        found = sa.select(t.study.c.name.label("study"), *(c[name] for name in names)).join(
            t.study, t.study.c.id == c.study_id
        )
        with self._reading() as connection:
            rows = connection.execute(found.where(wanted).order_by(c.created, c.id)).mappings().all()
        plain = ({**row, "formats": loads(row["formats"]), "result": loads(row["result"] or "{}")} for row in rows)
        return [Operation(**row) for row in plain]

    def has_artifact(self, sha256: str) -> tuple[str, str] | None:
        """Study and file name of an artifact of a study that is there."""
        c = m.artifact.c
        joined = sa.select(t.study.c.name, c.file).join(t.study, t.study.c.id == c.study_id)
        with self._reading() as connection:
            row = connection.execute(joined.where(c.sha256 == sha256, t.study.c.deleted.is_(None)).limit(1)).first()
        return (row[0], row[1]) if row else None

    def events(self, study: str, after: int, limit: int) -> Sequence[Event]:
        """What happened behind an event, oldest first. Raises UnknownStudy."""
        c = t.event.c
        columns = [c[name] for name in Event._fields]
        with self._read(study) as (connection, study_id):
            wanted = sa.select(*columns).where(c.study_id == study_id, c.id > after).order_by(c.id).limit(limit)
            return [Event(*row) for row in connection.execute(wanted)]

    def knows_event(self, study: str, id: int) -> bool:
        """Whether a study's log has it; one that was there is not, once the log was cut. Raises UnknownStudy."""
        c = t.event.c
        with self._read(study) as (connection, study_id):
            wanted = sa.select(sa.func.count()).where(c.study_id == study_id, c.id == id)
            return bool(connection.execute(wanted).scalar_one())

    def last_events(self, studies: Sequence[str] | None = None) -> Mapping[str, tuple[int, str]]:
        """Id and time of the newest event by study: of these studies, or of all that are there."""
        c = t.event.c
        chosen = sa.select(t.study.c.id, t.study.c.name).where(t.study.c.deleted.is_(None))
        if studies is not None:
            chosen = chosen.where(t.study.c.name.in_(studies))
        there = chosen.subquery()
        last = sa.select(sa.func.max(c.id)).where(c.study_id == there.c.id).correlate(there).scalar_subquery()
        found = sa.select(there.c.name, c.id, c.at).select_from(there.join(t.event, c.id == last))
        with self._reading() as connection:
            return {name: (id, at) for name, id, at in connection.execute(found)}
