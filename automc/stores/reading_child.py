"""One SELECT on a SQLite file, in a process that its parent can end: a single function call of SQL may take hours, and
SQLite looks at no clock meanwhile.

Run as a script with the request as JSON on stdin; the answer is JSON on stdout. Imports nothing but the standard
library, so that it is there in 30 ms.
"""

import json
import sqlite3
import sys
import time
from typing import Any

_READS = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
_FORBIDDEN = frozenset({"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit"})
_STEPS = 2_000
"""Instructions of SQLite's machine between two looks at the clock."""

_MEMORY = 1 << 30


def _limits(length: int) -> dict[int, int]:
    return {
        sqlite3.SQLITE_LIMIT_LENGTH: length,
        sqlite3.SQLITE_LIMIT_SQL_LENGTH: 100_000,
        sqlite3.SQLITE_LIMIT_ATTACHED: 0,
        sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 100,
        sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 200,
        sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 100,
        sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
    }


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """``columns`` (None of what is no query), ``rows``, one more than asked for where there are more; or ``fault`` and
    the ``names`` of what there is.

    Args:
        asked: ``address`` of the file, ``views`` by name, ``text``, ``rows``, ``bytes`` of all text, ``length`` of a
            value, ``seconds``, and ``wait``, how long for a lock.
    """
    names: dict[str, list[str]] = {}
    connection = sqlite3.connect(asked["address"], uri=True, timeout=asked["wait"], isolation_level=None)
    try:
        for name, view in asked["views"].items():
            connection.execute(f"CREATE TEMP VIEW {name} AS SELECT * FROM main.{view}")
        names = _names(connection)
        _lock_down(connection, asked["length"], time.monotonic() + asked["seconds"])
        cursor = connection.execute(asked["text"])
        if cursor.description is None:
            return {"columns": None, "rows": []}
        rows: list[list[Any]] = []
        room = asked["bytes"]
        while len(rows) <= asked["rows"] and room >= 0 and (row := cursor.fetchone()) is not None:
            rows.append([value.hex() if isinstance(value, bytes) else value for value in row])
            room -= sum(len(value) for value in rows[-1] if isinstance(value, str))
        return {"columns": [column[0] for column in cursor.description], "rows": rows}
    except (sqlite3.Error, sqlite3.Warning, OverflowError) as error:
        return {"fault": str(error), "names": names}
    except MemoryError:
        return {"fault": "out of memory", "names": names}


def _lock_down(connection: sqlite3.Connection, length: int, deadline: float) -> None:
    """From now on the connection reads, and not for ever."""
    connection.execute("PRAGMA query_only=ON")
    for limit, value in _limits(length).items():
        connection.setlimit(limit, value)
    connection.text_factory = lambda data: data.decode(errors="replace")
    connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
    connection.set_authorizer(_allowed)


def _allowed(action: int, first: "str | None", second: "str | None", *_: "str | None") -> int:
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


if __name__ == "__main__":
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    except (ImportError, ValueError, OSError):  # another system, or a lower limit than this
        pass
    json.dump(answer(json.load(sys.stdin)), sys.stdout)
