"""One SELECT on a SQLite file that is opened for reading only."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from urllib.parse import quote

import sqlalchemy as sa

from automc.errors import SpecError
from automc.stores.engine import BUSY_SECONDS, sqlite_file
from automc.stores.select import VIEWS, Answer, Caps, Gathering, fault, not_reading, too_slow

LENGTH = 16 << 20
"""Bytes of a value or a row."""

LONGEST = 45.0
"""Seconds of a statement: less than a driver waits for its reader."""

_READS = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
_FORBIDDEN = frozenset({"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit"})
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: LENGTH,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 100_000,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 100,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 200,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 100,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
_STEPS = 2_000
"""Instructions of SQLite's machine between two looks at the clock."""


def select_sqlite(url: sa.URL, text: str, caps: Caps) -> Answer:
    """See ``select``.

    Raises:
        SpecError: it may take more than LONGEST.
    """
    if caps.seconds > LONGEST:
        raise SpecError(
            f"query: seconds must be {LONGEST:g} at most on SQLite, not {caps.seconds:g}: a search that runs waits "
            f"{BUSY_SECONDS:g} s for who reads; ask a copy (automc db backup) with another program"
        )
    address = f"file:{quote(str(sqlite_file(url)))}?mode=ro"
    opened = sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
    with closing(opened) as connection:
        for name, view in VIEWS.items():
            connection.execute(f"CREATE TEMP VIEW {name} AS SELECT * FROM main.{view}")
        names = _names(connection)
        _lock_down(connection, time.monotonic() + caps.seconds)
        try:
            cursor = connection.execute(text)
            if cursor.description is None:
                raise not_reading()
            found = Gathering((column[0] for column in cursor.description), caps)
            while not found.full and (row := cursor.fetchone()) is not None:
                found.add(row)
            return found.answer()
        except (sqlite3.Error, sqlite3.Warning, OverflowError, MemoryError) as error:
            raise _said(error, names, caps) from None


def _lock_down(connection: sqlite3.Connection, deadline: float) -> None:
    """From now on the connection reads, and not for ever."""
    connection.execute("PRAGMA query_only=ON")
    for limit, value in _LIMITS.items():
        connection.setlimit(limit, value)
    connection.text_factory = lambda data: data.decode(errors="replace")
    connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
    connection.set_authorizer(_allowed)


def _allowed(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action not in _READS or (action == sqlite3.SQLITE_FUNCTION and str(second).lower() in _FORBIDDEN):
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def _names(connection: sqlite3.Connection) -> dict[str, list[str]]:
    """The columns of the tables and views."""
    rows = connection.execute(
        "SELECT m.name, c.name FROM (SELECT name FROM main.sqlite_schema WHERE type IN ('table', 'view') "
        "UNION SELECT name FROM temp.sqlite_schema WHERE type = 'view') m, pragma_table_info(m.name) c"
    )
    found: dict[str, list[str]] = {}
    for table, column in rows:
        found.setdefault(table, []).append(column)
    return found


def _said(error: BaseException, names: dict[str, list[str]], caps: Caps) -> SpecError:
    said = str(error)
    if "interrupted" in said:
        return too_slow(caps)
    if "one statement at a time" in said:
        return SpecError("query: one statement at a time")
    if isinstance(error, MemoryError) or "too big" in said or "out of memory" in said:
        return SpecError(f"query: a value above {LENGTH >> 20} MB; select a part of it, such as substr(x, 1, 100)")
    if "not authorized" in said or "readonly" in said or "prohibited" in said:
        return not_reading()
    return fault(said, names)
