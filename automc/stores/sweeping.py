"""What a database keeps that nothing refers to any more."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from automc.core.trial import TrialState
from automc.errors import LeaseHeld
from automc.stores import more_tables as m
from automc.stores import tables as t
from automc.stores.database import Database, read_lease

EVENT_DAYS = 90
"""So long the log of events is kept; who asks for older ones is told that they are gone."""


@dataclass(frozen=True)
class Swept:
    """What went, or would go: how many of a kind, and their bytes."""

    what: str
    count: int
    size_bytes: int


@dataclass(frozen=True)
class _Kind:
    """Rows that nobody needs; ``emptied``: only this column of them is made empty."""

    what: str
    table: sa.Table
    size: sa.ColumnElement[str] | sa.ColumnElement[bytes]
    idle: sa.ColumnElement[bool]
    emptied: str = ""


def _kinds() -> list[_Kind]:
    p, a, s = t.policy.c, m.attempt.c, t.agent_state.c
    told = sa.exists().where(
        t.trial.c.study_id == a.study_id, t.trial.c.number == a.number, t.trial.c.state == TrialState.COMPLETE.value
    )
    revised = sa.exists().where(t.study.c.id == s.study_id, t.study.c.revision > s.revision)
    return [
        _Kind("policies of no trial", t.policy, p.json, ~sa.exists().where(t.trial.c.policy == p.fingerprint)),
        _Kind("logs of attempts of complete trials", m.attempt, a.log, sa.and_(a.log != "", told), "log"),
        _Kind("memories of proposers of earlier revisions", t.agent_state, s.state, revised),
        _Kind(f"events older than {EVENT_DAYS} days", t.event, t.event.c.text, t.event.c.at < _days_ago(EVENT_DAYS)),
    ]


class Sweeper(Database):
    """A database that is rid of what nothing refers to."""

    def sweep(self, dry: bool) -> list[Swept]:
        """Delete it, or, if ``dry``, only count it.

        Raises:
            LeaseHeld: somebody searches, and may be about to refer to it.
        """
        with self._reading() if dry else self._changing() as connection:
            if not dry:
                _undriven(connection, self._now(connection))
            return [_swept(connection, kind, dry) for kind in _kinds()]

    def shrink(self) -> None:
        """Give the freed pages of a SQLite file back to the disk; a PostgreSQL server does so itself."""
        if self._engine.dialect.name == "sqlite":
            connection = self._engine.raw_connection()
            try:
                connection.cursor().execute("VACUUM")
            finally:
                connection.close()


def _undriven(connection: sa.Connection, now: float) -> None:
    for study_id, name in connection.execute(sa.select(t.study.c.id, t.study.c.name)).all():
        held = read_lease(connection, study_id)
        if held is not None and held.alive(now):
            raise LeaseHeld(
                f"study {name!r} is driven by pid {held.pid} on host {held.host}: gc waits until nobody searches; "
                "--dry-run says what would go"
            )


def _swept(connection: sa.Connection, kind: _Kind, dry: bool) -> Swept:
    amounts = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(sa.func.length(kind.size)), 0))
    count, size = connection.execute(amounts.select_from(kind.table).where(kind.idle)).one()
    if count and not dry:
        if kind.emptied:
            connection.execute(kind.table.update().where(kind.idle).values({kind.emptied: ""}))
        else:
            connection.execute(kind.table.delete().where(kind.idle))
    return Swept(kind.what, count, int(size))


def _days_ago(days: int) -> str:
    """A time as the tables have it."""
    return (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
