"""One stored weight as arrays of a file and a note for its header, and back. Needs numpy only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from automc.core.stored import Stored
from automc.errors import ModelError
from automc.export import masks
from automc.export.bits import Array, pack, packed_bytes, unpack
from automc.export.masks import integer

PARTS = ("codes", "values", "scales", "zeros", "levels", "mask")
"""What the arrays of a stored weight are called, behind its name and a dot."""

MOST_WEIGHTS = 2**40

_MASK_HEADER = 130
"""About how many bytes of the header a mask takes: its array's entry and its note."""


def encode(stored: Stored, name: str) -> tuple[dict[str, Any], dict[str, Array]]:
    """The header's note of a weight, and its arrays by part. A note of nothing: the only array, ``""``, is the weight.

    Raises:
        ModelError: a code or table does not fit the bits.
    """
    notes, mask = (None, None) if stored.mask is None else masks.encode(stored.mask)
    if mask is not None:
        full = _without_mask(stored, len(mask))
        stored, mask = (stored, mask) if full is None else (full, None)
    if stored.codes is None and mask is None and stored.scale is None:
        return {}, {"": stored.dense()}
    note: dict[str, Any] = {"shape": list(stored.shape)}
    arrays: dict[str, Array] = {}
    held = stored.values if stored.codes is None else _unsigned(stored, name)
    assert held is not None
    if mask is not None:
        note["mask"], arrays["mask"] = notes, mask
        held = held[stored.mask]
    if stored.codes is None:
        arrays["values"] = held.astype(np.float32).ravel()
    else:
        note["bits"], arrays["codes"] = stored.bits, pack(held, stored.bits)
    if stored.scale is not None:
        arrays["scales"] = _shared(stored.scale.astype(np.float32))
    if stored.levels is not None:
        arrays["levels"] = stored.levels.astype(np.float32)
    elif stored.zero is not None:
        small = bool(stored.zero.min() >= 0 and stored.zero.max() <= 255)
        arrays["zeros"] = _shared(stored.zero.astype(np.uint8 if small else np.int16))
    return note, arrays


def decode(note: Mapping[str, Any], arrays: Mapping[str, Array]) -> Stored:
    """The weight that ``encode`` wrote; ``dense()`` of it is the same bit for bit.

    Args:
        note: of the header, not to be trusted. arrays: by part.

    Raises:
        ValueError: it contradicts itself. KeyError: a part is missing.
    """
    shape = _shape(note)
    if "zeros" in arrays and "levels" in arrays:
        raise ValueError("it has zero points and levels")
    mask = masks.decode(_mapping(note["mask"]), arrays["mask"], shape) if "mask" in note else None
    kept = math.prod(shape) if mask is None else int(mask.sum())
    scale = _rows(arrays["scales"], shape[0], (np.float32,)) if "scales" in arrays else None
    if "bits" not in note:
        values = arrays["values"]
        if values.dtype != np.float32 or values.shape != (kept,):
            raise ValueError(f"values are {values.dtype} {values.shape}, not float32 ({kept},)")
        return Stored(32, scale=scale, mask=mask, values=_spread(values, mask, shape))
    bits = integer(note, "bits", 1, 8)
    codes = unpack(arrays["codes"], bits, kept).astype(np.int16)
    zero, levels = None, arrays.get("levels")
    if levels is not None:
        if levels.dtype != np.float32 or levels.ndim != 1 or not 1 <= len(levels) <= 2**bits:
            raise ValueError(f"levels are {levels.dtype} {levels.shape}")
        if codes.size and codes.max() >= len(levels):
            raise ValueError(f"code {codes.max()} of {len(levels)} levels")
    elif "zeros" in arrays:
        zero = _rows(arrays["zeros"], shape[0], (np.uint8, np.int16)).astype(np.int16)
    else:
        codes = codes * 2 - 1 if bits == 1 else codes - (1 << (bits - 1))
    return Stored(bits, _spread(codes, mask, shape), scale, zero, levels, mask)


def _without_mask(stored: Stored, mask_bytes: int) -> Stored | None:
    """The same weight without its mask, its zeros among the rest, where that is no larger; else None."""
    assert stored.mask is not None
    kept = packed_bytes(int(stored.mask.sum()), stored.bits)
    if packed_bytes(stored.mask.size, stored.bits) > mask_bytes + kept + _MASK_HEADER:
        return None
    if stored.codes is None:
        assert stored.values is not None
        full = replace(stored, values=np.where(stored.mask, stored.values, np.float32(0)), mask=None)
    else:
        codes = np.where(stored.mask, stored.codes, _zero_code(stored)).astype(np.int16)
        full = replace(stored, codes=codes, mask=None)
    return full if full.dense().tobytes() == stored.dense().tobytes() else None


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


def _rows(values: Array, rows: int, kinds: tuple[Any, ...]) -> Array:
    if values.dtype not in kinds or values.shape not in ((rows,), (1,)):
        raise ValueError(f"scales or zeros are {values.dtype} {values.shape} for {rows} rows")
    return np.ascontiguousarray(np.broadcast_to(values, (rows,)))


def _shape(note: Mapping[str, Any]) -> tuple[int, ...]:
    shape = note["shape"]
    fits = isinstance(shape, list) and 0 < len(shape) <= 8 and all(type(n) is int and n > 0 for n in shape)
    if not fits or math.prod(shape) > MOST_WEIGHTS:
        raise ValueError(f"shape {shape!r}"[:200])
    return tuple(shape)


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"a mask's note is an object, not {value!r}"[:200])
    return value
