"""Studies in SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from automc.core.store import StudySummary
from automc.core.study import StudySpec
from automc.core.trial import TrialState
from automc.stores import steps
from automc.stores import tables as t
from automc.stores.codec import dumps, loads, now_text, read_spec
from automc.stores.database import Database, log, upsert
from automc.stores.network import keep_network

_CURRENT = sa.and_(t.revision.c.study_id == t.study.c.id, t.revision.c.revision == t.study.c.revision)


class StudyTables(Database):
    """A StudyStore."""

    def create(self, spec: StudySpec, facts: Mapping[str, Any]) -> None:
        row = {"name": spec.name, "revision": spec.revision, "facts": dumps(facts), "created": now_text()}
        with self._changing() as connection:
            study_id = connection.execute(upsert(connection, t.study, row).returning(t.study.c.id)).scalar()
            if study_id is None:
                raise steps.study_exists(spec.name)
            _put(connection, study_id, spec)
            keep_network(connection, study_id, spec, facts)
            log(connection, study_id, "create", f"study {spec.name}")
            self._created(connection, study_id)

    def _created(self, connection: sa.Connection, study_id: int) -> None:
        """What else belongs to the transaction that creates a study."""

    def revise(self, spec: StudySpec, facts: Mapping[str, Any] | None = None) -> None:
        changed = {"revision": spec.revision} | ({} if facts is None else {"facts": dumps(facts)})
        with self._write(spec.name) as (connection, study_id):
            mine = t.study.c.id == study_id
            steps.check_revision(connection.execute(sa.select(t.study.c.revision).where(mine)).scalar_one(), spec)
            connection.execute(t.study.update().where(mine).values(changed))
            _put(connection, study_id, spec)
            keep_network(connection, study_id, spec, facts or {})
            log(connection, study_id, "revise", f"revision {spec.revision}")

    def spec(self, study: str) -> StudySpec:
        with self._read(study) as (connection, study_id):
            statement = sa.select(t.revision.c.spec).join(t.study, _CURRENT).where(t.study.c.id == study_id)
            return read_spec(study, connection.execute(statement).scalar_one())

    def revisions(self, study: str) -> Sequence[StudySpec]:
        r = t.revision.c
        with self._read(study) as (connection, study_id):
            statement = sa.select(r.spec).where(r.study_id == study_id).order_by(r.revision)
            return [read_spec(study, text) for text in connection.execute(statement).scalars()]

    def facts(self, study: str) -> Mapping[str, Any]:
        with self._read(study) as (connection, study_id):
            text = connection.execute(sa.select(t.study.c.facts).where(t.study.c.id == study_id)).scalar_one()
        found: Mapping[str, Any] = loads(text)
        return found

    def studies(self) -> Sequence[StudySummary]:
        s, trial = t.study.c, t.trial.c
        listed = sa.select(s.id, s.name, s.created, t.revision.c.spec).join(t.revision, _CURRENT)
        listed = listed.where(s.deleted.is_(None)).order_by(s.id)
        counted = sa.select(trial.study_id, trial.state, sa.func.count()).group_by(trial.study_id, trial.state)
        with self._reading() as connection:
            rows = connection.execute(listed).all()
            counts = {(study_id, state): count for study_id, state, count in connection.execute(counted)}
        return [
            StudySummary(read_spec(name, spec), {x: counts.get((key, x.value), 0) for x in TrialState}, created)
            for key, name, created, spec in rows
        ]


def _put(connection: sa.Connection, study_id: int, spec: StudySpec) -> None:
    row = {"study_id": study_id, "revision": spec.revision, "spec": dumps(spec.to_data()), "created": now_text()}
    connection.execute(t.revision.insert().values(row))
