"""Files by content."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from automc.errors import StoreError
from automc.stores.blobs import Blobs


@pytest.mark.parametrize("content", [b"", b"abc", os.urandom(3_000_000)])
@pytest.mark.parametrize("as_file", [False, True])
def test_content_is_found_under_its_sha256(tmp_path: Path, content: bytes, as_file: bool) -> None:
    source = tmp_path / "source"
    source.write_bytes(content)
    blobs = Blobs(tmp_path / "blobs")
    digest = blobs.put(source if as_file else content)
    assert digest == hashlib.sha256(content).hexdigest()
    assert blobs.path(digest).read_bytes() == content
    assert blobs.read(digest) == content
    assert source.read_bytes() == content


def test_the_same_content_is_stored_once(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        digests = set(pool.map(blobs.put, [b"x" * 100_000] * 24))
    assert len(digests) == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [blobs.path(digests.pop())]


def test_a_file_that_was_changed_is_found_out(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    digest = blobs.put(b"abc")
    blobs.path(digest).write_bytes(b"abd")
    with pytest.raises(StoreError, match="damaged"):
        blobs.read(digest)


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_a_name_that_is_no_digest_leads_nowhere(tmp_path: Path, digest: str) -> None:
    with pytest.raises(StoreError, match="64 hexadecimal digits, not"):
        Blobs(tmp_path).path(digest)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"^{tmp_path}: holds no file {'a' * 64}"):
        Blobs(tmp_path).path("a" * 64)


def test_a_failed_put_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="a file cannot be stored: No space left on device"):
        Blobs(tmp_path).put(b"abc")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    monkeypatch.undo()
    with pytest.raises(StoreError, match="No such file"):
        Blobs(tmp_path).put(tmp_path / "missing")


@pytest.mark.parametrize(
    ("storage", "folder"),
    [
        ("runs/x.db", "runs/x.db.blobs"),
        ("sqlite:////data/x.db", "/data/x.db.blobs"),
        ("memory:", "automc.blobs"),
        ("postgresql://me@host/db", "automc.blobs"),
    ],
)
def test_the_folder_lies_beside_the_database(storage: str, folder: str) -> None:
    assert Blobs.beside(storage).folder == Path(folder)
