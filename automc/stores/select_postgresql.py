"""One SELECT on a PostgreSQL server, in a transaction that cannot write."""

from __future__ import annotations

import time
from typing import Any

import sqlalchemy as sa

from automc.errors import SpecError
from automc.stores.engine import make_engine, place, said_plainly
from automc.stores.select import VIEWS, Answer, Caps, Gathering, fault, not_reading, too_slow

_AT_ONCE = 500
_READ_ONLY, _CANCELED = "25006", "57014"


def select_postgresql(url: sa.URL, text: str, caps: Caps) -> Answer:
    """See ``select``.

    The statement is the query of a cursor and travels alone in its message: the server then refuses whatever is no
    query, and what follows a semicolon. Functions act with the rights of the user in the URL.
    """
    import psycopg

    engine = make_engine(url)
    try:
        with said_plainly(place(url)), engine.connect() as opened:
            connection: Any = opened.connection.driver_connection
            with connection.cursor() as cursor:
                for name, view in VIEWS.items():
                    cursor.execute(f"CREATE TEMP VIEW {name} AS SELECT * FROM {view}")
                names = _names(cursor)
                cursor.execute("SET TRANSACTION READ ONLY")
                try:
                    return _rows(cursor, text, caps)
                except psycopg.Error as error:
                    raise _said(error, names, caps) from None
                finally:
                    connection.rollback()
    finally:
        engine.dispose()


def _rows(cursor: Any, text: str, caps: Caps) -> Answer:
    deadline = time.monotonic() + caps.seconds
    _allow(cursor, deadline, caps)
    cursor.execute(f"DECLARE automc_rows NO SCROLL CURSOR FOR {text}", prepare=True)
    found: Gathering | None = None
    while found is None or not found.full:
        _allow(cursor, deadline, caps)  # again, for the statement may have set another limit
        cursor.execute(f"FETCH {_AT_ONCE} FROM automc_rows")
        found = found or Gathering((column.name for column in cursor.description), caps)
        rows = cursor.fetchall()
        for row in rows:
            found.add(row)
        if len(rows) < _AT_ONCE:
            break
    return found.answer()


def _allow(cursor: Any, deadline: float, caps: Caps) -> None:
    left = int(1000 * (deadline - time.monotonic()))
    if left <= 0:
        raise too_slow(caps)
    cursor.execute(f"SET LOCAL statement_timeout = {left}")


def _names(cursor: Any) -> dict[str, list[str]]:
    """The columns of the tables and views in the search path."""
    cursor.execute(
        "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
        "WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'v') AND pg_table_is_visible(c.oid) "
        "AND c.relname !~ '^pg_' AND (c.relname LIKE 'automc%%' OR c.relnamespace = pg_my_temp_schema())"
    )
    found: dict[str, list[str]] = {}
    for table, column in cursor.fetchall():
        found.setdefault(table, []).append(column)
    return found


def _said(error: Any, names: dict[str, list[str]], caps: Caps) -> SpecError:
    said = str(error.diag.message_primary or error)
    if error.sqlstate == _CANCELED:
        return too_slow(caps)
    if "multiple commands" in said:
        return SpecError("query: one statement at a time")
    if error.sqlstate == _READ_ONLY or "DECLARE CURSOR" in said:
        return not_reading()
    return fault(said, names)
