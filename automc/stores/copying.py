"""Copies of a SQLite database, made while others write to it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from automc.stores.engine import BUSY_SECONDS


def copy_database(path: Path, copy: Path) -> None:
    """Copy a SQLite file as it is at one moment, whole or not at all; the copy is read back and checked.

    Who writes meanwhile waits; the copy is made in one go, because one in pieces begins anew at every write.

    Raises:
        OSError, sqlite3.Error: it cannot be read or written. No copy is left then.
    """
    partial = copy.with_name(f"{copy.name}.{os.getpid()}.part")
    try:
        with (
            closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as source,
            closing(sqlite3.connect(partial)) as target,
        ):
            source.backup(target)
            (said,) = target.execute("PRAGMA quick_check(1)").fetchone()
            if said != "ok":
                raise sqlite3.DatabaseError(" ".join(said.split()))
        os.replace(partial, copy)
    except UnicodeDecodeError as error:  # what SQLite says of damage quotes the damage
        raise sqlite3.DatabaseError("the file is damaged") from error
    finally:
        partial.unlink(missing_ok=True)
        partial.with_name(f"{partial.name}-journal").unlink(missing_ok=True)
