"""One stored weight as series of numbers, arrays and a note for a file, and back. Needs numpy only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from automc.core.stored import Stored
from automc.errors import ModelError
from automc.export.packed import masks
from automc.export.packed.bits import Array, Numbers, integer, stored_bytes

MOST_WEIGHTS = 2**40

_MASK_NOTE = 30
"""About how many bytes of the deflated notes a mask takes."""

Parts = dict[str, Numbers | Array]
"""Of a weight, in the order of ``layout``."""


class Part(NamedTuple):
    """What a file holds of a weight under one name: a series of numbers of ``bits`` bits, or an array where 0."""

    name: str
    length: int
    bits: int = 0
    dtype: str = "float32"


def encode(stored: Stored, name: str) -> tuple[dict[str, Any], Parts]:
    """The note of a weight, and its parts. A note of nothing: the only part, ``""``, is the weight.

    Raises:
        ModelError: a code or table does not fit the bits.
    """
    notes, mask = (None, None) if stored.mask is None else masks.encode(stored.mask)
    if mask is not None:
        full = _without_mask(stored, mask, name)
        stored, mask = (stored, mask) if full is None else (full, None)
    if stored.codes is None and mask is None and stored.scale is None:
        return {}, {"": stored.dense()}
    note: dict[str, Any] = {"shape": list(stored.shape)}
    parts: Parts = {}
    held = stored.values if stored.codes is None else _unsigned(stored, name)
    assert held is not None
    if mask is not None:
        note["mask"], parts["mask"] = notes, mask
        held = held[stored.mask]
        note["kept"] = held.size
    if stored.codes is None:
        parts["values"] = held.astype(np.float32).ravel()
    else:
        note["bits"], parts["codes"] = stored.bits, Numbers(held.astype(np.uint8).ravel(), stored.bits)
    if stored.scale is not None:
        parts["scales"] = _shared(stored.scale.astype(np.float32))
        note["scales"] = len(parts["scales"])
    if stored.levels is not None:
        parts["levels"], note["levels"] = stored.levels.astype(np.float32), len(stored.levels)
    elif stored.zero is not None:
        small = bool(stored.zero.min() >= 0 and stored.zero.max() <= 255)
        parts["zeros"] = zeros = _shared(stored.zero.astype(np.uint8 if small else np.int16))
        note["zeros"] = [str(zeros.dtype), len(zeros)]
    return note, parts


def layout(note: Mapping[str, Any]) -> Iterator[Part]:
    """The parts of a weight, in the order in which a file has them.

    Args:
        note: of a file, not to be trusted.

    Raises:
        ValueError, KeyError, TypeError: it contradicts itself.
    """
    shape = shape_of(note["shape"])
    kept = math.prod(shape)
    if "mask" in note:
        bits, count = masks.layout(_mapping(note["mask"]), shape)
        yield Part("mask", count, bits)
        kept = integer(note, "kept", 0, kept)
    if "bits" in note:
        yield Part("codes", kept, integer(note, "bits", 1, 8))
    else:
        yield Part("values", kept)
    if "scales" in note:
        yield Part("scales", _each_or_one(note["scales"], shape[0]))
    if "levels" in note:
        yield Part("levels", integer(note, "levels", 1, 2 ** integer(note, "bits", 1, 8)))
    if "zeros" in note:
        kind, count = note["zeros"]
        if kind not in ("uint8", "int16") or "levels" in note:
            raise ValueError(f"zero points are {kind!r}, not uint8 or int16 without levels"[:200])
        yield Part("zeros", _each_or_one(count, shape[0]), dtype=kind)


def decode(note: Mapping[str, Any], parts: Mapping[str, Any]) -> Stored:
    """The weight that ``encode`` wrote; ``dense()`` of it is the same bit for bit.

    Args:
        note: not to be trusted. parts: those of ``layout``, arrays, series as uint8.

    Raises:
        ValueError: they contradict each other.
    """
    shape = shape_of(note["shape"])
    mask = masks.decode(note["mask"], parts["mask"], shape) if "mask" in note else None
    if mask is not None and int(mask.sum()) != note["kept"]:
        raise ValueError(f"the mask keeps {int(mask.sum())} weights, not {note['kept']!r}"[:200])
    scale, zero = (_rows(parts[part], shape[0]) if part in parts else None for part in ("scales", "zeros"))
    if "bits" not in note:
        return Stored(32, scale=scale, mask=mask, values=_spread(parts["values"], mask, shape))
    bits, codes, levels = note["bits"], parts["codes"].astype(np.int16), parts.get("levels")
    if levels is not None and codes.size and codes.max() >= len(levels):
        raise ValueError(f"code {codes.max()} of {len(levels)} levels")
    if zero is not None:
        zero = zero.astype(np.int16)
    elif levels is None:
        codes = codes * 2 - 1 if bits == 1 else codes - (1 << (bits - 1))
    return Stored(bits, _spread(codes, mask, shape), scale, zero, levels, mask)


def shape_of(shape: Any) -> tuple[int, ...]:
    """The shape of a compressed weight in a file.

    Raises:
        ValueError: it is none.
    """
    fits = isinstance(shape, list) and 0 < len(shape) <= 8 and all(type(n) is int and n > 0 for n in shape)
    if not fits or math.prod(shape) > MOST_WEIGHTS:
        raise ValueError(f"shape {shape!r}"[:200])
    return tuple(shape)


def _without_mask(stored: Stored, mask: Numbers, name: str) -> Stored | None:
    """The same weight without its mask, its zeros among the rest, where that is no larger; else None."""
    assert stored.mask is not None
    if stored.codes is None:
        assert stored.values is not None
        full = replace(stored, values=np.where(stored.mask, stored.values, np.float32(0)), mask=None)
        with_mask, without = 4.0 * float(stored.mask.sum()), 4.0 * stored.mask.size
    else:
        codes = np.where(stored.mask, stored.codes, _zero_code(stored)).astype(np.int16)
        full = replace(stored, codes=codes, mask=None)
        with_mask, without = (_code_bytes(each, name) for each in (stored, full))
    if without > with_mask + stored_bytes(np.bincount(mask.values, minlength=1 << mask.bits), mask.bits) + _MASK_NOTE:
        return None
    return full if full.dense().tobytes() == stored.dense().tobytes() else None


def _code_bytes(stored: Stored, name: str) -> float:
    codes = _unsigned(stored, name)
    kept = codes.ravel() if stored.mask is None else codes[stored.mask]
    return stored_bytes(np.bincount(kept, minlength=1 << stored.bits), stored.bits)


def _zero_code(stored: Stored) -> Any:
    """The code of 0, or of what is nearest to it; of every row where they differ."""
    if stored.levels is not None:
        return int(np.argmin(np.abs(stored.levels)))
    if stored.zero is not None:
        return stored.zero.reshape(-1, *[1] * (len(stored.shape) - 1))
    return 1 if stored.bits == 1 else 0


def _unsigned(stored: Stored, name: str) -> Array:
    """Codes as numbers from 0 to 2^bits - 1; those that the mask leaves out do not matter.

    Raises:
        ModelError: one does not fit.
    """
    assert stored.codes is not None
    bits, codes = stored.bits, stored.codes.astype(np.int16)
    low, high = _range(stored)
    kept = codes if stored.mask is None else codes[stored.mask]
    fits = 1 <= bits <= 8 and high < 2**bits and bool(((kept >= low) & (kept <= high)).all())
    if low == -1:  # -1 and +1, nothing between
        fits, codes = fits and bool((kept != 0).all()), (codes + 1) // 2
    elif low < 0:
        codes = codes - low
    if not fits:
        levels = "" if stored.levels is None else f", {len(stored.levels)} levels"
        raise ModelError(
            f"packed file: {name}: a code does not fit {bits} bits (codes {kept.min()} to {kept.max()}{levels})"
        )
    return codes


def _range(stored: Stored) -> tuple[int, int]:
    """The least and the greatest code."""
    if stored.levels is not None:
        return 0, len(stored.levels) - 1
    if stored.zero is not None:
        return 0, 2**stored.bits - 1
    half = 1 << (stored.bits - 1)
    return (-1, 1) if stored.bits == 1 else (-half, half - 1)


def _spread(kept: Array, mask: Array | None, shape: tuple[int, ...]) -> Array:
    if mask is None:
        return kept.reshape(shape)
    full = np.zeros(shape, kept.dtype)
    full[mask] = kept
    return full


def _shared(values: Array) -> Array:
    """One value where all rows have the same."""
    return values[:1] if (values.view(np.uint8).reshape(len(values), -1) == values[:1].view(np.uint8)).all() else values


def _rows(values: Array, rows: int) -> Array:
    return np.ascontiguousarray(np.broadcast_to(values, (rows,)))


def _each_or_one(count: Any, rows: int) -> int:
    if type(count) is not int or count not in (1, rows):
        raise ValueError(f"{count!r} scales or zeros for {rows} rows"[:200])
    return count


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"a mask's note is an object, not {value!r}"[:200])
    return value
