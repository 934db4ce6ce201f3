"""Archives and texts that claim what they have not."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from automc.core import untrusted


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array)
    return file.getvalue()


def claiming(header: str, data: bytes = b"") -> bytes:
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def archive(path: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in entries.items():
            file.writestr(zipfile.ZipInfo(name), content, method)
    return path


def test_what_is_whole_comes_back_as_numpy_wrote_it(tmp_path: Path) -> None:
    x, y = np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.asfortranarray(np.eye(3, dtype=np.float32))
    np.savez_compressed(tmp_path / "a.npz", x=x, y=y, none=np.zeros((5, 0), np.int64))
    found = untrusted.arrays(tmp_path / "a.npz")
    assert {name: each.shape for name, each in found.items()} == {"x": (2, 3, 4), "y": (3, 3), "none": (5, 0)}
    assert np.array_equal(found["x"], x)
    assert np.array_equal(found["y"], y)
    assert list(untrusted.arrays(tmp_path / "a.npz", ["y"])) == ["y"]
    assert untrusted.array_names(tmp_path / "a.npz") == ["x", "y", "none"]
    with pytest.raises(KeyError, match="z"):
        untrusted.arrays(tmp_path / "a.npz", ["z"])


HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': (%s,), }"
OBJECTS = "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"/etc/x.npy": npy(np.zeros(1))}, "'/etc/x.npy' is no array of a plain name"),
        ({"../x.npy": npy(np.zeros(1))}, "is no array of a plain name"),
        ({"a\\..\\x.npy": npy(np.zeros(1))}, "is no array of a plain name"),
        ({"c:x.npy": npy(np.zeros(1))}, "is no array of a plain name"),
        ({".npy": npy(np.zeros(1))}, "is no array of a plain name"),
        ({"x.txt": b"hello"}, "is no array of a plain name"),
        ({"x.npy": claiming(HUGE % 10**15)}, r"claims shape \(1000000000000000,\) of float32, and has 0 bytes"),
        ({"x.npy": claiming(HUGE % "-1")}, "claims shape"),
        ({"x.npy": claiming(HUGE % "2**70")}, "ValueError|Cannot parse header|malformed"),
        ({"x.npy": npy(np.zeros(4)) + b"more"}, "claims shape"),
        ({"x.npy": claiming(OBJECTS, b"cos\nsystem\n(S'true'\ntR.")}, "Object arrays cannot be loaded"),
        ({"x.npy": b"\x93NUMPY\x09\x00"}, "magic|version"),
        ({"x.npy": b"nothing"}, "magic"),
        ({"x.npy": claiming("__import__('os').abort()")}, "header|malformed|Cannot parse"),
        ({"x.npy": npy(np.zeros(2**24))}, r"its arrays claim 134,217,856 bytes; of an archive of \d+,\d+ bytes"),
        ({f"{i}.npy": b"" for i in range(1025)}, "it has 1025 entries"),
    ],
)
def test_what_lies_is_a_value_error(tmp_path: Path, entries: dict[str, bytes], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        untrusted.arrays(archive(tmp_path / "a.npz", entries))


def damaged(path: Path, change: Callable[[bytes], bytes]) -> Path:
    path.write_bytes(change(archive(path, {"x.npy": npy(np.arange(99.0))}).read_bytes()))
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-30],
        lambda data: data[:60] + b"\0" * 40 + data[100:],
        lambda data: b"",
        lambda data: b"no zip",
        lambda data: data.replace(b"x.npy", b"y.npy", 1),
    ],
)
def test_damage_is_a_value_error(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ValueError, match=r"."):
        untrusted.arrays(damaged(tmp_path / "a.npz", change))


def test_links_pipes_and_folders_are_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "real.npz", x=np.zeros(3))
    (tmp_path / "link.npz").symlink_to(tmp_path / "real.npz")
    (tmp_path / "folder.npz").mkdir()
    os.mkfifo(tmp_path / "pipe.npz")
    for name, message in (("link", "link.npz is a link"), ("folder", "no plain file"), ("pipe", "no plain file")):
        with pytest.raises(ValueError, match=message):
            untrusted.arrays(tmp_path / f"{name}.npz")
        with pytest.raises(ValueError, match=message):
            untrusted.json_object(tmp_path / f"{name}.npz")
        with pytest.raises(ValueError, match=message):
            untrusted.sha256(tmp_path / f"{name}.npz")
    with pytest.raises(FileNotFoundError):
        untrusted.arrays(tmp_path / "absent.npz")


@pytest.mark.parametrize("text", ["[1]", "{", "[" * 10**5, '{"a":' * 10**5, "\udcff", '{"a": 1' + "0" * 5000 + "}"])
def test_other_texts_are_value_errors(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ValueError, match=r"."):
        untrusted.json_object(tmp_path / "a.json")
    (tmp_path / "b.json").write_text('{"a": 1}')
    assert untrusted.json_object(tmp_path / "b.json") == {"a": 1}
    with pytest.raises(ValueError, match=r"b\.json has 8 bytes, at most 7 are read"):
        untrusted.json_object(tmp_path / "b.json", most=7)


def test_a_users_own_archive_may_have_any_names_and_many_zeros(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz", {"a/b.npy": npy(np.zeros(2**24)), "notes.txt": b"mine"})
    assert untrusted.array_names(path, strict=False) == ["a/b", "notes.txt"]
    assert untrusted.arrays(path, ["a/b"], strict=False)["a/b"].shape == (2**24,)
