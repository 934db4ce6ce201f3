"""Masks against a decoder that counts bit by bit, and the smallest size by closed form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from export_nets import n_of_m, unstructured
from export_reader import positions
from hypothesis import given, settings
from hypothesis import strategies as st

from automc.export.packed.bits import packed_bytes, stored_bytes
from automc.export.packed.masks import decode, encode, layout

SHAPES = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple)


def scores(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def come_back(mask: np.ndarray) -> tuple[dict[str, Any], int]:
    """The note and the number of bytes, once both decoders have found the mask again."""
    note, (numbers, bits) = encode(mask)
    assert layout(note, mask.shape) == (bits, len(numbers))
    assert positions(note, numbers, list(mask.shape)) == np.flatnonzero(mask).tolist()
    back = decode(note, numbers, mask.shape)
    assert back.dtype == np.bool_
    assert np.array_equal(back, mask)
    return note, packed_bytes(len(numbers), bits)


@given(SHAPES, st.floats(0, 1), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=80)
def test_any_mask_comes_back_and_takes_no_more_than_a_bitmap(shape: tuple[int, ...], share: float, seed: int) -> None:
    mask = unstructured(scores(shape, seed), share)
    assert come_back(mask)[1] <= math.ceil(mask.size / 8)


@given(
    st.integers(1, 6),
    st.integers(1, 5),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([(1, 2), (1, 4), (2, 4), (3, 4), (2, 8), (4, 8), (1, 16), (1, 32)]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=60)
def test_n_of_m_takes_the_bits_of_its_patterns(
    rows: int, groups: int, kernel: int, pattern: tuple[int, int], channels: bool, seed: int
) -> None:
    n, m = pattern
    shape = (rows, groups * m, kernel, kernel) if channels else (rows, groups * m)
    mask = n_of_m(scores(shape, seed), n, m)
    _, size = come_back(mask)
    assert size <= math.ceil(mask.size // m * math.ceil(math.log2(math.comb(m, n))) / 8)


def test_two_of_four_is_told_from_a_bitmap_and_named() -> None:
    note, size = come_back(n_of_m(scores((16, 8, 3, 3), 0), 2, 4))
    assert note == {"as": "groups", "n": 2, "m": 4, "order": "channels"}
    assert size == 16 * 8 * 9 // 4 * 3 // 8  # six patterns, 3 bits; a bitmap takes 4
    note, _ = come_back(n_of_m(scores((16, 48), 0), 1, 4))
    assert note == {"as": "groups", "n": 1, "m": 4}


@pytest.mark.parametrize(("length", "n"), [(27, 2), (27, 3), (9, 1), (25, 2), (6, 3)])
def test_a_rows_last_short_group_keeps_n_or_all_it_has(length: int, n: int) -> None:
    weight = np.abs(scores((12, length), length))
    padded = np.pad(weight, ((0, 0), (0, -length % 4)), constant_values=0.0)
    mask = n_of_m(padded, n, 4)[:, :length]
    note, size = come_back(mask)
    assert note == {"as": "groups", "n": n, "m": 4}
    assert size == math.ceil(12 * math.ceil(length / 4) * math.ceil(math.log2(math.comb(4, n))) / 8)


@given(
    st.integers(1, 20),
    st.integers(1, 30),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(0, 9),
)
@settings(deadline=None, max_examples=60)
def test_blocks_take_a_bit_each(rows: int, length: int, high: int, wide: int, seed: int) -> None:
    blocks = scores((math.ceil(rows / high), math.ceil(length / wide)), seed) > 0
    mask = np.repeat(np.repeat(blocks, high, 0), wide, 1)[:rows, :length]
    assert come_back(mask)[1] <= math.ceil(blocks.size / 8)


def test_whole_kernels_take_a_bit_each() -> None:
    kept = scores((16, 10), 3) > 0
    mask = np.broadcast_to(kept[..., None, None], (16, 10, 3, 3)).copy()
    note, size = come_back(mask)
    assert note == {"as": "bitmap", "block": [1, 9]}
    assert size == 20


@pytest.mark.parametrize("share", [0.95, 0.99, 0.999])
def test_few_kept_weights_are_stored_as_gaps(share: float) -> None:
    mask = unstructured(scores((64, 32, 3, 3), 1), share)
    note, size = come_back(mask)
    assert note["as"] == "gaps"
    flat = mask.ravel()
    gaps, run = [], 0
    for keep in flat.tolist():
        gaps, run = ([*gaps, run], 0) if keep else (gaps, run + 1)

    def bits_of(bits: int) -> int:  # Han et al. 2016: a gap beyond the largest number takes escapes
        escape = 2**bits - 1
        return bits * (sum(gap // escape + 1 for gap in gaps) + run // escape)

    numbers, bits = encode(mask)[1]
    found = stored_bytes(np.bincount(numbers, minlength=2**bits), bits)
    assert found <= min(map(bits_of, range(1, 9))) / 8 + 1
    p = mask.mean()
    entropy = -mask.size * (p * math.log2(p) + (1 - p) * math.log2(1 - p)) / 8
    assert size >= found
    assert found <= 1.02 * entropy + 2**bits + 1  # the places of weights that know nothing of each other


@pytest.mark.parametrize("fill", [False, True])
def test_all_or_nothing(fill: bool) -> None:
    for shape in ((1,), (300,), (7, 5, 3, 3)):
        note, size = come_back(np.full(shape, fill))
        assert note["as"] == ("bitmap" if fill else "gaps")
        assert size <= 1  # however many weights


@pytest.mark.parametrize(
    ("note", "size", "message"),
    [
        ({}, 3, "a mask is a bitmap, gaps or groups, not None"),
        ({"as": "bitmap", "block": [0, 1]}, 3, r"two sides, not \[0, 1\]"),
        ({"as": "bitmap", "block": [10**9, 10**9]}, 1, "at most 64 weights"),
        ({"as": "bitmap", "block": 4}, 3, "two sides, not 4"),
        ({"as": "bitmap", "block": [1, 1], "order": "up"}, 3, "order .* cannot be 'up'"),
        ({"as": "bitmap", "block": [1, 1], "order": "channels"}, 3, "order .* cannot be 'channels'"),
        ({"as": "gaps", "bits": 9, "entries": 1}, 1, "bits must be a whole number from 1 to 8, not 9"),
        ({"as": "gaps", "bits": 8, "entries": 2**40}, 1, "entries must be a whole number from 0 to 24"),
        ({"as": "gaps", "bits": 2, "entries": 4}, 4, "the gaps cover 4 of 24"),
        ({"as": "gaps", "bits": 8, "entries": True}, 1, "entries must be a whole number"),
        ({"as": "groups", "n": 2, "m": 4}, 3, "a group's number is 7 of 6"),
        ({"as": "groups", "n": 4, "m": 4}, 3, "n must be a whole number from 1 to 3, not 4"),
        ({"as": "groups", "n": 16, "m": 32}, 3, "more than 256 ways|has no group of 32"),
        ({"as": "groups", "n": 1, "m": 16}, 3, "has no group of 16"),
    ],
)
def test_a_note_that_contradicts_the_bytes_is_refused(note: dict[str, Any], size: int, message: str) -> None:
    numbers = np.zeros(size, np.uint8) if note.get("as") == "gaps" else np.full(size, 7, np.uint8)
    with pytest.raises(ValueError, match=message):
        decode(note, numbers, (6, 4))
