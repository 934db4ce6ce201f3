"""What proposers remember, in SQL."""

from __future__ import annotations

import sqlalchemy as sa

from automc.stores import tables as t
from automc.stores.codec import now_text
from automc.stores.database import Database, upsert


class AgentTable(Database):
    """An AgentStore. Memories of older revisions stay, for people: nothing reads them again."""

    def keep_memory(self, study: str, told: int, state: bytes) -> None:
        with self._write(study) as (connection, study_id):
            revision = connection.execute(_revision(study_id)).scalar_one()
            row = {"study_id": study_id, "revision": revision, "told": told, "state": state, "kept": now_text()}
            connection.execute(upsert(connection, t.agent_state, row, replaced=("told", "state", "kept")))

    def memory(self, study: str) -> tuple[int, bytes] | None:
        c = t.agent_state.c
        with self._read(study) as (connection, study_id):
            mine = sa.and_(c.study_id == study_id, c.revision == _revision(study_id).scalar_subquery())
            row = connection.execute(sa.select(c.told, c.state).where(mine)).one_or_none()
        return None if row is None else (row.told, bytes(row.state))


def _revision(study_id: int) -> sa.Select[tuple[int]]:
    return sa.select(t.study.c.revision).where(t.study.c.id == study_id)
