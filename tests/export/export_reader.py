"""A reader of packed files made from README.md alone: Python's integers, one weight at a time."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import safetensors.numpy


def header(data: bytes) -> dict[str, Any]:
    """What the file says of itself."""
    text = data[8 : 8 + int.from_bytes(data[:8], "little")]
    return json.loads(json.loads(text)["__metadata__"]["automc"])


def payload(data: bytes) -> int:
    """Bytes behind the header."""
    return len(data) - 8 - int.from_bytes(data[:8], "little")


def numbers(packed: np.ndarray, bits: int, count: int) -> list[int]:
    """``count`` numbers of so many bits, highest bit first, across byte borders; the rest is zeros."""
    text = "".join(format(byte, "08b") for byte in packed.tolist())
    assert len(text) == math.ceil(count * bits / 8) * 8
    assert set(text[count * bits :]) <= {"0"}
    return [int(text[i * bits : (i + 1) * bits], 2) for i in range(count)]


def dense(data: bytes, name: str) -> np.ndarray:
    """One weight of a version 2 file."""
    arrays, note = safetensors.numpy.load(data), header(data)["weights"].get(name)
    if note is None:
        return arrays[name]
    shape, part = (
        note["shape"],
        {p: arrays.get(f"{name}.{p}") for p in ("codes", "values", "scales", "zeros", "levels")},
    )
    kept = positions(note["mask"], arrays[f"{name}.mask"], shape) if "mask" in note else range(math.prod(shape))
    row = math.prod(shape[1:])
    codes = None if part["codes"] is None else numbers(part["codes"], note["bits"], len(kept))
    weight = np.zeros(math.prod(shape), np.float32)
    for i, place in enumerate(kept):
        if codes is None:
            value = part["values"][i]
        elif part["levels"] is not None:
            value = part["levels"][codes[i]]
        elif part["zeros"] is not None:
            value = np.float32(codes[i] - int(part["zeros"][place // row if len(part["zeros"]) > 1 else 0]))
        elif note["bits"] == 1:
            value = np.float32((-1, 1)[codes[i]])
        else:
            value = np.float32(codes[i] - 2 ** (note["bits"] - 1))
        if part["scales"] is not None:
            value = value * part["scales"][place // row if len(part["scales"]) > 1 else 0]
        weight[place] = value
    return weight.reshape(shape)


def positions(note: dict[str, Any], packed: np.ndarray, shape: list[int]) -> list[int]:
    """Row-major positions of the kept weights, ascending."""
    if note["as"] == "gaps":
        place, found = 0, []
        for gap in numbers(packed, note["bits"], note["entries"]):
            place += gap
            if gap < 2 ** note["bits"] - 1:
                found.append(place)
                place += 1
        assert place <= math.prod(shape)
        return found
    rows, length = shape[0], math.prod(shape[1:])
    places = np.arange(math.prod(shape)).reshape(shape)
    if note.get("order") == "channels":
        places = np.moveaxis(places, 1, -1)
    places = places.reshape(rows, length).tolist()
    find = _blocks if note["as"] == "bitmap" else _groups
    return sorted(places[i][j] for i, j in find(note, packed, rows, length))


def _blocks(note: dict[str, Any], packed: np.ndarray, rows: int, length: int) -> list[tuple[int, int]]:
    high, wide = note["block"]
    across = math.ceil(length / wide)
    bits = numbers(packed, 1, math.ceil(rows / high) * across)
    return [(i, j) for i in range(rows) for j in range(length) if bits[i // high * across + j // wide]]


def _groups(note: dict[str, Any], packed: np.ndarray, rows: int, length: int) -> list[tuple[int, int]]:
    n, m = note["n"], note["m"]
    patterns = sorted(
        "".join("1" if i in kept else "0" for i in range(m)) for kept in itertools.combinations(range(m), n)
    )
    across = math.ceil(length / m)
    ranks = numbers(packed, math.ceil(math.log2(len(patterns))), rows * across)
    return [(i, j) for i in range(rows) for j in range(length) if patterns[ranks[i * across + j // m]][j % m] == "1"]
