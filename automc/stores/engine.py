"""Connections: from a URL to an engine with automc's transactions, and from a driver's error to a sentence."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event, exc

from automc.errors import StoreError

BUSY_SECONDS = 60.0
"""How long a call waits for another process's transaction. On SQLite a driver's commit waits for readers, too: what
reads long must end before (``select_sqlite.LONGEST``).
"""

COMMIT_AGAIN_SECONDS = 0.001
"""How often a commit that waits for readers of a SQLite file looks again. SQLite's own waits grow to 0.1 s each, which
is a third of the results that a driver can write while people look.
"""

READ_ONLY = "automc_read_only"
"""An execution option of the connections that ``reader`` gives."""

_HINTS = {
    "database or disk is full": "the disk is full; free some space and run the command again, finished trials are safe",
    "disk i/o error": "the disk failed, or a quota or file size limit is reached; finished trials are safe",
    "database is locked": f"another process kept it locked for {BUSY_SECONDS:g} s; end that process or try again",
    "readonly database": "it is read-only; give this user write permission to the file and its folder",
    "file is not a database": "the file is no SQLite database (or an encrypted one)",
    "malformed": "the file is damaged; restore a backup of it",
    "unable to open database file": "the file cannot be opened; check that its folder exists and the permissions",
}


def parse_url(text: str) -> sa.URL:
    """The address of a database; a text without ``://`` is the path of a SQLite file.

    Raises:
        StoreError: it is neither, or of an unknown kind.
    """
    if not text.strip():
        raise StoreError("storage: an empty text names no database; give a file, or postgresql://...")
    if "://" not in text:
        return sa.URL.create("sqlite", database=str(Path(text).expanduser()))
    try:
        url = sa.make_url(text)
    except (exc.ArgumentError, ValueError):
        raise StoreError(
            "storage: the URL cannot be read; it must look like postgresql://USER:PASSWORD@HOST/NAME"
        ) from None
    known = ("sqlite", "postgresql")
    if url.get_backend_name() not in known:
        scheme = text.partition("://")[0]
        hint = ", did you mean 'postgresql'?" if scheme.startswith("postgres") else ""
        raise StoreError(f"storage: unknown kind of database {scheme!r}{hint} (known: {', '.join(known)})")
    if url.get_backend_name() == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if url.database in (None, "", ":memory:"):
        raise StoreError(f"storage: {text} names no file; for a store in memory say 'memory:'")
    return url


def place(url: sa.URL) -> str:
    """The database's name for people, without a password."""
    return str(url.database) if url.get_backend_name() == "sqlite" else url.render_as_string(hide_password=True)


def sqlite_file(url: sa.URL) -> Path | None:
    """The file of a SQLite database, ``file:`` URIs included; None for another kind."""
    if url.get_backend_name() != "sqlite" or url.database is None:
        return None
    if not url.database.startswith("file:"):  # of any other name a question mark is a part
        return Path(url.database)
    return Path(url.database.removeprefix("file:").partition("?")[0])


def check_file(url: sa.URL, create: bool) -> None:
    """Say what is wrong with the path before SQLite makes an empty file or a riddle of it.

    Raises:
        StoreError: no such folder, a folder in the file's place, or (unless ``create``) no such file.
    """
    path = sqlite_file(url)
    if path is None:
        return
    if path.is_dir():
        raise StoreError(f"{path}: is a folder; give the path of a database file, such as {path / 'automc.db'}")
    if not path.parent.is_dir():
        raise StoreError(f"{path}: the folder {path.parent} does not exist; make it, or give another path")
    if not create and not path.exists():
        raise StoreError(f"{path}: there is no such trial database; check the path given as storage")


def make_engine(url: sa.URL) -> sa.Engine:
    """An engine whose transactions begin as automc needs; see ``writer`` and ``reader``.

    Raises:
        StoreError: the driver is not installed.
    """
    if url.get_backend_name() == "sqlite":
        engine = sa.create_engine(url, connect_args={"timeout": BUSY_SECONDS, "factory": _Connection})
        event.listen(engine, "connect", _on_sqlite_connect)
        event.listen(engine, "begin", _on_sqlite_begin)
        return engine
    try:
        return sa.create_engine(url, connect_args={"connect_timeout": 10}, pool_pre_ping=True)
    except ImportError:
        raise StoreError(
            "storage: PostgreSQL needs psycopg; install it with: pip install 'automc[postgresql]'"
        ) from None


def writer(engine: sa.Engine) -> sa.Engine:
    """The same engine for transactions that change something.

    On SQLite they take the write lock at once: one that reads first and locks later fails where it could wait.
    """
    return engine.execution_options(**{READ_ONLY: False})


def reader(engine: sa.Engine) -> sa.Engine:
    """The same engine for transactions that only read, and see one moment of the database."""
    level = {} if engine.dialect.name == "sqlite" else {"isolation_level": "REPEATABLE READ"}
    return engine.execution_options(**{READ_ONLY: True}, **level)


def journal(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> str:
    """The journal mode: SQLite before 3.51.3 can corrupt a WAL database when two connections checkpoint at once."""
    return "wal" if version >= (3, 51, 3) else "delete"


@contextmanager
def said_plainly(where: str) -> Iterator[None]:
    """Turn errors of the driver into a StoreError of one line.

    Args:
        where: the database's name for people.
    """
    try:
        yield
    except (UnicodeDecodeError, JSONDecodeError) as error:  # what this automc wrote can be read
        raise StoreError(f"{where}: {_HINTS['malformed']} (a text in it cannot be read)") from error
    except (exc.DBAPIError, exc.TimeoutError, sqlite3.Error) as error:
        cause = getattr(error, "orig", None) or error
        lines = str(cause).strip().splitlines() or [type(cause).__name__]
        hint = next((hint for sign, hint in _HINTS.items() if sign in lines[0].lower()), "")
        raise StoreError(f"{where}: {hint or lines[0]}") from error


class _Connection(sqlite3.Connection):
    """A connection whose commit follows at once when the last reader has gone.

    What failed for readers still holds the lock that keeps new ones out, so it can be tried again as often as wanted.
    """

    def commit(self) -> None:
        ends = time.monotonic() + BUSY_SECONDS
        self.execute("PRAGMA busy_timeout=0")
        try:
            while True:
                try:
                    return super().commit()
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= ends:
                        raise
                time.sleep(COMMIT_AGAIN_SECONDS)
        finally:
            self.execute(f"PRAGMA busy_timeout={round(1000 * BUSY_SECONDS)}")


def _on_sqlite_connect(connection: Any, _: object) -> None:
    connection.isolation_level = None  # the driver then opens no transactions of its own accord
    connection.execute("PRAGMA foreign_keys=ON")
    # FULL, and beyond it the removal of a rollback journal reaches the disk before a commit returns.
    connection.execute("PRAGMA synchronous=EXTRA")


def _on_sqlite_begin(connection: sa.Connection) -> None:
    read_only = connection.get_execution_options().get(READ_ONLY)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
