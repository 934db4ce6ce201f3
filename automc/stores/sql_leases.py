"""Leases in SQL."""

from __future__ import annotations

from dataclasses import asdict, replace

import sqlalchemy as sa

from automc.core.ports import Owner
from automc.stores import tables as t
from automc.stores.database import Database, log, read_lease
from automc.stores.owners import Holder, still_mine, taken


class LeaseTables(Database):
    """A LeaseStore."""

    def take(self, study: str, owner: Owner) -> None:
        with self._lock(study) as (connection, study_id):
            old = read_lease(connection, study_id)
            held = taken(study, old, owner, self._token, self._clock())
            if old is None:
                connection.execute(t.lease.insert().values(study_id=study_id, **asdict(held)))
            else:
                _keep(connection, study_id, held)
            log(connection, study_id, "take", f"fence {held.fence}: pid {owner.pid} on host {owner.host}")
        self._fences[study] = held.fence

    def renew(self, study: str) -> None:
        with self._lock(study) as (connection, study_id):
            held = still_mine(study, read_lease(connection, study_id), self._fences.get(study))
            _keep(connection, study_id, replace(held, renewed=self._clock()))

    def release(self, study: str) -> None:
        fence = self._fences.get(study)
        if fence is None:
            return
        with self._lock(study) as (connection, study_id):
            held = read_lease(connection, study_id)
            if held is not None and held.fence == fence:
                _keep(connection, study_id, replace(held, token=None, stop_asked=False))
                log(connection, study_id, "release", f"fence {fence}")
        del self._fences[study]

    def ask_stop(self, study: str) -> bool:
        with self._lock(study) as (connection, study_id):
            held = read_lease(connection, study_id)
            if held is None or not held.alive(self._clock()):
                return False
            _keep(connection, study_id, replace(held, stop_asked=True))
            log(connection, study_id, "stop", "a stop was asked")
        return True

    def stop_asked(self, study: str) -> bool:
        with self._read(study) as (connection, study_id):
            held = read_lease(connection, study_id)
        return held is not None and held.stop_asked


def _keep(connection: sa.Connection, study_id: int, held: Holder) -> None:
    connection.execute(t.lease.update().where(t.lease.c.study_id == study_id).values(asdict(held)))
