"""The history of studies in SQL: attempts, the order of finishing, the front's changes, files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from automc.core.history import Artifact, Attempt, FrontChange
from automc.core.metrics import Measurement
from automc.stores import attempts, steps
from automc.stores import more_tables as m
from automc.stores import tables as t
from automc.stores.codec import dumps, loads, now_text
from automc.stores.database import Database, log, upsert, upserting
from automc.stores.rows import COLUMNS, add_metrics, last_place, read_trials, standing


class HistoryTables(Database):
    """A HistoryStore."""

    def attempts(self, study: str, number: int | None = None) -> Sequence[Attempt]:
        with self._read(study) as (connection, study_id):
            return attempts.read(connection, study_id, number)

    def finishing(self, study: str) -> Sequence[int]:
        c = t.trial.c
        with self._read(study) as (connection, study_id):
            wanted = sa.select(c.number).where(c.study_id == study_id, c.place.is_not(None)).order_by(c.place)
            return connection.execute(wanted).scalars().all()

    def front_changes(self, study: str) -> Sequence[FrontChange]:
        c = m.front_change.c
        with self._read(study) as (connection, study_id):
            wanted = sa.select(c.place, c.number, c.entered).where(c.study_id == study_id)
            return [FrontChange(*row) for row in connection.execute(wanted.order_by(c.place, c.number))]

    def keep_front(self, study: str, changes: Mapping[int, bool]) -> None:
        with self._write(study) as (connection, study_id):
            keep_changes(connection, study_id, changes)
            log(connection, study_id, "front", f"corrected: {len(changes)} changes")

    def add_metrics(self, study: str, found: Mapping[int, Measurement]) -> None:
        with self._write(study) as (connection, study_id):
            for number, new in found.items():
                standing(connection, study, study_id, number)
                c = t.trial.c
                mine = sa.select(*COLUMNS).where(c.study_id == study_id, c.number == number)
                steps.with_added(study, number, read_trials(connection, study_id, mine)[0].measurement, new)
                add_metrics(connection, study_id, number, new)
                log(connection, study_id, "backfill", steps.added(new), number)

    def keep_artifact(self, study: str, artifact: Artifact) -> None:
        names = ("number", "sha256", "format", "file", "size_bytes")
        row = {name: getattr(artifact, name) for name in names}
        with self._lock(study) as (connection, study_id):
            standing(connection, study, study_id, artifact.number)
            row |= {"study_id": study_id, "proof": dumps(artifact.proof), "created": now_text()}
            connection.execute(
                upsert(connection, m.artifact, row, ("format", "file", "size_bytes", "proof", "created"))
            )
            log(connection, study_id, "export", f"{artifact.file}: {artifact.sha256}", artifact.number)

    def artifacts(self, study: str, number: int | None = None) -> Sequence[Artifact]:
        c = m.artifact.c
        wanted = [c[name] for name in Artifact.__dataclass_fields__]
        with self._read(study) as (connection, study_id):
            found = sa.select(*wanted).where(
                c.study_id == study_id, sa.true() if number is None else c.number == number
            )
            rows = connection.execute(found.order_by(c.number, c.file, c.created)).mappings().all()
        return [Artifact(**{**row, "proof": loads(row["proof"])}) for row in rows]


def keep_changes(connection: sa.Connection, study_id: int, changes: Mapping[int, bool]) -> None:
    """Who entered the front (True), and who left it, at the last place."""
    place = last_place(connection, study_id)
    rows = [{"study_id": study_id, "place": place, "number": n, "entered": entered} for n, entered in changes.items()]
    if rows:
        connection.execute(upserting(connection.dialect.name, m.front_change, ("entered",)), rows)
