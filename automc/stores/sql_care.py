"""What a service keeps of a study, in SQL: a note, its deletion, whether its driver is to run, repeated requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from automc.errors import StoreError
from automc.stores import service_tables as v
from automc.stores import steps
from automc.stores import tables as t
from automc.stores.codec import now_text
from automc.stores.database import Database, log, read_lease, upsert


@dataclass(frozen=True)
class Care:
    """What is kept of a study.

    Attributes:
        note: of its users. edition: grows with every change of the note.
        wanted: whether a driver is to run. fence: of the last lease when that was asked, or when a driver was
            started since; a later one is that driver's.
        starts: how often a driver was started since. said: why the last one ended, where it was not as asked.
    """

    note: str = ""
    edition: int = 0
    wanted: bool = False
    fence: int = 0
    starts: int = 0
    said: str = ""


@dataclass(frozen=True)
class Standing:
    """The lease on a study: its fencing number (0: none was ever taken), whether it was given back, whether its
    holder lives, and what that one was asked."""

    fence: int = 0
    released: bool = True
    alive: bool = False
    control: str = "go"


class CareTable(Database):
    """Care of studies."""

    def care(self, study: str) -> Care:
        """What is kept. Raises UnknownStudy."""
        with self._read(study) as (connection, study_id):
            return _read(connection, study_id)

    def standing(self, study: str) -> Standing:
        """The lease as it is. Raises UnknownStudy."""
        with self._read(study) as (connection, study_id):
            held, now = read_lease(connection, study_id), self._now(connection)
        if held is None:
            return Standing()
        return Standing(held.fence, held.token is None, held.alive(now), held.control.value)

    def wanted(self) -> Sequence[str]:
        """The studies whose driver is to run."""
        joined = sa.select(t.study.c.name).join(v.care, v.care.c.study_id == t.study.c.id)
        with self._reading() as connection:
            rows = connection.execute(joined.where(v.care.c.wanted, t.study.c.deleted.is_(None)).order_by(t.study.c.id))
            return list(rows.scalars())

    def want(self, study: str) -> None:
        """From now on a driver is to run. Raises UnknownStudy."""
        with self._lock(study) as (connection, study_id):
            held = read_lease(connection, study_id)
            want_driver(connection, study_id, held.fence if held else 0)

    def keep_care(self, study: str, **changes: Any) -> None:
        """Change some of it. Raises UnknownStudy."""
        with self._lock(study) as (connection, study_id):
            _keep(connection, study_id, changes)

    def claim(self, study: str, seen: Care, fence: int) -> bool:
        """Whether the caller is who starts a driver: since it saw the care and the lease of this fence nobody else was,
        and nobody drives the study.

        Raises:
            UnknownStudy.
        """
        with self._lock(study) as (connection, study_id):
            held = read_lease(connection, study_id)
            driven = held is not None and (held.fence != fence or held.alive(self._now(connection)))
            if driven or _read(connection, study_id) != seen:
                return False
            _keep(connection, study_id, {"starts": seen.starts + 1, "fence": fence})
        return True

    def annotate(self, study: str, note: str, expected: tuple[int, int] | None) -> bool:
        """Replace the note, unless the study is not of the ``expected`` revision and edition; whether it was done.

        Raises:
            UnknownStudy.
        """
        with self._lock(study) as (connection, study_id):
            revision = connection.execute(sa.select(t.study.c.revision).where(t.study.c.id == study_id)).scalar_one()
            edition = _read(connection, study_id).edition
            if expected not in (None, (revision, edition)):
                return False
            _keep(connection, study_id, {"note": note, "edition": edition + 1})
            log(connection, study_id, "note", "the note was changed")
        return True

    def delete(self, study: str) -> None:
        """Hide a study from everybody. Raises UnknownStudy; LeaseHeld: somebody searches it."""
        with self._write(study) as (connection, study_id):
            _keep(connection, study_id, {"wanted": False})
            log(connection, study_id, "delete", "the study was deleted")
            connection.execute(t.study.update().where(t.study.c.id == study_id).values(deleted=now_text()))

    def deleted(self, study: str) -> bool:
        """Whether a study of this name is there and hidden."""
        mine = (t.study.c.name == study, t.study.c.deleted.is_not(None))
        with self._reading() as connection:
            return connection.execute(sa.select(t.study.c.id).where(*mine)).scalar() is not None

    def undelete(self, study: str) -> None:
        """Show it again. Raises UnknownStudy: it is not deleted."""
        mine = (t.study.c.name == study, t.study.c.deleted.is_not(None))
        with self._changing() as connection:
            study_id = connection.execute(sa.select(t.study.c.id).where(*mine).with_for_update()).scalar()
            if study_id is None:
                gone = sa.select(t.study.c.name).where(t.study.c.deleted.is_not(None)).order_by(t.study.c.id)
                raise steps.unknown_study(study, connection.execute(gone).scalars().all())
            connection.execute(t.study.update().where(t.study.c.id == study_id).values(deleted=None))
            log(connection, study_id, "undelete", "the study is back")

    def requested(self, token: str, key: str) -> tuple[str, str] | None:
        """The SHA-256 of the request that a token made under this key, and the study that it made."""
        c = v.request.c
        wanted = sa.select(c.sha256, t.study.c.name).join(t.study, t.study.c.id == c.study_id)
        with self._reading() as connection:
            row = connection.execute(wanted.where(c.token == token, c.key == key)).one_or_none()
        return (row[0], row[1]) if row else None


def keep_request(connection: sa.Connection, study_id: int, request: Mapping[str, str]) -> None:
    """Remember which request made a study.

    Raises:
        StoreError: the token has used this key already.
    """
    row = {**request, "study_id": study_id, "created": now_text()}
    if connection.execute(upsert(connection, v.request, row).returning(v.request.c.key)).scalar() is None:
        raise StoreError(f"the Idempotency-Key {request['key']!r} was used meanwhile; repeat the request")


def want_driver(connection: sa.Connection, study_id: int, fence: int) -> None:
    """A driver is to run, which will take a lease with a higher fence."""
    _keep(connection, study_id, {"wanted": True, "fence": fence, "starts": 0, "said": ""})


def _read(connection: sa.Connection, study_id: int) -> Care:
    columns = [v.care.c[name] for name in Care.__dataclass_fields__]
    row = connection.execute(sa.select(*columns).where(v.care.c.study_id == study_id)).mappings().one_or_none()
    return Care(**row) if row else Care()


def _keep(connection: sa.Connection, study_id: int, changes: Mapping[str, Any]) -> None:
    connection.execute(upsert(connection, v.care, {"study_id": study_id, **changes}, tuple(changes)))
