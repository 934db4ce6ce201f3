"""Writing version 3 of the packed file: series of numbers and arrays of a network in three sections. Needs numpy only.

The layout is documented in README.md beside this file.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import safetensors.numpy

from automc.errors import ModelError
from automc.export.packed import ans
from automc.export.packed.bits import Array, Numbers, blocks_of, pack, packed_bytes
from automc.export.packed.encoding import Parts

KEY, VERSION = "automc", 3
"""The only metadata key: with several, safetensors writes them in a random order."""

DIGITS = 16
"""Of the checksum: the first half of the file's SHA-256, taken with zeros in the place of these digits."""

DTYPES = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")

WEIGHTS_PER_BYTE, BYTES_PER_TABLE, INFLATED = 512, 64, 64
"""What a reader allows: weights a byte of the file; bytes of the file a table of frequencies; how many times longer the
notes may be than their deflated bytes."""

_BASE = f"{VERSION} ".encode()
EXPONENTS = "exponents"
"""Where the notes say how the exponents of all float32 numbers are coded."""

_TABLE_NOTE = 16
"""About how many bytes of the deflated notes a table takes beside its frequencies."""


def join(notes: dict[str, Any], weights: Mapping[str, Parts], arrays: Mapping[str, Array]) -> bytes:
    """A packed file.

    Args:
        notes: ``activation_bits`` and ``weights``: by name the notes of ``encoding.encode``; more is added here.
        weights: their parts. arrays: all others, as they are.

    Raises:
        ModelError: an array is of a type that the file has not.
    """
    for coded in (True, False):
        written = _Written(coded)
        for name in sorted(weights):
            written.weight(notes["weights"][name], weights[name])
        notes["arrays"] = {name: written.array(arrays[name], name) for name in sorted(arrays)}
        data = _file(notes, written)
        count = sum(math.prod(note["shape"]) for note in notes["weights"].values())
        if count <= WEIGHTS_PER_BYTE * len(data) and len(written.tables) * BYTES_PER_TABLE <= len(data):
            break  # else a reader would refuse it; packed, it never would
    return data


@dataclass
class _Written:
    """What was written so far.

    Attributes:
        coded: whether a series may be coded. plain: bytes of the section ``numbers``. floats: all float32 arrays.
        series, tables: what goes into the section ``coded``.
    """

    coded: bool
    plain: list[Array] = field(default_factory=list)
    floats: list[Array] = field(default_factory=list)
    series: list[Array] = field(default_factory=list)
    tables: list[ans.Table] = field(default_factory=list)

    def weight(self, note: dict[str, Any], parts: Parts) -> None:
        note.pop("coded", None)
        for name, part in parts.items():
            if not isinstance(part, Numbers):
                self.array(part, name)
            elif marks := self.numbers(part, blocks_of(np.bincount(part.values, minlength=1 << part.bits), part.bits)):
                note.setdefault("coded", {})[name] = marks

    def numbers(self, part: Numbers, blocks: Array) -> str:
        """Write a series; how it was coded, "" where it was not."""
        if self.coded and blocks.any():
            marks = ans.marks_of(blocks)
            table = ans.table_of(marks, part.bits)
            often = table.often[:: (1 << part.bits) // len(blocks)][blocks > 0]
            bits = (blocks[blocks > 0] * (ans.PRECISION - np.log2(often))).sum()
            if bits / 8 + 1.2 * np.count_nonzero(blocks) + _TABLE_NOTE < packed_bytes(len(part.values), part.bits):
                self.series.append(part.values)
                self.tables.append(table)
                return marks.hex()
        self.plain.append(pack(*part))
        return ""

    def array(self, array: Array, name: str) -> list[Any]:
        """Write an array; its shape, with the type before it where that is not float32."""
        kind = str(array.dtype)
        if kind not in DTYPES:
            raise ModelError(f"packed file: {name} is {kind}; it holds {', '.join(DTYPES)}")
        flat = np.ascontiguousarray(array).ravel()
        if kind == "float32":
            self.floats.append(flat)
            return list(array.shape)
        self.plain.append(flat.astype(flat.dtype.newbyteorder("<")).view(np.uint8))
        return [kind, *array.shape]

    def finish(self) -> str:
        """Write the float32 arrays; how their exponents were coded."""
        words = np.concatenate([*self.floats, np.zeros(0, np.float32)]).view(np.uint32)
        exponents = ((words >> 23) & 255).astype(np.uint8)
        rest = ((words & 0x7FFFFF) | (words >> 31 << 23)).astype("<u4")
        self.plain.append(rest.view(np.uint8).reshape(-1, 4)[:, :3].ravel())
        return self.numbers(Numbers(exponents, 8), np.bincount(exponents, minlength=256))


def _file(notes: dict[str, Any], written: _Written) -> bytes:
    notes.pop(EXPONENTS, None)
    if marks := written.finish():
        notes[EXPONENTS] = marks
    text = json.dumps(notes, sort_keys=True, separators=(",", ":")).encode()
    short = zlib.compress(text, 9)
    if len(text) > INFLATED * len(short):
        short = zlib.compress(text, 0)
    numbers = np.concatenate([*written.plain, np.zeros(0, np.uint8)])
    sections = {"notes": np.frombuffer(short, np.uint8)}
    if written.series:
        spare = np.zeros(ans.lanes(sum(map(len, written.series))), "<u2")
        free = min(spare.nbytes, len(numbers))
        spare.view(np.uint8)[:free] = numbers[len(numbers) - free :]
        sections["coded"] = ans.encode(written.series, written.tables, spare).astype("<u2").view(np.uint8)
        numbers = numbers[: len(numbers) - free]
    sections["numbers"] = numbers
    data = safetensors.numpy.save(sections, {KEY: (_BASE + b"0" * DIGITS).decode()})
    at = place_of_checksum(data)
    return bytes(data[:at] + checksum(data, at) + data[at + DIGITS :])


def place_of_checksum(data: bytes) -> int:
    """Where the digits of the checksum are.

    Raises:
        ValueError: it is no file of this version.
    """
    mark = f'"{KEY}":"'.encode() + _BASE
    at = data.find(mark, 8, 200) + len(mark)
    if at < len(mark) or len(data) < at + DIGITS:
        raise ValueError(f"no file of version {VERSION}")
    return at


def checksum(data: bytes, at: int) -> bytes:
    whole = hashlib.sha256(data[:at])
    whole.update(b"0" * DIGITS)
    whole.update(memoryview(data)[at + DIGITS :])
    return whole.hexdigest()[:DIGITS].encode()
