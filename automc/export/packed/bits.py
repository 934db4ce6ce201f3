"""Numbers of a few bits, packed without gaps, and what a series of them costs. Needs numpy only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

FINEST = 5
"""The frequencies of a series of many bits are those of its numbers' first five: 32 blocks are enough for weights."""


class Numbers(NamedTuple):
    """A series of numbers from 0 to ``2^bits - 1``, uint8, 1-D."""

    values: NDArray[np.uint8]
    bits: int


def packed_bytes(count: int, bits: int) -> int:
    """How many bytes ``count`` numbers of ``bits`` bits take."""
    return (count * bits + 7) // 8


def stored_bytes(counts: Array, bits: int) -> float:
    """About how many bytes a series takes in a file, packed or coded by its frequencies, whichever is less.

    Args:
        counts: how often each number is there, shape (2^bits,).
    """
    count, blocks = int(counts.sum()), blocks_of(counts, bits)
    seen = blocks[blocks > 0]
    entropy = float(-(seen * np.log2(seen / max(count, 1))).sum()) + count * (bits - min(bits, FINEST))
    return min(float(packed_bytes(count, bits)), entropy / 8 + 1.2 * len(blocks))


def blocks_of(counts: Array, bits: int) -> Array:
    """How often the numbers of each block are there; a block has the same first bits, FINEST at most."""
    return np.asarray(counts.reshape(1 << min(bits, FINEST), -1).sum(axis=1))


def pack(numbers: Array, bits: int) -> NDArray[np.uint8]:
    """Numbers from 0 to ``2^bits - 1``, each in ``bits`` bits (1 to 8), highest first; the last byte ends with zeros.

    Args:
        numbers: any shape, read in row-major order.
    """
    flat = np.ascontiguousarray(numbers, np.uint8).ravel()
    return flat if bits == 8 else np.packbits(np.unpackbits(flat[:, None], axis=1)[:, 8 - bits :])


def unpack(packed: Array, bits: int, count: int) -> NDArray[np.uint8]:
    """The ``count`` numbers that ``pack`` packed, shape (count,).

    Raises:
        ValueError: so many numbers take another number of bytes.
    """
    if packed.dtype != np.uint8 or packed.shape != (packed_bytes(count, bits),):
        raise ValueError(f"{packed.dtype} {packed.shape} does not hold {count} numbers of {bits} bits")
    if bits == 8:
        return packed
    planes = np.unpackbits(packed, count=count * bits).reshape(count, bits)
    return np.packbits(np.pad(planes, ((0, 0), (8 - bits, 0))), axis=1).reshape(count)


def integer(note: Mapping[str, Any], key: str, low: int, high: int) -> int:
    """A whole number of a header.

    Raises:
        ValueError: it is none, or outside of low to high.
    """
    value = note.get(key)
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{key} must be a whole number from {low} to {high}, not {value!r}")
    return value
