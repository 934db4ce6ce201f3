"""Files by content: each is stored once, under the SHA-256 of its bytes."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from automc.errors import StoreError

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_CHUNK = 1 << 20


class Blobs:
    """A folder of files named by their SHA-256 (``ab/ab12...``); made at the first ``put``.

    Several processes may use a folder at once. A file is there whole or not at all, also after a power cut.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def beside(cls, storage: str) -> Blobs:
        """The files of a trial database: ``x.db.blobs`` beside the SQLite file ``x.db``.

        For other databases ``automc.blobs`` in the current folder.
        """
        from automc.stores.engine import parse_url, sqlite_file

        path = None if storage == "memory:" else sqlite_file(parse_url(storage))
        return cls(Path("automc.blobs") if path is None else path.with_name(f"{path.name}.blobs"))

    def put(self, content: bytes | Path) -> str:
        """Store bytes, or a copy of a file; what is there already is not written again.

        Returns: the SHA-256, 64 hexadecimal digits.

        Raises:
            StoreError: the file cannot be read or the folder not written.
        """
        try:
            with self._incoming() as (target, partial):
                digest = _copy(content, target)
                final = self._place(digest)
                if not final.exists():
                    _settle(target, partial, final)
        except OSError as error:
            raise StoreError(f"{self.folder}: a file cannot be stored: {error.strerror or error}") from error
        return digest

    def path(self, digest: str) -> Path:
        """Where the file is.

        Raises:
            StoreError: no such file, or no SHA-256.
        """
        if not _DIGEST.match(digest):
            raise StoreError(f"an artifact is named by 64 hexadecimal digits, not {digest!r}")
        path = self._place(digest)
        if not path.is_file():
            raise StoreError(f"{self.folder}: holds no file {digest}; was it removed?")
        return path

    def read(self, digest: str) -> bytes:
        """The file's bytes, checked.

        Raises:
            StoreError: as ``path``, or the bytes are not those that were stored.
        """
        path = self.path(digest)
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise StoreError(f"{path}: damaged, its bytes are not what was stored; remove it and export again")
        return content

    def _place(self, digest: str) -> Path:
        return self.folder / digest[:2] / digest

    @contextmanager
    def _incoming(self) -> Iterator[tuple[BinaryIO, Path]]:
        """A temporary file in the folder; gone afterwards, unless it was moved."""
        self.folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix="incoming-", dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as target:
                yield target, Path(name)
        finally:
            Path(name).unlink(missing_ok=True)


def _copy(content: bytes | Path, target: BinaryIO) -> str:
    if isinstance(content, bytes):
        target.write(content)
        return hashlib.sha256(content).hexdigest()
    found = hashlib.sha256()
    with content.open("rb") as source:
        while chunk := source.read(_CHUNK):
            found.update(chunk)
            target.write(chunk)
    return found.hexdigest()


def _settle(target: BinaryIO, partial: Path, final: Path) -> None:
    """Give the file its name only once its bytes are on the disk, and then the name too."""
    target.flush()
    os.fsync(target.fileno())
    final.parent.mkdir(exist_ok=True)
    os.replace(partial, final)
    for folder in (final.parent, final.parent.parent):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
