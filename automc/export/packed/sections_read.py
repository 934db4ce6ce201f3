"""Reading version 3 of the packed file, which nothing is trusted of. Needs numpy only.

Every length is checked before anything of that length is made, and the memory it takes is bounded by the file's length.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

from automc.export.packed import ans
from automc.export.packed.bits import Array, packed_bytes, unpack
from automc.export.packed.encoding import MOST_WEIGHTS, layout, shape_of
from automc.export.packed.sections import (
    BYTES_PER_TABLE,
    DIGITS,
    DTYPES,
    EXPONENTS,
    INFLATED,
    WEIGHTS_PER_BYTE,
    checksum,
    place_of_checksum,
)


def split(data: bytes) -> tuple[dict[str, tuple[dict[str, Any], dict[str, Array]]], dict[str, Array]]:
    """By name the weights' notes and parts (series as uint8), and all other arrays.

    Raises:
        ValueError, KeyError, TypeError, SafetensorError: it is no whole file.
    """
    at = place_of_checksum(data)
    if data[at : at + DIGITS] != checksum(data, at):
        raise ValueError("its checksum is another: it was changed or cut after it was written")
    sections = safetensors.numpy.load(data)
    if any(each.dtype != np.uint8 or each.ndim != 1 for each in sections.values()):
        raise ValueError("its sections are bytes")
    notes = _inflated(sections["notes"].tobytes())
    weights, shapes = notes["weights"], {name: _typed(note) for name, note in notes["arrays"].items()}
    if sum(math.prod(shape_of(note["shape"])) for note in weights.values()) > WEIGHTS_PER_BYTE * len(data):
        raise ValueError(f"{len(data)} bytes cannot hold so many weights")
    items = {(name, part): item for name in sorted(weights) for part, item in _items(weights[name])}
    items |= {(name, ""): _Item(math.prod(shape), 0, kind) for name, (kind, shape) in sorted(shapes.items())}
    if len(items) != sum(1 for name in weights for _ in layout(weights[name])) + len(shapes) or weights.keys() & shapes:
        raise ValueError("a name is there twice")
    values = _values(items, str(notes.get(EXPONENTS, "")), sections, len(data))
    parts: dict[str, dict[str, Array]] = {name: {} for name in weights}
    for (name, part), each in values.items():
        if part:
            parts[name][part] = each
    plain = {name: values[name, ""].reshape(shape) for name, (_, shape) in shapes.items()}
    return {name: (note, parts[name]) for name, note in weights.items()}, plain


class _Item(NamedTuple):
    """A series of numbers of so many bits, coded with these frequencies (hexadecimal) or not, or an array."""

    length: int
    bits: int
    dtype: str = "uint8"
    marks: str = ""

    @property
    def packed(self) -> int:
        """Bytes in the section ``numbers``."""
        return 0 if self.marks else packed_bytes(self.length, self.bits or 8 * np.dtype(self.dtype).itemsize)


def _items(note: Mapping[str, Any]) -> Iterator[tuple[str, _Item]]:
    coded = note.get("coded", {})
    for part in layout(note):
        series = _Item(part.length, part.bits, marks=str(coded.get(part.name, "")))
        yield part.name, series if part.bits else _Item(part.length, 0, part.dtype)


def _values(items: dict[Any, _Item], exponents: str, sections: Mapping[str, Array], size: int) -> dict[Any, Array]:
    """Every series and array, 1-D, out of the sections of a file of this size."""
    floats = {key: item.length for key, item in items.items() if item.dtype == "float32"}
    count = sum(floats.values())
    series = {key: item for key, item in items.items() if key not in floats}
    series |= {"rest": _Item(3 * count, 8), EXPONENTS: _Item(count, 8, marks=exponents)}
    coded = [item for item in series.values() if item.marks]
    if len(coded) * BYTES_PER_TABLE > size:
        raise ValueError(f"{len(coded)} tables of frequencies in {size} bytes")
    numbers, length = sections["numbers"], sum(item.packed for item in series.values())
    decoded: list[Array] = []
    if coded:
        tables = [ans.table_of(bytes.fromhex(item.marks), item.bits) for item in coded]
        decoded, spare = ans.decode(sections["coded"].view("<u2"), [item.length for item in coded], tables)
        numbers = np.concatenate([numbers, spare.astype("<u2").view(np.uint8)[: min(2 * len(spare), length)]])
    if len(numbers) != length:
        raise ValueError(f"{len(numbers)} bytes of numbers, the notes speak of {length}")
    values, at, following = {}, 0, iter(decoded)
    for key, item in series.items():
        values[key] = next(following) if item.marks else _plain(numbers[at : at + item.packed], item)
        at += item.packed
    rest = np.pad(values.pop("rest").reshape(-1, 3), ((0, 0), (0, 1))).view("<u4").astype(np.uint32).ravel()
    words = (rest & 0x7FFFFF) | (rest >> 23 << 31) | (values.pop(EXPONENTS).astype(np.uint32) << 23)
    ends = np.cumsum([*floats.values()])
    return values | dict(zip(floats, np.split(words.view(np.float32), ends[:-1]), strict=True) if floats else ())


def _plain(packed: Array, item: _Item) -> Array:
    if item.bits:
        return unpack(packed, item.bits, item.length)
    kind = np.dtype(item.dtype)
    if item.dtype == "bool" and packed.max(initial=0) > 1:
        raise ValueError("a truth value above 1")
    return packed.view(kind.newbyteorder("<")).astype(kind)


def _typed(note: Any) -> tuple[str, tuple[int, ...]]:
    """Type and shape of an array."""
    kind, shape = ("float32", note) if not note or type(note[0]) is int else (note[0], note[1:])
    fits = isinstance(note, list) and len(shape) <= 32 and all(type(n) is int and n >= 0 for n in shape)
    if kind not in DTYPES or not fits or math.prod(max(n, 1) for n in shape) > MOST_WEIGHTS:
        raise ValueError(f"an array of {note!r}"[:200])
    return kind, tuple(shape)


def _inflated(short: bytes) -> dict[str, Any]:
    inflate = zlib.decompressobj()
    text = inflate.decompress(short, INFLATED * len(short))
    if not inflate.eof or inflate.unconsumed_tail or inflate.unused_data:
        raise ValueError("its notes are cut off, or longer than notes are")
    notes: dict[str, Any] = json.loads(text)
    return notes
