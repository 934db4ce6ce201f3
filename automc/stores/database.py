"""An open SQL database and its three kinds of transaction; the tables' classes build on it."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from automc.core.store import Control
from automc.stores import tables as t
from automc.stores.codec import now_text
from automc.stores.engine import READ_ONLY, check_file, make_engine, parse_url, place, reader, said_plainly, writer
from automc.stores.owners import Holder, check_writer
from automc.stores.schema import prepare
from automc.stores.steps import unknown_study
from automc.stores.undisturbed import undisturbed

_INSERT: Mapping[str, Callable[[sa.Table], Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}

_SERVER_CLOCK = sa.select(sa.func.extract("epoch", sa.func.clock_timestamp()))


class Database:
    """Connections, the write lock of a study, and the fence of each lease this object took.

    Args:
        url: see ``open_store``.
        create: make the file and the tables where they are missing.
        clock: seconds since 1970, in the place of the one that all drivers share; for tests.

    Raises:
        StoreError, SchemaMismatch: the database cannot be used.
    """

    def __init__(self, url: str, create: bool = True, clock: Callable[[], float] | None = None) -> None:
        address = parse_url(url)
        check_file(address, create)
        self._where = place(address)
        self._clock = clock
        self._token = uuid.uuid4().hex
        self._fences: dict[str, int] = {}
        self._engine = make_engine(address)
        self._writer, self._reader = writer(self._engine), reader(self._engine)
        self._mine = _Together()
        try:
            with said_plainly(self._where):
                prepare(self._engine, create)
        except BaseException:
            self._engine.dispose()
            raise

    def close(self) -> None:
        """Release files and connections."""
        self._engine.dispose()

    @contextmanager
    def together(self) -> Iterator[None]:
        """What this thread changes inside is one durable transaction, or, after an error, none; see TrialStore."""
        if self._mine.stack is not None:
            yield
            return
        with undisturbed(), said_plainly(self._where):
            try:
                with ExitStack() as self._mine.stack:
                    yield
            finally:
                self._mine.stack = self._mine.connection = None
                self._mine.held = {}

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        """One moment of the database."""
        if self._mine.connection is not None:
            yield self._mine.connection  # sees what was changed together so far
            return
        with said_plainly(self._where), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def _changing(self) -> Iterator[sa.Connection]:
        """One durable transaction, or, after an error, none; a part of one where things are changed together."""
        if self._mine.stack is None:
            with undisturbed(), said_plainly(self._where), self._writer.begin() as connection:
                yield connection
            return
        with said_plainly(self._where):
            if self._mine.connection is None:
                self._mine.connection = self._mine.stack.enter_context(self._writer.begin())
            try:
                with self._mine.connection.begin_nested():
                    yield self._mine.connection
            except BaseException:
                self._mine.held = {}  # a lock that was taken in it is gone
                raise

    @contextmanager
    def _read(self, study: str) -> Iterator[tuple[sa.Connection, int]]:
        """One moment of a study, and its id. Raises UnknownStudy."""
        with self._reading() as connection:
            yield connection, _study_id(connection, study)

    @contextmanager
    def _lock(self, study: str) -> Iterator[tuple[sa.Connection, int]]:
        """A transaction that alone writes to the study (SQLite: to the file), and its id. Raises UnknownStudy."""
        with self._changing() as connection:
            held = self._mine.held.get(study)
            yield connection, _study_id(connection, study) if held is None else held

    @contextmanager
    def _write(self, study: str) -> Iterator[tuple[sa.Connection, int]]:
        """The same for who may write: raises LeaseHeld when the lease is another's."""
        with self._lock(study) as (connection, study_id):
            if study not in self._mine.held:  # under the lock nobody takes the lease over
                fence = self._fences.get(study)
                now = 0.0 if fence is not None else self._now(connection)  # to an owner it says nothing
                check_writer(study, read_lease(connection, study_id), fence, now)
                if self._mine.stack is not None:
                    self._mine.held = {**self._mine.held, study: study_id}
            yield connection, study_id

    def _now(self, connection: sa.Connection) -> float:
        """Seconds since 1970 by the clock that all drivers share: the server's, or this machine's for a file."""
        if self._clock is not None:
            return self._clock()
        if connection.dialect.name == "sqlite":
            return time.time()
        return float(connection.execute(_SERVER_CLOCK).scalar_one())


class _Together(threading.local):
    """What a thread changes in one transaction: begun by the first change, ended by the stack.

    ``held``: ids of the studies that the transaction has locked, and whose lease it has read.
    """

    stack: ExitStack | None = None
    connection: sa.Connection | None = None
    held: Mapping[str, int] = {}


def read_lease(connection: sa.Connection, study_id: int) -> Holder | None:
    """The study's lease, held or given back; None where nobody ever took one."""
    row = connection.execute(_LEASE, {"study": study_id}).one_or_none()
    if row is None:
        return None
    return Holder(row.host, row.pid, row.fence, row.machine, row.born, row.token, row.renewed, Control(row.control))


def upsert(connection: sa.Connection, table: sa.Table, row: Mapping[str, Any], replaced: tuple[str, ...] = ()) -> Any:
    """An INSERT which, where the key exists, replaces these columns, or does nothing when there are none."""
    return upserting(connection.dialect.name, table, replaced).values(row)


@cache
def upserting(dialect: str, table: sa.Table, replaced: tuple[str, ...] = ()) -> Any:
    """The same for any row, which goes with it to ``execute``."""
    insert = _INSERT[dialect](table)
    if not replaced:
        return insert.on_conflict_do_nothing()
    keys = [column.name for column in table.primary_key]
    return insert.on_conflict_do_update(index_elements=keys, set_={name: insert.excluded[name] for name in replaced})


def insertion(connection: sa.Connection, table: sa.Table) -> Any:
    """An INSERT in the words of this database, which can say what to do where the key exists."""
    return _INSERT[connection.dialect.name](table)


def log(connection: sa.Connection, study_id: int, kind: str, text: str, number: int | None = None) -> None:
    """Add to the event log."""
    row = {"at": now_text(), "study_id": study_id, "number": number, "kind": kind, "text": text}
    connection.execute(_EVENT, row)


# SQLAlchemy takes five times as long to build a statement as to run it, so those of every trial are built once.
_NAMED = sa.select(t.study.c.id).where(t.study.c.name == sa.bindparam("study"), t.study.c.deleted.is_(None))
_LOCKED = _NAMED.with_for_update()
_LEASE = sa.select(t.lease).where(t.lease.c.study_id == sa.bindparam("study"))
_EVENT = t.event.insert()


def _study_id(connection: sa.Connection, study: str) -> int:
    # The row is locked in a statement of its own: what later ones read is then as of after the wait.
    statement = _NAMED if connection.get_execution_options().get(READ_ONLY) else _LOCKED
    found: int | None = connection.execute(statement, {"study": study}).scalar()
    if found is None:
        there = sa.select(t.study.c.name).where(t.study.c.deleted.is_(None)).order_by(t.study.c.id)
        names = connection.execute(there).scalars().all()
        raise unknown_study(study, names)
    return found
