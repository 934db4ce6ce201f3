"""Opening: addresses, bad files, older and newer schemas, and what is never made by looking."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from automc.core.metrics import METRICS
from automc.core.ports import Proposal
from automc.errors import SchemaMismatch, StoreError
from automc.stores import more_tables, open_store, schema, tables
from automc.stores.engine import journal, make_engine, parse_url
from automc.stores.schema import MIGRATIONS, backup_path, prepare
from automc.stores.sql import SqlStore


def sql(path: Path, text: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(text).fetchall()


# Addresses


@pytest.mark.parametrize("form", ["{}", "sqlite:///{}", "sqlite+pysqlite:///{}", "sqlite:///file:{}?mode=rw&uri=true"])
def test_every_form_of_an_address_opens_the_same_file(store: SqlStore, path: Path, form: str) -> None:
    found = open_store(form.format(path), create=False)
    assert [summary.spec.name for summary in found.studies()] == ["s"]
    found.close()


@pytest.mark.parametrize("name", ["what?.db", "a#b%20 c.db", "ü?mode=ro.db"])
def test_a_path_may_have_any_characters(tmp_path: Path, name: str) -> None:
    open_store(str(tmp_path / name)).close()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    open_store(str(tmp_path / name), create=False).close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "an empty text names no database"),
        ("mysql://me:secret@host/db", "unknown kind of database 'mysql' (known: sqlite, postgresql)"),
        ("postgres://me:secret@host/db", "unknown kind of database 'postgres', did you mean 'postgresql'?"),
        ("postgresql://me:secret@host:port/db", "the URL cannot be read"),
        ("://", "the URL cannot be read"),
        ("sqlite://", "names no file; for a store in memory say 'memory:'"),
        ("sqlite:///:memory:", "names no file; for a store in memory say 'memory:'"),
        ("postgresql://me:secret@127.0.0.1:1/db", "onnection refused"),
    ],
)
def test_an_address_that_leads_nowhere_is_said_in_one_line_without_its_password(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=re.escape(message)) as caught:
        open_store(url)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_missing_driver_is_said_with_its_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"needs psycopg; install it with: pip install 'automc\[postgresql\]'"):
        open_store("postgresql://localhost/x")


def test_opening_for_reading_makes_nothing(path: Path) -> None:
    with pytest.raises(StoreError, match=f"^{path}: there is no such trial database"):
        open_store(str(path), create=False)
    assert list(path.parent.iterdir()) == []


def test_a_missing_folder_and_a_folder_are_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"the folder .*/no does not exist"):
        open_store(str(tmp_path / "no" / "x.db"))
    with pytest.raises(StoreError, match=r"is a folder; give the path of a database file, such as .*automc\.db"):
        open_store(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_store_in_memory_needs_no_sql() -> None:
    code = (
        "import sys; from automc.stores import open_store; open_store('memory:').studies();"
        "print(sorted({'sqlalchemy', 'alembic', 'lark', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


# Files


@pytest.mark.parametrize("content", [b"a study:\n  name: x\n" * 200, os.urandom(5000)])
def test_a_file_of_another_kind_is_refused_and_kept(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for create in (True, False):
        with pytest.raises(StoreError, match=f"^{path}: the file is no SQLite database[^\n]*$"):
            open_store(str(path), create)
    assert path.read_bytes() == content


def test_a_damaged_file_is_said(store: SqlStore, path: Path, proposal: Proposal) -> None:
    store.add("s", proposal, 0)
    store.close()
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    with pytest.raises(StoreError, match=f"^{path}: [^\n]*(damaged|malformed|unsupported|no such)[^\n]*$"):
        open_store(str(path)).trials("s")


def test_the_database_of_another_tool_is_shared_but_not_read_as_ours(path: Path) -> None:
    sql(path, "CREATE TABLE alembic_version (version_num TEXT)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match=f"^{path}: holds no automc tables"):
        open_store(str(path), create=False)
    assert path.read_bytes() == before
    open_store(str(path)).close()
    assert sql(path, "SELECT count(*) FROM alembic_version") == [(0,)]
    assert sql(path, "SELECT version_num FROM automc_version") == [(tables.HEAD,)]


def test_a_read_only_database_is_read_and_not_written(store: SqlStore, path: Path, proposal: Proposal) -> None:
    trial = store.add("s", proposal, 0)
    store.close()
    found = open_store(f"sqlite:///file:{path}?mode=ro&uri=true")
    assert found.trials("s") == [trial]
    with pytest.raises(StoreError, match="it is read-only; give this user write permission"):
        found.add("s", proposal, 0)
    found.close()


def test_transactions_are_as_durable_as_promised(store: SqlStore, path: Path) -> None:
    with store._engine.connect() as connection:
        settings = {p: connection.exec_driver_sql(f"PRAGMA {p}").scalar() for p in ("synchronous", "foreign_keys")}
    assert settings == {"synchronous": 3, "foreign_keys": 1}
    assert sql(path, "PRAGMA journal_mode") == [(journal(),)]


@pytest.mark.parametrize(
    ("version", "mode"), [((3, 40, 1), "delete"), ((3, 51, 2), "delete"), ((3, 51, 3), "wal"), ((4, 0, 0), "wal")]
)
def test_wal_is_for_libraries_that_do_not_corrupt_it(version: tuple[int, ...], mode: str) -> None:
    assert journal(version) == mode


@pytest.mark.skipif(journal() == "wal", reason="this SQLite may use WAL")
def test_a_file_left_in_wal_by_another_library_is_taken_out_of_it(store: SqlStore, path: Path) -> None:
    store.close()
    assert sql(path, "PRAGMA journal_mode=wal") == [("wal",)]
    open_store(str(path), create=False).close()
    assert sql(path, "PRAGMA journal_mode") == [("delete",)]


# Schema


def test_the_revisions_build_exactly_the_tables(store: SqlStore) -> None:
    assert more_tables.metadata is tables.metadata
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_heads() == [tables.HEAD]
    with store._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": tables.VERSION_TABLE})
        assert compare_metadata(context, tables.metadata) == []
        checks = {
            (name, check["name"])
            for name in sa.inspect(connection).get_table_names()
            for check in sa.inspect(connection).get_check_constraints(name)
        }
    assert checks == {
        (table.name, f"ck_{table.name}_{check.name}".replace(f"{table.name}_ck_{table.name}", table.name))
        for table in tables.metadata.tables.values()
        for check in table.constraints
        if isinstance(check, sa.CheckConstraint)
    }


def test_the_view_of_trials_has_every_metric(store: SqlStore, path: Path) -> None:
    columns = [row[1] for row in sql(path, "PRAGMA table_info(automc_trials)")]
    assert set(METRICS) <= set(columns)
    assert len(columns) == len(set(columns))


def test_a_newer_schema_is_refused_and_left_alone(store: SqlStore, path: Path) -> None:
    store.close()
    sql(path, "UPDATE automc_version SET version_num = '9999'")
    before = path.read_bytes()
    with pytest.raises(SchemaMismatch, match=rf"^{path}: written by a newer automc \(schema 9999.*upgrade automc$"):
        open_store(str(path))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def later_migrations(folder: Path, body: str) -> Path:
    shutil.copytree(MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    head = f"import sqlalchemy as sa\nfrom alembic import op\nrevision = '9998'\ndown_revision = '{tables.HEAD}'\n"
    (folder / "versions" / "r9998_next.py").write_text(head + "def upgrade() -> None:\n" + body)
    return folder


ADD_COLUMN = "    op.add_column('automc_study', sa.Column('owner', sa.Text))\n"


def test_an_older_schema_is_upgraded_after_a_backup(store: SqlStore, path: Path, proposal: Proposal) -> None:
    trial = store.add("s", proposal, 0)
    store.close()
    migrations = later_migrations(path.parent / "later", ADD_COLUMN)
    engine = make_engine(parse_url(str(path)))
    for _ in range(2):
        prepare(engine, False, "9998", migrations)
    engine.dispose()
    assert sql(path, "SELECT version_num FROM automc_version") == [("9998",)]
    assert sql(path, "SELECT name, owner FROM automc_study") == [("s", None)]
    backup = backup_path(path, tables.HEAD)
    assert sorted(path.parent.iterdir()) == sorted([path, backup, migrations])
    kept = open_store(str(backup), create=False)
    assert kept.trials("s") == [trial]
    kept.close()


def test_an_upgrade_that_fails_leaves_the_older_schema(store: SqlStore, path: Path) -> None:
    store.close()
    migrations = later_migrations(path.parent / "later", ADD_COLUMN + "    op.execute('SELECT * FROM missing')\n")
    engine = make_engine(parse_url(str(path)))
    with pytest.raises(sa.exc.OperationalError, match="no such table: missing"):
        prepare(engine, True, "9998", migrations)
    engine.dispose()
    assert "owner" not in [row[1] for row in sql(path, "PRAGMA table_info(automc_study)")]
    assert len(open_store(str(path)).studies()) == 1


def test_no_upgrade_without_a_backup(store: SqlStore, path: Path) -> None:
    store.close()
    migrations = later_migrations(path.parent / "later", ADD_COLUMN)
    backup_path(path, tables.HEAD).mkdir()
    engine = make_engine(parse_url(str(path)))
    with pytest.raises(StoreError, match=r"no upgrade, because its backup .* cannot be written"):
        prepare(engine, True, "9998", migrations)
    engine.dispose()
    assert sql(path, "SELECT version_num FROM automc_version") == [(tables.HEAD,)]
    assert not list(path.parent.glob("*.part"))


def test_an_up_to_date_database_opens_without_alembic(store: SqlStore, path: Path) -> None:
    code = (
        f"import sys; from automc.stores import open_store; open_store({str(path)!r}); print('alembic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"
    assert schema.HEAD == tables.HEAD
