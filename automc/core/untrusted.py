"""Reading files that somebody else wrote: what a file claims is checked before memory is given to it.

Nothing is unpickled, no name leads out of a folder, and no link is followed.
"""

from __future__ import annotations

import hashlib
import json
import math
import stat
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

JSON_BYTES = 64 * 2**20
"""Longest JSON text that is read."""

ARRAYS_BYTES = 64 * 2**30
"""Most that the arrays of one archive may claim."""

FREE_BYTES, DENSITY = 64 * 2**20, 200
"""In strict reading, arrays above so many bytes may claim no more than so many times the length of their archive:
images shrink to a half or a tenth, and only what is made to burst shrinks more than that."""

ENTRIES = 1024
"""Most arrays of one archive."""

_SUFFIX = ".npy"
_ENCRYPTED = 0x1


def regular(path: Path) -> int:
    """The length of a plain file.

    Raises:
        OSError: there is none. ValueError: it is a link, a folder, a pipe or a device.
    """
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        kind = "a link" if stat.S_ISLNK(found.st_mode) else "no plain file"
        raise ValueError(f"{path.name} is {kind}")
    return found.st_size


def sha256(path: Path) -> str:
    """The SHA-256 of a plain file, read a piece at a time. Raises as ``regular``."""
    regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_object(path: Path, most: int = JSON_BYTES) -> dict[str, Any]:
    """The JSON object that a file holds.

    Raises:
        OSError: the file cannot be read. ValueError: it is no plain file, too long, not JSON, or no object.
    """
    length = regular(path)
    if length > most:
        raise ValueError(f"{path.name} has {length:,} bytes, at most {most:,} are read")
    try:
        found = json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    return found


def array_names(path: Path, *, strict: bool = True) -> list[str]:
    """The arrays of an .npz archive, in its order; none is read. Arguments and errors as of ``arrays``."""
    with _opened(path) as archive:
        return [info.filename.removesuffix(_SUFFIX) for info in _entries(archive, strict)]


def arrays(path: Path, names: Sequence[str] = (), *, strict: bool = True) -> Mapping[str, NDArray[Any]]:
    """Arrays of an .npz archive, once all that it claims of them was found to fit.

    Args:
        names: which; all when empty. strict: for an archive of somebody else; of a user's own, names may be any and
            zeros may be many (see DENSITY).

    Raises:
        OSError: the file cannot be read. ValueError: it is no plain file or no archive, or an array has a name that
            leads elsewhere, a type of objects, a shape that its bytes do not have, or more bytes than allowed.
        KeyError: it has no array of a name.
    """
    length = regular(path)
    with _opened(path) as archive:
        found = {info.filename.removesuffix(_SUFFIX): info for info in _entries(archive, strict)}
        claimed = sum(info.file_size for info in found.values())
        most = min(ARRAYS_BYTES, max(FREE_BYTES, DENSITY * length)) if strict else ARRAYS_BYTES
        if claimed > most:
            raise ValueError(f"its arrays claim {claimed:,} bytes; of an archive of {length:,} bytes {most:,} may be")
        for name in names:
            if name not in found:
                raise KeyError(name)
        return {name: _array(archive, found[name]) for name in names or found}


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip archive for reading; whatever zipfile, zlib and numpy raise becomes a ValueError, but for OSError."""
    regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (ValueError, KeyError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"{type(error).__name__}: {error}".splitlines()[0]) from error


def _entries(archive: zipfile.ZipFile, strict: bool) -> list[zipfile.ZipInfo]:
    """Its entries, when each can be an array."""
    found = archive.infolist()
    if len(found) > ENTRIES and strict:
        raise ValueError(f"it has {len(found)} entries, at most {ENTRIES} are read")
    for info in found:
        name = info.filename
        plain = name.removesuffix(_SUFFIX)
        odd = not name.endswith(_SUFFIX) or not plain or any(c in plain for c in "/\\\0:") or plain.startswith(".")
        if odd and strict:
            raise ValueError(f"entry {name[:80]!r} is no array of a plain name")
        if info.flag_bits & _ENCRYPTED:
            raise ValueError(f"array {plain!r} is encrypted")
    if len({info.filename for info in found}) < len(found):
        raise ValueError("two arrays have one name")
    return found


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    name = info.filename.removesuffix(_SUFFIX)
    with archive.open(info) as file:
        shape, dtype, start = _claimed(file, name)
        needed = math.prod(shape) * dtype.itemsize
        if needed != info.file_size - start:
            raise ValueError(
                f"array {name!r} claims shape {_short(shape)} of {dtype}, and has {info.file_size - start:,} bytes"
            )
    with archive.open(info) as file:
        found: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        return found


def _claimed(file: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape, type and the length of an array's header."""
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"array {name!r} is of version {version}, 1.0 and 2.0 are read")
    shape, _, dtype = readers[version](file)
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded when allow_pickle=False")
    if any(axis < 0 for axis in shape) or dtype.itemsize < 1:
        raise ValueError(f"array {name!r} claims shape {_short(shape)} of {dtype}")
    return shape, dtype, file.tell()


def _short(shape: Sequence[int]) -> str:
    return str(tuple(shape))[:80]
