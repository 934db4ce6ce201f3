"""The file that carries studies between databases: lines of JSON, also gzipped; read without trusting any of it.

The first line is a mapping: ``automc`` is "studies", ``format`` the number of this grammar, ``schema`` that of the
database it was written from, ``tables`` the names of the columns by table. Each further line is a row: a list of the
table's name and a value for each of its columns (null, true, a number, a text, or bytes as ``{"$bytes": BASE64}``). The
last line has the number of ``lines`` above it and the ``sha256`` of all their bytes.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from automc.errors import SchemaMismatch, StoreError

FORMAT = 1
LONGEST = 256 << 20
"""Bytes of a line at most."""

_BYTES = "$bytes"
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Header:
    """The first line. ``tables``: columns by table, in the order of the values."""

    schema: str
    tables: Mapping[str, Sequence[str]]


def write(path: Path, header: Header, rows: Iterable[Sequence[Any]]) -> int:
    """Write a file, whole or not at all; gzipped where its name ends in ``.gz``.

    Args:
        rows: each a table's name and its values.

    Returns: how many rows there were.

    Raises:
        StoreError: there is such a file already, or it cannot be written.
    """
    check_new(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    digest, count = hashlib.sha256(), 1
    try:
        with partial.open("wb") as raw:
            with _packing(raw, path.suffix == ".gz") as file:
                first = {"automc": "studies", "format": FORMAT, "schema": header.schema, "tables": header.tables}
                _put(file, digest, first)
                for count, row in enumerate(rows, 2):  # noqa: B007  (it is read behind the loop)
                    _put(file, digest, [_wrapped(value) for value in row])
                file.write(_line({"lines": count, "sha256": digest.hexdigest()}))
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return count - 1


def check_new(path: Path) -> None:
    """Raises StoreError where there is a file already, or no folder for it."""
    if path.exists():
        raise StoreError(f"{path}: exists already, and is not written over; give another name or remove it")
    if not path.parent.is_dir():
        raise StoreError(f"{path}: the folder {path.parent} does not exist; make it, or give another path")


def read(path: Path) -> tuple[Header, Iterator[tuple[int, list[Any]]]]:
    """A file whose checksum is right: its header, and its rows behind their line numbers.

    Raises:
        StoreError: it cannot be read, is no such file, is cut off or changed. SchemaMismatch: a newer automc wrote it.
    """
    digest, before, last = hashlib.sha256(), b"", 0
    for last, line in _lines(path):  # noqa: B007  (it is read behind the loop)
        digest.update(before)
        before = line
    header = _header(path)
    _check_end(path, before, last, digest.hexdigest())
    return header, _rows(path, last)


def _rows(path: Path, last: int) -> Iterator[tuple[int, list[Any]]]:
    for number, line in _lines(path):
        if 1 < number < last:
            row = _parsed(path, number, line)
            if not isinstance(row, list) or not row or not isinstance(row[0], str):
                raise StoreError(f"{path}: line {number}: must be a list that begins with the name of a table")
            yield number, [_unwrapped(path, number, value) for value in row]


def _header(path: Path) -> Header:
    first = next(_lines(path), None)
    found = _parsed(path, 1, first[1]) if first else None
    if not isinstance(found, dict) or found.get("automc") != "studies":
        raise StoreError(f"{path}: is no file that 'automc db export' wrote: its first line does not say so")
    if found.get("format") != FORMAT:
        raise SchemaMismatch(
            f"{path}: is of format {str(found.get('format'))[:20]}, this automc reads {FORMAT}; upgrade automc"
        )
    tables = found.get("tables")
    if not isinstance(tables, dict) or not all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) and len({*names}) == len(names)
        for names in tables.values()
    ):
        raise StoreError(f"{path}: line 1: tables must be a mapping of tables to lists of columns")
    return Header(str(found.get("schema")), tables)


def _check_end(path: Path, line: bytes, last: int, digest: str) -> None:
    cut = StoreError(f"{path}: ends at line {last} without its checksum: it is cut off; copy or export it again")
    if last < 2 or not line.endswith(b"\n"):
        raise cut
    end = _parsed(path, last, line)
    if not isinstance(end, dict) or "sha256" not in end:
        raise cut
    if (end.get("lines"), end["sha256"]) != (last - 1, digest):
        raise StoreError(f"{path}: its checksum is wrong: it was changed since it was written; export it again")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == _GZIP
            raw.seek(0)
            file: Any = gzip.GzipFile(fileobj=raw) if packed else raw
            number = 0
            while line := file.readline(LONGEST + 1):
                number += 1
                if len(line) > LONGEST:
                    raise StoreError(f"{path}: line {number} is longer than {LONGEST >> 20} MiB; no export has such")
                yield number, line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise StoreError(f"{path}: cannot be unpacked: it is cut off or damaged; copy or export it again") from error
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from error


def _parsed(path: Path, number: int, line: bytes) -> Any:
    try:
        return json.loads(line, parse_constant=_refused)
    except (ValueError, RecursionError):
        raise StoreError(f"{path}: line {number} is no JSON; is it a file that 'automc db export' wrote?") from None


def _refused(word: str) -> Any:
    raise ValueError(word)


def _wrapped(value: Any) -> Any:
    if isinstance(value, (bytes, memoryview)):
        return {_BYTES: base64.b64encode(value).decode()}
    return value


def _unwrapped(path: Path, number: int, value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    try:
        (text,) = value.values() if isinstance(value, dict) and [*value] == [_BYTES] else [value]
        return base64.b64decode(text, validate=True)
    except (ValueError, TypeError):  # b64decode's own error is a ValueError
        raise StoreError(f"{path}: line {number}: {str(value)[:40]} is no value of a column") from None


def _put(file: IO[bytes], digest: Any, data: Any) -> None:
    line = _line(data)
    digest.update(line)
    file.write(line)


def _line(data: Any) -> bytes:
    return json.dumps(data, allow_nan=False, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


@contextmanager
def _packing(raw: IO[bytes], wanted: bool) -> Iterator[IO[bytes]]:
    if not wanted:
        yield raw
        return
    with gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:  # no name and no time: equal studies give equal files
        yield packed  # type: ignore[misc]
