"""A compressed weight as integers: the int8 codes that kernels multiply, and few-bit initializers. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automc.core.stored import Stored

Array = NDArray[Any]

_LARGEST = 127
_SAFE = 63
"""Two products of such a code and a uint8 one fit in 16 bits: some processors sum them there and would saturate."""
_LANES = (1, 2, 4)


@dataclass(frozen=True, eq=False)
class Integers:
    """``weight[r] == codes[r] * scale[r]``, in single precision and but for the sign of zeros exactly.

    Attributes:
        codes: int8, the weight's shape, from -127 to 127. scale: float32, shape (rows,), above 0.
    """

    codes: Array
    scale: Array

    def bias_grid(self, input_scale: float) -> Array:
        """The steps that a bias has where the layer runs in integers: float32, shape (rows,)."""
        return np.float32(input_scale) * self.scale


def integers(stored: Stored) -> Integers | None:
    """A weight as int8 codes with a scale a row, None where it is no such thing (a codebook, say).

    Codes of few bits are multiplied by a power of two, by which the scale is divided, as long as they stay below 64. So
    the step of the bias, the input's scale times the weight's, stays small.
    """
    numbers = _numbers(stored)
    if numbers is None:
        return None
    sizes = np.abs(numbers[numbers != 0])
    unit = float(sizes.min()) if stored.levels is not None and sizes.size else 1.0
    codes = np.round(numbers / np.float32(unit))
    scale = _scale(stored) * np.float32(unit)
    codes, scale = codes * _along(np.sign(scale), codes), np.abs(scale)
    largest = float(np.abs(codes).max(initial=0.0))
    if largest > _LARGEST:
        return None
    factor = max(2.0 ** np.floor(np.log2(_SAFE / largest)), 1.0) if largest else 1.0
    codes, scale = codes * factor, (scale / factor).astype(np.float32)
    empty = ~(codes != 0).reshape(len(codes), -1).any(axis=1)
    scale = np.where(empty, scale[~empty].max(initial=0.0) or 1.0, scale).astype(np.float32)  # a row of zeros
    found = Integers(codes.astype(np.int8), scale)
    same = np.array_equal(found.codes.astype(np.float32) * _along(scale, codes), stored.dense())
    return found if same and (scale > 0).all() else None


@dataclass(frozen=True, eq=False)
class Table:
    """A tensor as places in a table: ``values[places]``.

    Attributes:
        lane: bits of a place, 1, 2, 4 or 8. packed: uint8, shape (bytes, 1): places of less than 8 bits follow each
            other in row-major order, the first in the highest bits, the last byte filled up with zeros.
        values: the table, 1-D. shape: of the tensor.
    """

    lane: int
    packed: Array
    values: Array
    shape: tuple[int, ...]


def table(numbers: Array) -> Table | None:
    """A tensor of at most 256 different numbers as places in a table; None where there are more."""
    small = numbers.dtype == np.float32 and bool((np.abs(numbers) <= _LARGEST).all() and (numbers % 1 == 0).all())
    values, places = _places(numbers.astype(np.int8) if small else numbers)
    values = values.astype(numbers.dtype)
    if len(values) > 256:
        return None
    lane = next((lane for lane in _LANES if len(values) <= 2**lane), 8)
    flat = places.astype(np.uint8).ravel()
    each = 8 // lane
    rows_of_lanes = np.concatenate([flat, np.zeros(-len(flat) % each, np.uint8)]).reshape(-1, each)
    packed = np.zeros((len(rows_of_lanes), 1), np.uint8)
    for column in range(each):
        packed[:, 0] |= rows_of_lanes[:, column] << (8 - lane * (column + 1))
    return Table(lane, packed, values, numbers.shape)


def _places(numbers: Array) -> tuple[Array, Array]:
    """The different numbers in ascending order, and which of them each is; int8 without a sort."""
    if numbers.dtype != np.int8:
        return np.unique(numbers, return_inverse=True)
    shifted = (numbers.astype(np.int16) + 128).ravel()
    there = np.bincount(shifted, minlength=256) > 0
    return (np.flatnonzero(there) - 128).astype(np.int8), (np.cumsum(there) - 1)[shifted]


def rows(stored: Stored) -> tuple[Array, Array] | None:
    """Numbers and scales whose product is the weight but for the sign of zeros; None for float weights."""
    numbers = _numbers(stored)
    if numbers is None:
        return None
    scale = _scale(stored)
    return (numbers, scale) if np.array_equal(numbers * _along(scale, numbers), stored.dense()) else None


def _numbers(stored: Stored) -> Array | None:
    return None if stored.codes is None else replace(stored, scale=None).dense() + np.float32(0)


def _scale(stored: Stored) -> Array:
    assert stored.codes is not None
    return np.ones(len(stored.codes), np.float32) if stored.scale is None else stored.scale.astype(np.float32)


def _along(values: Array, like: Array) -> Array:
    return values.reshape(-1, *[1] * (like.ndim - 1))
