"""A reader of packed files of version 3 made from README.md alone: Python's integers, one number at a time."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import safetensors.numpy


def header(data: bytes) -> dict[str, Any]:
    """What the file says of itself."""
    return json.loads(zlib.decompress(safetensors.numpy.load(data)["notes"].tobytes()))


def payload(data: bytes) -> int:
    """Bytes of the sections with numbers."""
    return sum(each.nbytes for name, each in safetensors.numpy.load(data).items() if name != "notes")


def sealed(data: bytes) -> bytes:
    """The file with its checksum made anew."""
    found = re.search(rb'"automc":"3 ([0-9a-f]{16})"', data)
    assert found is not None
    blank = data[: found.start(1)] + b"0" * 16 + data[found.end(1) :]
    return data[: found.start(1)] + hashlib.sha256(blank).hexdigest()[:16].encode() + data[found.end(1) :]


def content(data: bytes) -> dict[str, np.ndarray]:
    """Every tensor of the network by name."""
    assert sealed(data) == data
    notes, sections = header(data), safetensors.numpy.load(data)
    series, floats = list(_series(notes)), 0
    for item in series:
        if item["bits"] == "float32":
            floats += item["length"]
    series += [{"key": "rest", "length": 3 * floats, "bits": 8, "marks": ""}]
    series += [{"key": "exponents", "length": floats, "bits": 8, "marks": notes.get("exponents", "")}]
    coded = [item for item in series if item["marks"]]
    numbers = sections["numbers"].tobytes()
    if coded:
        values, spare = _decoded(sections["coded"].tobytes(), coded)
        length = sum(_bytes(item) for item in series if not item["marks"] and item["bits"] != "float32")
        numbers += spare[: min(len(spare), length)]
        for item in coded:
            item["values"] = [next(values) for _ in range(item["length"])]
    at = 0
    for item in series:
        if item["bits"] != "float32" and not item["marks"]:
            raw, at = numbers[at : at + _bytes(item)], at + _bytes(item)
            item["values"] = _plain(raw, item)
    assert at == len(numbers)
    rest, exponents = series[-2]["values"], iter(series[-1]["values"])
    halves = (rest[i] | rest[i + 1] << 8 | rest[i + 2] << 16 for i in range(0, len(rest), 3))
    for item in series:
        if item["bits"] == "float32":
            words = [
                (half & 0x7FFFFF) | half >> 23 << 31 | next(exponents) << 23
                for half in itertools.islice(halves, item["length"])
            ]
            item["values"] = np.frombuffer(struct.pack(f"<{len(words)}I", *words), "<f4")
    values = {item["key"]: item["values"] for item in series}
    found = {name: _dense(note, name, values) for name, note in notes["weights"].items()}
    for name, note in notes["arrays"].items():
        found[name] = np.array(values[name]).reshape(note[1:] if note and isinstance(note[0], str) else note)
    return found


def dense(data: bytes, name: str) -> np.ndarray:
    """One tensor of a file."""
    return content(data)[name]


def _series(notes: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Everything that the file holds, in its order."""
    for name, note in sorted(notes["weights"].items()):
        coded = note.get("coded", {})
        kept = math.prod(note["shape"])
        parts: list[tuple[str, int, Any]] = []
        if "mask" in note:
            parts.append(("mask", *_mask_series(note["mask"], note["shape"])))
            kept = note["kept"]
        parts.append(("codes", kept, note["bits"]) if "bits" in note else ("values", kept, "float32"))
        parts += [(part, note[part], "float32") for part in ("scales", "levels") if part in note]
        parts += [("zeros", note["zeros"][1], note["zeros"][0])] if "zeros" in note else []
        for part, length, bits in parts:
            yield {"key": f"{name}.{part}", "length": length, "bits": bits, "marks": coded.get(part, "")}
    for name, note in sorted(notes["arrays"].items()):
        kind, shape = (note[0], note[1:]) if note and isinstance(note[0], str) else ("float32", note)
        yield {"key": name, "length": math.prod(shape), "bits": kind, "marks": ""}


def _mask_series(note: dict[str, Any], shape: list[int]) -> tuple[int, int]:
    rows, length = shape[0], math.prod(shape[1:])
    if note["as"] == "gaps":
        return note["entries"], note["bits"]
    if note["as"] == "bitmap":
        return math.ceil(rows / note["block"][0]) * math.ceil(length / note["block"][1]), 1
    return rows * math.ceil(length / note["m"]), math.ceil(math.log2(math.comb(note["m"], note["n"])))


def _bytes(item: dict[str, Any]) -> int:
    bits = item["bits"] if isinstance(item["bits"], int) else 8 * np.dtype(item["bits"]).itemsize
    return math.ceil(item["length"] * bits / 8)


