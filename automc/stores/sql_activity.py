"""What happens in a study now, in SQL: who runs what, and how fast trials finish."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from automc.stores import more_tables as m
from automc.stores import tables as t
from automc.stores.database import Database


class Run(NamedTuple):
    """An attempt without what it said. ``started``, ``finished``: UTC, ISO 8601, None where not known."""

    number: int
    attempt: int
    state: str
    reason: str
    host: str
    pid: int | None
    started: str | None
    finished: str | None


class Pace(NamedTuple):
    """When the trial finished that was the ``place``-th to do so (UTC, ISO 8601)."""

    place: int
    at: str


class ActivityTables(Database):
    """Reads of what is going on; each costs little also in a study of a hundred thousand trials."""

    def latest_runs(self, study: str, limit: int) -> Sequence[Run]:
        """Attempts of the newest trials, oldest first. Raises UnknownStudy."""
        c = m.attempt.c
        with self._read(study) as (connection, study_id):
            wanted = sa.select(*(c[name] for name in Run._fields)).where(c.study_id == study_id, sa.not_(c.late))
            rows = connection.execute(wanted.order_by(c.number.desc(), c.attempt.desc()).limit(limit)).all()
        return [Run(*row) for row in reversed(rows)]

    def pace(self, study: str, points: int) -> Sequence[Pace]:
        """When trials finished, at so many places at most, evenly chosen, the first and the last among them.

        Raises:
            UnknownStudy.
        """
        c = t.trial.c
        with self._read(study) as (connection, study_id):
            mine = c.study_id == study_id
            last = connection.execute(sa.select(sa.func.max(c.place)).where(mine)).scalar() or 0
            count = min(points, last)
            places = {1 + round(i * (last - 1) / max(count - 1, 1)) for i in range(count)}
            wanted = sa.select(c.place, c.finished).where(mine, c.place.in_(places), c.finished.is_not(None))
            return [Pace(*row) for row in connection.execute(wanted.order_by(c.place))]
