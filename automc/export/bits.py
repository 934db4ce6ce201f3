"""Numbers of a few bits, packed without gaps. Needs numpy only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def packed_bytes(count: int, bits: int) -> int:
    """How many bytes ``count`` numbers of ``bits`` bits take."""
    return (count * bits + 7) // 8


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
