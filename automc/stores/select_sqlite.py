"""One SELECT on a SQLite file that is opened for reading only, by a process that is ended when its time is over."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from automc.errors import SpecError, StoreError
from automc.stores import reading_child
from automc.stores.engine import BUSY_SECONDS, sqlite_file
from automc.stores.select import MAX_BYTES, VIEWS, Answer, Caps, Gathering, fault, not_reading, too_slow

LENGTH = 16 << 20
"""Bytes of a value or a row."""

LONGEST = 45.0
"""Seconds of a statement: less than a driver waits for its reader."""

_GRACE = 1.0
"""Seconds for the process to begin, and to say by itself that its time is over."""


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
    said = _asked(
        {
            "address": f"file:{quote(str(sqlite_file(url)))}?mode=ro",
            "views": dict(VIEWS),
            "text": text,
            "rows": caps.rows,
            "bytes": MAX_BYTES,
            "length": LENGTH,
            "seconds": caps.seconds,
            "wait": BUSY_SECONDS,
        },
        caps,
    )
    if "fault" in said:
        raise _fault(said["fault"], said["names"], caps)
    if said["columns"] is None:
        raise not_reading()
    found = Gathering(said["columns"], caps)
    for row in said["rows"]:
        found.add(row)
    return found.answer()


def _asked(request: dict[str, Any], caps: Caps) -> dict[str, Any]:
    """What the process answers. It is killed, and its lock gone, where it has not answered in time."""
    command = [sys.executable, "-I", "-S", str(Path(reading_child.__file__))]
    try:
        done = subprocess.run(
            command, input=json.dumps(request).encode(), capture_output=True, timeout=caps.seconds + _GRACE, check=False
        )
        found: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise too_slow(caps) from error
    except ValueError as error:
        if b"MemoryError" in done.stderr:
            raise _too_large() from error
        raise StoreError(f"query: the process that reads ended with {done.returncode} and no answer") from error
    return found


def _too_large() -> SpecError:
    return SpecError(f"query: a value above {LENGTH >> 20} MB; select a part of it, such as substr(x, 1, 100)")


def _fault(said: str, names: dict[str, list[str]], caps: Caps) -> SpecError:
    if "interrupted" in said:
        return too_slow(caps)
    if "one statement at a time" in said:
        return SpecError("query: one statement at a time")
    if "too big" in said or "out of memory" in said:
        return _too_large()
    if "not authorized" in said or "readonly" in said or "prohibited" in said:
        return not_reading()
    return fault(said, names)
