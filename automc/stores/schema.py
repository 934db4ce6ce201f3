"""Bringing a database to the schema of this automc, and refusing one that is ahead of it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import sqlalchemy as sa

from automc.errors import SchemaMismatch, StoreError
from automc.stores.copying import copy_database
from automc.stores.engine import journal, place, reader, sqlite_file, writer
from automc.stores.tables import HEAD, VERSION_TABLE

MIGRATIONS = Path(__file__).with_name("migrations")

_LOCK = 0x6175746F6D63  # "automc": one upgrade of a PostgreSQL database at a time


def prepare(engine: sa.Engine, create: bool, head: str = HEAD, migrations: Path = MIGRATIONS) -> None:
    """Make or upgrade the schema where needed; an up-to-date database is only read.

    A SQLite file is copied beside itself before an upgrade. Making and upgrading are one transaction each.

    Args:
        create: whether a database without automc's tables gets them.
        head, migrations: the revision to reach and where the steps are; for tests.

    Raises:
        SchemaMismatch: a newer automc wrote the database. StoreError: no tables, and ``create`` is False.
    """
    with reader(engine).begin() as connection:
        version = version_of(connection)
    if version is None and not create:
        raise StoreError(f"{place(engine.url)}: holds no automc tables; check the database given as storage")
    _settle_journal(engine, new=version is None)
    if version == head:
        return
    with writer(engine).begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        version = version_of(connection)  # again, now that nobody else can change it
        if version == head:
            return
        _upgrade(connection, version, head, migrations)


def backup_path(path: Path, version: str) -> Path:
    """Where the copy of a file goes before it is upgraded from ``version``."""
    return path.with_name(f"{path.name}.before-upgrade-from-{version}")


def known_versions(migrations: Path = MIGRATIONS) -> list[str]:
    """Every schema that this automc can upgrade from, oldest first; the last one is its own."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(migrations)).walk_revisions()
    return [script.revision for script in scripts][::-1]


def version_of(connection: sa.Connection) -> str | None:
    """The schema of a database; None where it has no tables of automc."""
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(sa.select(sa.column("version_num")).select_from(sa.table(VERSION_TABLE))).scalar()


def _upgrade(connection: sa.Connection, version: str | None, head: str, migrations: Path) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    where = place(connection.engine.url)
    if version is not None and version not in known_versions(migrations):
        raise SchemaMismatch(
            f"{where}: written by a newer automc (schema {version}, this one knows {head}); upgrade automc"
        )
    path = sqlite_file(connection.engine.url)
    if version is not None and path is not None:
        _back_up(path, backup_path(path, version))
    command.upgrade(config, head)


def _back_up(path: Path, copy: Path) -> None:
    try:
        copy_database(path, copy)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{path}: no upgrade, because its backup {copy} cannot be written: {error}") from error


def _settle_journal(engine: sa.Engine, new: bool) -> None:
    """Settle the journal mode, which SQLite keeps in the file and cannot change inside a transaction.

    A new file gets this library's mode; an old one is only taken out of WAL, where that is not safe.
    """
    if engine.dialect.name != "sqlite":
        return
    connection = engine.raw_connection()
    try:
        cursor = connection.cursor()
        (mode,) = cursor.execute("PRAGMA journal_mode").fetchone()
        if mode != journal() and (new or mode == "wal"):
            cursor.execute(f"PRAGMA journal_mode={journal()}")
    finally:
        connection.close()
