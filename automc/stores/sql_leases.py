"""Leases in SQL."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import Any

import sqlalchemy as sa

from automc.core.store import Control, Owner
from automc.stores import tables as t
from automc.stores.database import Database, log, read_lease
from automc.stores.owners import Holder, still_mine, taken

DOUBT_SECONDS = 6.0
"""So long a driver that lives cannot be silent: three of its beats, see app/driving.py."""


class LeaseTables(Database):
    """A LeaseStore."""

    def take(self, study: str, owner: Owner) -> None:
        self._listen(study)
        with self._lock(study) as (connection, study_id):
            old = read_lease(connection, study_id)
            held = taken(study, old, owner, self._token, self._now(connection))
            if old is None:
                connection.execute(t.lease.insert().values(study_id=study_id, **_row(held)))
            else:
                _keep(connection, study_id, held)
            log(connection, study_id, "take", f"fence {held.fence}: pid {owner.pid} on host {owner.host}")
        self._fences[study] = held.fence

    def renew(self, study: str) -> None:
        with self._lock(study) as (connection, study_id):
            held = still_mine(study, read_lease(connection, study_id), self._fences.get(study))
            _keep(connection, study_id, replace(held, renewed=self._now(connection)))

    def release(self, study: str) -> None:
        fence = self._fences.get(study)
        if fence is None:
            return
        with self._lock(study) as (connection, study_id):
            held = read_lease(connection, study_id)
            if held is not None and held.fence == fence:
                _keep(connection, study_id, replace(held, token=None, control=Control.GO))
                log(connection, study_id, "release", f"fence {fence}")
        del self._fences[study]

    def ask(self, study: str, word: Control) -> Control | None:
        with self._lock(study) as (connection, study_id):
            held = read_lease(connection, study_id)
            if held is None or not held.alive(self._now(connection)):
                return None
            told = held.told(word)
            _keep(connection, study_id, told)
            log(connection, study_id, word.value, f"a {word.value} was asked")
        return told.control

    def asked(self, study: str) -> Control:
        with self._read(study) as (connection, study_id):
            held = read_lease(connection, study_id)
        return Control.GO if held is None else held.control

    def driver(self, study: str) -> Owner | None:
        with self._read(study) as (connection, study_id):
            held = read_lease(connection, study_id)
            return held.owner if held is not None and held.alive(self._now(connection)) else None

    def _listen(self, study: str) -> None:
        """Wait where the lease of another machine looks silent: a clock may have been set, and who lives beats soon."""
        with self._read(study) as (connection, study_id):
            held = read_lease(connection, study_id)
            silent = held is not None and held.token != self._token and held.silent(self._now(connection))
        if silent and self._clock is None:
            time.sleep(DOUBT_SECONDS)


def _keep(connection: sa.Connection, study_id: int, held: Holder) -> None:
    connection.execute(t.lease.update().where(t.lease.c.study_id == study_id).values(_row(held)))


def _row(held: Holder) -> dict[str, Any]:
    return asdict(held) | {"control": held.control.value}
