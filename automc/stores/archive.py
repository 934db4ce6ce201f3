"""Studies between a database and a file, and from one database into another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from automc.errors import SchemaMismatch, StoreError
from automc.stores import exchange, more_tables, service_tables
from automc.stores import tables as t
from automc.stores.codec import dumps, loads
from automc.stores.database import Database, insertion, log
from automc.stores.engine import make_engine, parse_url, said_plainly, writer
from automc.stores.schema import known_versions, prepare
from automc.stores.steps import unknown_study

_AT_ONCE = 1_000
_LEFT = ("automc_lease", *(x.name for x in service_tables.token.metadata.sorted_tables if x.info.get("stays")))
"""Whose a study is now does not travel, and what a service keeps stays with it."""

_MERGED = ("automc_policy", "automc_layer_latency")
"""What is not of one study: rows whose keys are there already stay as they are."""

TABLES = tuple(table for table in more_tables.layer.metadata.sorted_tables if table.name not in _LEFT)


class Archive(Database):
    """A database whose studies are taken out or in, whole."""

    @property
    def file(self) -> str:
        """Where it is, as ``open_store`` takes it."""
        return self._engine.url.render_as_string(hide_password=False)

    def export(self, path: Path, study: str | None = None) -> tuple[list[str], int]:
        """Write one study, or all and the latencies of layers, as they are at one moment.

        Returns: their names, and how many rows that is.

        Raises:
            UnknownStudy. StoreError: as ``exchange.write``.
        """
        with self._reading() as connection:
            chosen = _chosen(connection, study)
            header = exchange.Header(t.HEAD, {x.name: [c.name for c in _columns(x)] for x in TABLES})
            rows = ([name, *row] for name, row in _rows(connection, list(chosen), study is None))
            count = exchange.write(path, header, rows)
        return list(chosen.values()), count

    def take_in(self, other: Archive, source: str, renamed: str | None = None) -> list[str]:
        """Add every study of another database, all or none.

        Args:
            source: where they come from, for the event log. renamed: the name of its only study here.

        Raises:
            StoreError: a name is taken, or there is more than one study to rename.
        """
        with other._reading() as old, self._changing() as connection:
            chosen = _chosen(old, None)
            if renamed is not None and len(chosen) != 1:
                raise StoreError(f"--as {renamed}: there are {len(chosen)} studies to import, and a name for one")
            names = {key: renamed or name for key, name in chosen.items()}
            ids: dict[int, int] = {}
            for table, rows in groupby(_rows(old, list(chosen), True), key=lambda row: row[0]):
                _insert(connection, t.metadata.tables[table], (dict(row._mapping) for _, row in rows), names, ids)
            for study_id in ids.values():
                log(connection, study_id, "import", f"from {source}")
        return list(names.values())


def staged(path: Path, folder: Path) -> Archive:
    """A file's content as a database of its own in a folder, upgraded to the present schema.

    Raises:
        StoreError: as ``exchange.read``, or a line is no row of its table. SchemaMismatch: a newer automc wrote it.
    """
    header, lines = exchange.read(path)
    if header.schema not in known_versions():
        raise SchemaMismatch(f"{path}: written by a newer automc (schema {header.schema[:20]}); upgrade automc")
    url = str(folder / "staged.db")
    engine = make_engine(parse_url(url))
    try:
        with said_plainly(str(path)):
            prepare(engine, create=True, head=header.schema)
            with writer(engine).begin() as connection:
                tables = _tables(path, connection, header.tables)
                rows = (_row(path, number, tables, header.tables, line) for number, line in lines)
                for table, some in groupby(rows, key=lambda row: row[0]):
                    while batch := [values for _, values in islice(some, _AT_ONCE)]:
                        connection.execute(table.insert(), batch)
        return Archive(url)
    finally:
        engine.dispose()


def _chosen(connection: sa.Connection, study: str | None) -> dict[int, str]:
    c = t.study.c
    found = {row.id: row.name for row in connection.execute(sa.select(c.id, c.name).order_by(c.id))}
    if study is not None and study not in found.values():
        raise unknown_study(study, list(found.values()))
    return {key: name for key, name in found.items() if study in (None, name)}


def _columns(table: sa.Table) -> list[sa.Column[Any]]:
    """All but the number that a database gives to a line of its log."""
    return [column for column in table.c if table is not t.event or column.name != "id"]


def _rows(connection: sa.Connection, ids: Sequence[int], whole: bool) -> Iterator[tuple[str, sa.Row[Any]]]:
    """The rows of these studies, table by table, parents first."""
    for table in TABLES:
        statement = sa.select(*_columns(table)).order_by(*table.primary_key.columns)
        if table is t.policy:
            statement = statement.where(
                table.c.fingerprint.in_(sa.select(t.trial.c.policy).where(t.trial.c.study_id.in_(ids)))
            )
        elif table is not t.layer_latency:
            statement = statement.where((table.c.id if table is t.study else table.c.study_id).in_(ids))
        elif not whole:
            continue
        for row in connection.execute(statement.execution_options(yield_per=_AT_ONCE)):
            yield table.name, row


def _insert(
    connection: sa.Connection,
    table: sa.Table,
    rows: Iterable[dict[str, Any]],
    names: Mapping[int, str],
    ids: dict[int, int],
) -> None:
    """Add rows of another database; ``ids`` learns which study is which here."""
    if table is t.study:
        for row in rows:
            old = row.pop("id")
            row["name"] = names[old]
            fresh = insertion(connection, table).values(row).on_conflict_do_nothing().returning(table.c.id)
            ids[old] = connection.execute(fresh).scalar() or _taken(names[old])
        return
    statement = insertion(connection, table)
    if table.name in _MERGED:
        statement = statement.on_conflict_do_nothing()
    rows = iter(rows)
    while some := list(islice(rows, _AT_ONCE)):
        for row in some:
            if table is t.revision:
                row["spec"] = dumps({**loads(row["spec"]), "name": names[row["study_id"]]})
            if "study_id" in row:
                row["study_id"] = ids[row["study_id"]]
        connection.execute(statement, some)


def _taken(name: str) -> int:
    raise StoreError(f"a study {name!r} exists already, so nothing was imported; give another name with --as NEW")


def _tables(path: Path, connection: sa.Connection, wanted: Mapping[str, Sequence[str]]) -> dict[str, sa.Table]:
    """The tables of the first line as this schema has them."""
    names = sa.inspect(connection).get_table_names()
    there = {name for name in names if name.startswith("automc_") and name not in (*_LEFT, t.VERSION_TABLE)}
    found = sa.MetaData()
    for name, columns in wanted.items():
        if name not in there:
            raise StoreError(f"{path}: line 1: {name[:40]!r} is no table of studies")
        table = sa.Table(name, found, autoload_with=connection)
        for column in columns:
            if column not in table.c:
                raise StoreError(f"{path}: line 1: {name} has no column {column[:40]!r}")
    return {name: found.tables[name] for name in wanted}


def _row(
    path: Path, number: int, tables: Mapping[str, sa.Table], names: Mapping[str, Sequence[str]], line: list[Any]
) -> tuple[sa.Table, dict[str, Any]]:
    """A table, and values by column; SQLite itself would take a text for a number."""
    if line[0] not in tables:
        raise StoreError(f"{path}: line {number}: the table {line[0][:40]!r} is not in the first line")
    table, columns, values = tables[line[0]], names[line[0]], line[1:]
    if len(values) != len(columns):
        raise StoreError(f"{path}: line {number}: {table.name} has {len(columns)} columns, not {len(values)}")
    for name, value in zip(columns, values, strict=True):
        kind = table.c[name].type.python_type
        fits = isinstance(value, (float, int) if kind is float else kind) and (
            kind is bool or not isinstance(value, bool)
        )
        if value is not None and (not fits or not _storable(value)):
            raise StoreError(
                f"{path}: line {number}: {table.name}.{name} must be {kind.__name__}, not {str(value)[:40]!r}"
            )
    return table, dict(zip(columns, values, strict=True))


def _storable(value: Any) -> bool:
    """Whether every database can hold it: integers of 64 bits, finite numbers, texts of real characters but NUL."""
    if isinstance(value, str):
        return "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)
    if isinstance(value, int):
        return -(1 << 63) <= value < 1 << 63
    return not isinstance(value, float) or abs(value) <= 1.7976931348623157e308
