"""A database as it is found: nothing is made, upgraded or changed by looking at it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from automc.core.trial import TrialState
from automc.errors import StoreError
from automc.stores import more_tables
from automc.stores import tables as t
from automc.stores.database import read_lease
from automc.stores.engine import check_file, make_engine, parse_url, place, reader, said_plainly, sqlite_file
from automc.stores.schema import version_of


@dataclass(frozen=True)
class Driver:
    """Who drives a study: the process, when it was last heard (seconds ago), and what it was asked."""

    host: str
    pid: int
    heard: float
    control: str


@dataclass(frozen=True)
class Listed:
    """A study in a status: how many trials are in each state, and who drives it; None: nobody, or not known."""

    study: str
    counts: Mapping[str, int]
    driver: Driver | None = None


@dataclass(frozen=True)
class Status:
    """What there is.

    Attributes:
        storage: the place, without a password. kind: SQLite or PostgreSQL. version: of the library or the server.
        schema: of the database. current: whether it is the one of this automc.
        journal: SQLite's journal mode; None elsewhere. size_bytes: of the file; of automc's tables elsewhere.
        tables: rows by table.
    """

    storage: str
    kind: str
    version: str
    schema: str
    current: bool
    size_bytes: int
    journal: str | None
    tables: Mapping[str, int]
    studies: Sequence[Listed] = field(default_factory=list)


@contextmanager
def found(url: str) -> Iterator[tuple[sa.Connection, str]]:
    """One moment of a database, and its schema.

    Raises:
        StoreError: it is not there, cannot be read, or is not automc's.
    """
    address = parse_url(url)
    check_file(address, create=False)
    engine = make_engine(address)
    try:
        with said_plainly(place(address)), reader(engine).begin() as connection:
            version = version_of(connection)
            if version is None:
                raise StoreError(f"{place(address)}: holds no automc tables; check the database given as storage")
            yield connection, version
    finally:
        engine.dispose()


def status(url: str) -> Status:
    """What there is in a database, of whatever schema. Raises StoreError."""
    with found(url) as (connection, version):
        kind, library, journal = _server(connection)
        names = [name for name in sa.inspect(connection).get_table_names() if name in more_tables.layer.metadata.tables]
        count = sa.select(sa.func.count())
        tables = {name: connection.execute(count.select_from(sa.table(name))).scalar_one() for name in sorted(names)}
        return Status(
            storage=place(connection.engine.url),
            kind=kind,
            version=library,
            schema=version,
            current=version == t.HEAD,
            size_bytes=_size(connection),
            journal=journal,
            tables=tables,
            studies=_studies(connection, version == t.HEAD),
        )


def _server(connection: sa.Connection) -> tuple[str, str, str | None]:
    if connection.dialect.name == "sqlite":
        (version,) = connection.exec_driver_sql("SELECT sqlite_version()").one()
        (mode,) = connection.exec_driver_sql("PRAGMA journal_mode").one()
        return "SQLite", version, mode
    return "PostgreSQL", connection.exec_driver_sql("SHOW server_version").scalar_one(), None


def _size(connection: sa.Connection) -> int:
    path = sqlite_file(connection.engine.url)
    if path is not None:
        return path.stat().st_size
    sizes = "SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class WHERE relkind = 'r' AND "
    ours = sizes + "starts_with(relname::text, 'automc_') AND pg_table_is_visible(oid)"
    return int(connection.exec_driver_sql(ours).scalar_one())


def _studies(connection: sa.Connection, current: bool) -> list[Listed]:
    # These columns are in every schema; those of leases are not.
    trial = sa.table("automc_trial", sa.column("study_id"), sa.column("state"))
    study = sa.table("automc_study", sa.column("id"), sa.column("name"))
    states = sa.select(trial.c.study_id, trial.c.state, sa.func.count()).group_by(trial.c.study_id, trial.c.state)
    counts = {(key, state): number for key, state, number in connection.execute(states)}
    return [
        Listed(
            name,
            {state.value: counts.get((key, state.value), 0) for state in TrialState},
            _driver(connection, key) if current else None,
        )
        for key, name in connection.execute(sa.select(study.c.id, study.c.name).order_by(study.c.id)).all()
    ]


def _driver(connection: sa.Connection, study_id: Any) -> Driver | None:
    now, held = time.time(), read_lease(connection, study_id)
    if held is None or not held.alive(now):
        return None
    return Driver(held.host, held.pid, max(now - held.renewed, 0.0), held.control.value)