def _plain(raw: bytes, item: dict[str, Any]) -> Any:
    if isinstance(item["bits"], str):
        return np.frombuffer(raw, np.dtype(item["bits"]).newbyteorder("<")).astype(item["bits"])
    text = "".join(format(byte, "08b") for byte in raw)
    used = item["length"] * item["bits"]
    assert set(text[used:]) <= {"0"}
    return [int(text[i : i + item["bits"]], 2) for i in range(0, used, item["bits"])]


def _frequencies(marks: str, bits: int) -> list[int]:
    weights = [(16 + b % 16) * 2 ** (b // 16) if b else 0 for b in bytes.fromhex(marks)]
    width = 2**bits // len(weights)
    whole, used = 2**14 // width, sum(w > 0 for w in weights)
    often = [1 + w * (whole - used) // sum(weights) if w else 0 for w in weights]
    often[weights.index(max(weights))] += whole - sum(often)
    return [f for f in often for _ in range(width)]


def _decoded(coded: bytes, series: list[dict[str, Any]]) -> tuple[Iterator[int], bytes]:
    """The numbers of all coded series, and the bytes that the lanes held."""
    count = sum(item["length"] for item in series)
    lanes = 2 ** min(int(math.log2(max(count // 512, 1))), 10)
    states = list(struct.unpack(f"<{lanes}I", coded[: 4 * lanes]))
    words = iter(struct.unpack(f"<{len(coded) // 2 - 2 * lanes}H", coded[4 * lanes :]))
    found, number = [], 0
    for item in series:
        often = _frequencies(item["marks"], item["bits"])
        ends = list(itertools.accumulate(often))
        for _ in range(item["length"]):
            lane, slot = number % lanes, states[number % lanes] % 2**14
            value = next(i for i, end in enumerate(ends) if slot < end)
            states[lane] = often[value] * (states[lane] >> 14) + slot - (ends[value] - often[value])
            if states[lane] < 2**16:
                states[lane] = states[lane] << 16 | next(words)
            found.append(value)
            number += 1
    assert next(words, None) is None
    assert {state >> 16 for state in states} == {1}
    return iter(found), struct.pack(f"<{lanes}H", *(state & 0xFFFF for state in states))


def _dense(note: dict[str, Any], name: str, values: dict[str, Any]) -> np.ndarray:
    shape = note["shape"]
    part = {p: values.get(f"{name}.{p}") for p in ("codes", "values", "scales", "zeros", "levels")}
    kept = positions(note["mask"], values[f"{name}.mask"], shape) if "mask" in note else range(math.prod(shape))
    assert len(kept) == note.get("kept", math.prod(shape))
    row, weight = math.prod(shape[1:]), np.zeros(math.prod(shape), np.float32)
    for i, place in enumerate(kept):
        if part["codes"] is None:
            value = part["values"][i]
        elif part["levels"] is not None:
            value = part["levels"][part["codes"][i]]
        elif part["zeros"] is not None:
            zero = part["zeros"][place // row if len(part["zeros"]) > 1 else 0]
            value = np.float32(part["codes"][i] - int(zero))
        elif note["bits"] == 1:
            value = np.float32((-1, 1)[part["codes"][i]])
        else:
            value = np.float32(part["codes"][i] - 2 ** (note["bits"] - 1))
        if part["scales"] is not None:
            value = value * part["scales"][place // row if len(part["scales"]) > 1 else 0]
        weight[place] = value
    return weight.reshape(shape)


def positions(note: dict[str, Any], numbers: Any, shape: list[int]) -> list[int]:
    """Row-major positions of the kept weights, ascending."""
    if note["as"] == "gaps":
        place, found = 0, []
        for gap in numbers:
            place += int(gap)
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
    return sorted(places[i][j] for i, j in find(note, numbers, rows, length))


def _blocks(note: dict[str, Any], bits: Any, rows: int, length: int) -> list[tuple[int, int]]:
    high, wide = note["block"]
    across = math.ceil(length / wide)
    return [(i, j) for i in range(rows) for j in range(length) if bits[i // high * across + j // wide]]


def _groups(note: dict[str, Any], ranks: Any, rows: int, length: int) -> list[tuple[int, int]]:
    n, m = note["n"], note["m"]
    patterns = sorted(
        "".join("1" if i in kept else "0" for i in range(m)) for kept in itertools.combinations(range(m), n)
    )
    across = math.ceil(length / m)
    return [(i, j) for i in range(rows) for j in range(length) if patterns[ranks[i * across + j // m]][j % m] == "1"]
