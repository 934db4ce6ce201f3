"""Which weights of a sparse tensor are kept: a bitmap, gaps, or N of every M, whichever is smallest. Needs numpy only.

Bitmaps and groups read a weight as a matrix with one row an output channel, row-major or with the input channels of a
convolution side by side. Every encoding is a series of numbers that says something of all weights, so a reader can
check a shape against it before it makes an array: packed, no byte of it stands for more than 512 weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from automc.export.packed.bits import Array, Numbers, integer, stored_bytes

Note = dict[str, Any]

LARGEST_BLOCK = 64
_SIDES = (1, 2, 4, 8, 16, 32, 64)
_GROUPS = (2, 4, 8, 16, 32)
_GLANCE = 64
"""Columns of a mask looked at before all are: most masks are no pattern, and show it at once."""


class _Candidate(NamedTuple):
    counts: Array
    bits: int
    note: Note
    numbers: Callable[[], Array]

    @property
    def size(self) -> float:
        return stored_bytes(self.counts, self.bits) + int(self.counts.sum()) / 2048  # of two alike, the shorter series


def encode(mask: Array) -> tuple[Note, Numbers]:
    """The smallest encoding of a mask: what the header says of it, and its numbers.

    Args:
        mask: bool, shape (rows, ...).
    """
    best = min([*_bitmaps(mask), *_gaps(mask), *_groups(mask)], key=lambda candidate: candidate.size)
    return best.note, Numbers(best.numbers().astype(np.uint8).ravel(), best.bits)


def layout(note: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[int, int]:
    """Of the numbers of a mask the bits of each, and how many there are; never more than weights.

    Raises:
        ValueError: the note contradicts itself or the shape.
    """
    kind = note.get("as")
    if kind == "gaps":
        return integer(note, "bits", 1, 8), integer(note, "entries", 0, math.prod(shape))
    _, (rows, length) = _matrix_size(note.get("order", "rows"), shape)
    if kind == "bitmap":
        high, wide = _block(note)
        return 1, -(-rows // high) * -(-length // wide)
    if kind == "groups":
        m = integer(note, "m", 2, max(_GROUPS))
        n = integer(note, "n", 1, m - 1)
        if length < m:
            raise ValueError(f"a row of {length} weights has no group of {m}")
        return _bits(n, m), rows * -(-length // m)
    raise ValueError(f"a mask is a bitmap, gaps or groups, not {kind!r}"[:200])


def decode(note: Mapping[str, Any], numbers: Array, shape: tuple[int, ...]) -> Array:
    """The mask that ``encode`` wrote, bool, of this shape.

    Args:
        note: of the header, not to be trusted. numbers: as many as ``layout`` says, uint8.

    Raises:
        ValueError: note, numbers and shape contradict each other.
    """
    bits, _ = layout(note, shape)
    if note["as"] == "gaps":
        return _from_gaps(numbers, 2**bits - 1, math.prod(shape)).reshape(shape)
    order, size = _matrix_size(note.get("order", "rows"), shape)
    if note["as"] == "bitmap":
        matrix = _from_bitmap(numbers, _block(note), size)
    else:
        matrix = _from_groups(numbers, note["n"], note["m"], size)
    return matrix.reshape(shape) if order == "rows" else _channels_back(matrix, shape)


def _bitmaps(mask: Array) -> Iterator[_Candidate]:
    """One bit a block of weights that are kept or left together; blocks at the edges may be smaller."""
    columns = sorted({*_SIDES, math.prod(mask.shape[2:])})
    for order, matrix in _matrices(mask):
        failed: list[tuple[int, int]] = []  # a block that is made of such blocks fails too
        for high, wide in ((h, w) for h in _SIDES for w in columns if h * w <= LARGEST_BLOCK):
            if any(high % h == 0 and wide % w == 0 for h, w in failed):
                continue
            if not all(_uniform(part, high, wide) for part in (matrix[:high, :_GLANCE], matrix)):
                failed.append((high, wide))
                continue
            bits = matrix[::high, ::wide]
            note = {"as": "bitmap", "block": [high, wide], **order}
            kept = np.count_nonzero(bits)
            yield _Candidate(np.array([bits.size - kept, kept]), 1, note, lambda bits=bits: bits)  # type: ignore[misc]


def _uniform(matrix: Array, high: int, wide: int) -> bool:
    if high == wide == 1:
        return True
    rows, length = matrix.shape
    whole = np.pad(matrix, ((0, -rows % high), (0, -length % wide)), mode="edge")
    blocks = whole.reshape(whole.shape[0] // high, high, whole.shape[1] // wide, wide)
    return bool((blocks == blocks[:, :1, :, :1]).all())


def _from_bitmap(numbers: Array, block: tuple[int, int], size: tuple[int, int]) -> Array:
    down, across = (-(-side // part) for side, part in zip(size, block, strict=True))
    bits = numbers.reshape(down, across).astype(np.bool_)
    return np.repeat(np.repeat(bits, block[0], axis=0)[: size[0]], block[1], axis=1)[:, : size[1]]


def _block(note: Mapping[str, Any]) -> tuple[int, int]:
    block = note.get("block")
    if not isinstance(block, list) or len(block) != 2 or not all(type(n) is int and n > 0 for n in block):
        raise ValueError(f"a block has two sides, not {block!r}"[:200])
    if block[0] * block[1] > LARGEST_BLOCK:
        raise ValueError(f"a block has at most {LARGEST_BLOCK} weights, not {block[0]} x {block[1]}"[:200])
    return block[0], block[1]


def _gaps(mask: Array) -> Iterator[_Candidate]:
    """In row-major order, before each kept weight the number of those left out, in a few bits.

    Han et al. (2016), relative index. The largest number, ``2^bits - 1``, is an escape: so many are left out, and no
    kept one follows yet.
    """
    kept = np.flatnonzero(mask)
    gaps = np.diff(kept, prepend=-1) - 1
    rest = mask.size - (int(kept[-1]) + 1 if kept.size else 0)
    lengths, often = np.unique(gaps, return_counts=True)
    for bits in range(1, 9):
        escape = 2**bits - 1
        counts = np.bincount(lengths % escape, often, escape + 1).astype(np.int64)
        counts[escape] = int((lengths // escape * often).sum()) + rest // escape
        entries = int(counts.sum())
        if entries <= mask.size:
            note = {"as": "gaps", "bits": bits, "entries": entries}
            numbers = lambda escape=escape, entries=entries: _entries(gaps, escape, entries)  # noqa: E731
            yield _Candidate(counts, bits, note, numbers)


def _entries(gaps: Array, escape: int, entries: int) -> Array:
    found = np.full(entries, escape, np.uint8)
    found[np.cumsum(gaps // escape + 1) - 1] = gaps % escape
    return found


def _from_gaps(entries: Array, escape: int, count: int) -> Array:
    ends = np.cumsum(np.where(entries == escape, escape, entries.astype(np.int64) + 1))
    covered = int(ends[-1]) if ends.size else 0
    if not 0 <= count - covered < escape:
        raise ValueError(f"the gaps cover {covered} of {count} weights")
    flat = np.zeros(count, np.bool_)
    flat[ends[entries != escape] - 1] = True
    return flat


def _groups(mask: Array) -> Iterator[_Candidate]:
    """N kept of every M that follow each other in a row: the number of each group's pattern among all that there are.

    A row's last group, where it is short, is filled up with left-out weights, or with kept ones as far as it lacks
    kept ones.
    """
    for order, matrix in _matrices(mask):
        for m in _GROUPS:
            n = int(matrix[0, :m].sum())
            if matrix.shape[1] < m or not 0 < n < m or math.comb(m, n) > 256:
                continue
            if not all(_keeps(_filled(part, n, m), n) for part in (matrix[:1], matrix)):
                continue
            ranks = _ranks(_filled(matrix, n, m), n, m)
            counts = np.bincount(ranks, minlength=1 << _bits(n, m))
            note = {"as": "groups", "n": n, "m": m, **order}
            yield _Candidate(counts, _bits(n, m), note, lambda ranks=ranks: ranks)  # type: ignore[misc]


def _keeps(groups: Array, n: int) -> bool:
    return bool((groups.sum(axis=1) == n).all())


def _filled(matrix: Array, n: int, m: int) -> Array:
    """The rows of a mask in groups of m, the last of each filled up; shape (groups, m)."""
    rows, length = matrix.shape
    short = -length % m
    if not short:
        return matrix.reshape(-1, m)
    filling = np.arange(short) < n - (m - short)
    return np.concatenate([matrix, np.broadcast_to(filling, (rows, short))], axis=1).reshape(-1, m)


def _ranks(groups: Array, n: int, m: int) -> Array:
    numbers = groups @ (1 << np.arange(m - 1, -1, -1))
    return np.asarray(np.searchsorted(_table(n, m), numbers))


def _from_groups(ranks: Array, n: int, m: int, size: tuple[int, int]) -> Array:
    table, across = _table(n, m), -(-size[1] // m)
    if ranks.max() >= len(table):
        raise ValueError(f"a group's number is {ranks.max()} of {len(table)}")
    patterns = ((table[:, None] >> np.arange(m - 1, -1, -1)) & 1).astype(np.bool_)
    return np.ascontiguousarray(patterns[ranks].reshape(size[0], across * m)[:, : size[1]])


@cache
def _table(n: int, m: int) -> Array:
    """All patterns with n of m kept, as binary numbers with the first weight as the highest bit, ascending.

    Raises:
        ValueError: there are more than 256.
    """
    if math.comb(m, n) > 256:
        raise ValueError(f"there are more than 256 ways to keep {n} of {m}")
    return np.array(sorted(sum(1 << (m - 1 - i) for i in kept) for kept in combinations(range(m), n)), np.int64)


def _bits(n: int, m: int) -> int:
    return (len(_table(n, m)) - 1).bit_length()


def _matrices(mask: Array) -> Iterator[tuple[Note, Array]]:
    """The mask with one row an output channel: row-major, and with the input channels side by side."""
    rows = len(mask)
    yield {}, mask.reshape(rows, -1)
    if mask.ndim > 2 and mask.shape[1] > 1 and math.prod(mask.shape[2:]) > 1:
        yield {"order": "channels"}, np.moveaxis(mask, 1, -1).reshape(rows, -1)


def _matrix_size(order: Any, shape: tuple[int, ...]) -> tuple[str, tuple[int, int]]:
    if order != "rows" and (order != "channels" or len(shape) < 3):
        raise ValueError(f"the order of a mask of shape {shape} cannot be {order!r}"[:200])
    return order, (shape[0], math.prod(shape[1:]))


def _channels_back(matrix: Array, shape: tuple[int, ...]) -> Array:
    return np.ascontiguousarray(np.moveaxis(matrix.reshape(shape[0], *shape[2:], shape[1]), -1, 1))
