"""Versions 1 and 2 of the packed file, which had an array for each part of a weight and coded nothing: still read."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import safetensors.numpy

from automc.export.packed import masks
from automc.export.packed.bits import Array, unpack
from automc.export.packed.encoding import layout, shape_of
from automc.export.packed.sections import KEY

_KINDS = {"values": (np.float32,), "scales": (np.float32,), "levels": (np.float32,), "zeros": (np.uint8, np.int16)}


def split(data: bytes) -> tuple[dict[str, tuple[dict[str, Any], dict[str, Array]]], dict[str, Array]]:
    """As ``sections_read.split``."""
    arrays = safetensors.numpy.load(data)
    weights = {}
    for name, note in _weights(data).items():
        names = [part for part in ("mask", "codes", *_KINDS) if f"{name}.{part}" in arrays]
        parts = {part: arrays.pop(f"{name}.{part}") for part in names}
        if name in arrays:
            raise ValueError(f"{name}: it is there twice")
        weights[name] = _brought_up(dict(note), parts)
    return weights, arrays


def _brought_up(note: dict[str, Any], parts: dict[str, Array]) -> tuple[dict[str, Any], dict[str, Array]]:
    """Note and parts as version 3 has them."""
    for part, array in parts.items():
        if part in _KINDS and (array.dtype not in _KINDS[part] or array.ndim != 1):
            raise ValueError(f"{part} are {array.dtype} {array.shape}")
    note |= {part: len(parts[part]) for part in ("scales", "levels") if part in parts}
    if "zeros" in parts:
        note["zeros"] = [str(parts["zeros"].dtype), len(parts["zeros"])]
    shape = shape_of(note["shape"])
    if "mask" in note:
        bits, count = masks.layout(note["mask"], shape)
        parts["mask"] = unpack(parts["mask"], bits, count)
        note["kept"] = int(masks.decode(note["mask"], parts["mask"], shape).sum())
    for name, length, bits, _ in layout(note):
        if name == "codes":
            parts["codes"] = unpack(parts["codes"], bits, length)
        elif parts[name].shape != (length,):
            raise ValueError(f"{name} are {parts[name].shape}, not ({length},)")
    return note, parts


def _weights(data: bytes) -> dict[str, dict[str, Any]]:
    """The header's notes of compressed weights; safetensors has checked the header's length before."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    head = json.loads(header["__metadata__"][KEY])
    if head["version"] == 1:
        layers = head["layers"].items()
        return {
            f"{name}.weight": {"bits": layer["weight_bits"], "shape": layer["shape"]}
            for name, layer in layers
            if "weight_bits" in layer
        }
    if head["version"] != 2:
        raise ValueError(f"version {head['version']!r}, this automc reads 1 to 3")
    return dict(head["weights"])
