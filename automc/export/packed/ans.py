"""Numbers in about as few bits as their frequencies allow: range ANS with static tables. Needs numpy only.

Duda (2013), "Asymmetric numeral systems", arXiv:1311.2540; many coders side by side as in Giesen (2014), "Interleaved
entropy coders", arXiv:1402.3392. All arithmetic is of whole numbers, so every machine writes the same words. A number i
belongs to lane ``i % lanes``; a lane's state is from 2^16 to 2^32 - 1 and gives or takes 16 bits at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from automc.export.packed.bits import Array

PRECISION = 14
"""The frequencies of all numbers of a table add up to 2^14."""

_STEPS, _MOST_LANES = 512, 1024
_LOW = 1 << 16


class Table(NamedTuple):
    """How often the numbers of ``bits`` bits are: frequency and the sum of those before, uint32, shape (2^bits,)."""

    often: Array
    before: Array


def lanes(count: int) -> int:
    """How many coders so many numbers have: a power of two, at most 1,024, so that each has 512 numbers or more."""
    return 1 << min(max(count // _STEPS, 1).bit_length() - 1, _MOST_LANES.bit_length() - 1)


def table_of(marks: bytes, bits: int) -> Table:
    """The table that a file describes with one byte for each 2^k numbers of ``bits`` bits that follow each other.

    A byte b above 0 is the weight ``(16 + b % 16) * 2^(b // 16)``, 0 is none. With W the sum of the weights and n of
    them above 0, each such block has the frequency ``1 + floor(weight * (2^(14 - k) - n) / W)``, the largest (the first
    of them) also what is left of 2^(14 - k); each number in a block has its block's.

    Raises:
        ValueError: no power of two of bytes, more than there are numbers, or all are 0.
    """
    blocks, shift = len(marks), bits - (len(marks).bit_length() - 1)
    if not blocks or blocks & (blocks - 1) or shift < 0 or not any(marks):
        raise ValueError(f"{blocks} frequencies for numbers of {bits} bits, the largest {max(marks, default=0)}")
    marked = np.frombuffer(marks, np.uint8).astype(np.int64)
    weights = np.where(marked > 0, (16 + marked % 16) << (marked // 16), 0)
    rest = (1 << (PRECISION - shift)) - np.count_nonzero(weights)
    often = np.where(weights > 0, 1 + weights * rest // weights.sum(), 0)
    often[np.argmax(weights)] += (1 << (PRECISION - shift)) - often.sum()
    often = np.repeat(often, 1 << shift).astype(np.uint32)
    return Table(often, (np.cumsum(often) - often).astype(np.uint32))


def marks_of(counts: Array) -> bytes:
    """The bytes for ``table_of`` that come nearest to these counts, of which one is above 0; within 3 % each."""
    part, power = np.frexp(counts / counts.max())
    marks = ((power + 14) * 16 + np.rint(part * 32) - 16).clip(1, 255)
    return bytes(np.where(counts > 0, marks, 0).astype(np.uint8))


def encode(numbers: Sequence[Array], tables: Sequence[Table], spare: Array) -> Array:
    """Series of numbers, each with its table, as one array of words, uint16.

    Args:
        numbers: whole, each of a frequency above 0. spare: uint16, shape (lanes,): words that travel for nothing.

    Returns:
        The lanes' last states (lower half first), then the words in the order in which a reader wants them.
    """
    count = sum(map(len, numbers))
    wide, steps = len(spare), -(-count // len(spare))
    often = np.full(steps * wide, 1 << PRECISION, np.uint32)  # what fills the last step changes no state
    before = np.zeros(steps * wide, np.uint32)
    np.concatenate([t.often[n] for n, t in zip(numbers, tables, strict=True)], out=often[:count])
    np.concatenate([t.before[n] for n, t in zip(numbers, tables, strict=True)], out=before[:count])
    words, full = np.empty((steps, wide), np.uint16), np.empty((steps, wide), np.bool_)
    state = spare.astype(np.uint32) | np.uint32(_LOW)
    for step in range(steps - 1, -1, -1):
        here = slice(step * wide, (step + 1) * wide)
        freq = often[here]
        over = np.greater_equal(state >> (32 - PRECISION), freq, out=full[step])
        words[step] = state
        state >>= over.astype(np.uint32) << 4
        quotient = state // freq
        state += quotient * ((1 << PRECISION) - freq) + before[here]
    return np.concatenate([state.astype("<u4").view("<u2"), words[full]])


def decode(words: Array, counts: Sequence[int], tables: Sequence[Table]) -> tuple[list[Array], Array]:
    """The series that ``encode`` wrote, uint8, and the spare words.

    Args:
        words: uint16, not to be trusted. counts: length of each series; the caller has seen that they can be true.

    Raises:
        ValueError: there are too few or too many words, or the states do not end where the writer began.
    """
    count = sum(counts)
    wide = lanes(count)
    steps, at = -(-count // wide), 2 * wide
    if len(words) < at:
        raise ValueError(f"{len(words)} words for {wide} lanes")
    state = words[:at].astype("<u2").view("<u4").astype(np.uint32)
    slots, which = _slots(tables), np.full(steps * wide, len(tables), np.uint32)
    which[:count] = np.repeat(np.arange(len(tables), dtype=np.uint32), counts)
    which <<= PRECISION
    found = np.empty((steps, wide), np.uint8)
    for step in range(steps):
        slot = (state & ((1 << PRECISION) - 1)) | which[step * wide : (step + 1) * wide]
        found[step] = slots.number[slot]
        state = slots.often[slot] * (state >> PRECISION) + slots.inside[slot]
        under = np.flatnonzero(state < _LOW)
        taken = words[at : at + len(under)]
        if len(taken) < len(under):
            raise ValueError(f"{len(words)} words end before the numbers do")
        state[under] = (state[under] << 16) | taken
        at += len(under)
    if at != len(words) or (state >> 16 != 1).any():
        raise ValueError("the words do not end where the numbers do")
    return np.split(found.ravel()[:count], np.cumsum(counts)[:-1]), (state & (_LOW - 1)).astype(np.uint16)


class _Slots(NamedTuple):
    """By the low bits of a state, a table after the other: the number, its frequency, the place among its slots.

    80 KiB a table: a reader allows one for each 64 bytes of a file.
    """

    number: Array
    often: Array
    inside: Array


def _slots(tables: Sequence[Table]) -> _Slots:
    nothing = Table(np.array([1 << PRECISION], np.uint32), np.zeros(1, np.uint32))
    every = (*tables, nothing)
    number = [np.repeat(np.arange(len(t.often), dtype=np.uint8), t.often) for t in every]
    often = [np.repeat(t.often.astype(np.uint16), t.often) for t in every]
    place = np.arange(1 << PRECISION, dtype=np.uint16)
    inside = [place - np.repeat(t.before.astype(np.uint16), t.often) for t in every]
    return _Slots(np.concatenate(number), np.concatenate(often), np.concatenate(inside))
