"""The packed file: a network's numbers in one safetensors file, a compressed weight in as few bits as it has.

The layout is documented in README.md beside this file. Reading needs numpy and safetensors, no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.numpy

from automc.core.stored import Stored
from automc.errors import ModelError, ProofError
from automc.export.bits import Array
from automc.export.encoding import PARTS, decode, encode

if TYPE_CHECKING:
    from torch import Tensor, nn

    from automc.export.bake import Baked

KEY = "automc"
"""The only metadata key: with several, safetensors writes them in a random order."""

VERSION = 2
"""Version 1, which knew signed codes only, is still read."""


def dumps(model: nn.Module, example: Tensor, baked: Baked | None = None) -> bytes:
    """The baked network as the bytes of a packed file; equal networks give equal bytes.

    Args:
        model: the compressed network, not baked yet. Not changed.
        example: normalised inputs, shape (n, ...). baked: what ``fold`` makes of them, where it is at hand.

    Raises:
        ModelError: the network cannot be baked or was baked before, or a code does not fit its bits.
    """
    from automc.export.bake import fold  # here, so that reading a file loads no torch
    from automc.export.live_layers import is_frozen, is_live

    layers = {name: layer for name, layer in model.named_modules() if is_live(layer)}
    baked_before = [name for name, layer in layers.items() if is_frozen(layer)]
    if baked_before:
        raise ModelError(
            f"packed file: layer {baked_before[0]} is baked already and has no codes; give the network before"
        )
    baked = baked or fold(model, example)
    activations = {name: int(layer.activation_bits) for name, layer in layers.items()}
    return pack(_floats(baked.model, baked.stored), baked.stored, activations)


def pack(floats: Mapping[str, Array], stored: Mapping[str, Stored], activations: Mapping[str, int]) -> bytes:
    """Write arrays as they are, and the parts of each compressed weight as ``<tensor>.codes`` and so on.

    Args:
        floats, stored: by tensor name. activations: bits of a layer's input, by layer name.

    Raises:
        ModelError: a code does not fit its bits, or two arrays would have one name.
    """
    arrays = dict(floats)
    notes: dict[str, dict[str, Any]] = {}
    for name, weight in stored.items():
        note, parts = encode(weight, name)
        if note:
            notes[name] = note
        for part, array in parts.items():
            full = f"{name}.{part}" if part else name
            if full in arrays:
                raise ModelError(f"packed file: two arrays are called {full}")
            arrays[full] = array
    rounded = {name: bits for name, bits in activations.items() if bits < 32}
    head = {"version": VERSION, "activation_bits": rounded, "weights": notes}
    ordered = {name: np.asarray(arrays[name], order="C") for name in sorted(arrays)}
    return bytes(safetensors.numpy.save(ordered, {KEY: json.dumps(head, sort_keys=True, separators=(",", ":"))}))


def tensors(source: bytes | Path) -> dict[str, Array]:
    """The arrays of a packed file by parameter name, compressed weights as dense float32.

    The memory it takes is at most 2048 times the file's length, whatever the header says.

    Raises:
        ProofError: the file cannot be read, is truncated, or contradicts itself.
    """
    plain, stored = read(source)
    with np.errstate(all="ignore"):  # a changed scale may be infinite
        return dict(sorted({**plain, **{name: weight.dense() for name, weight in stored.items()}}.items()))


def read(source: bytes | Path) -> tuple[dict[str, Array], dict[str, Stored]]:
    """The plain arrays of a packed file and its compressed weights, both by parameter name.

    Raises:
        ProofError: as ``tensors``.
    """
    where = "packed file" if isinstance(source, bytes) else str(source)
    place = ""
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
        arrays = safetensors.numpy.load(data)
        stored = {}
        for name, note in _weights(data).items():
            place = f"{name}: "
            parts = {part: arrays.pop(f"{name}.{part}") for part in PARTS if f"{name}.{part}" in arrays}
            if name in arrays:
                raise ValueError("it is there twice")
            stored[name] = decode(note, parts)
    except OSError as error:
        raise ProofError(f"{where}: cannot be read: {error.strerror}") from error
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ProofError(
            f"{where}: not a whole packed file: {place}{type(error).__name__}: {error}".splitlines()[0]
        ) from error
    return arrays, stored


def compressed_weights(source: bytes) -> list[str]:
    """Names of the weights that a whole packed file holds as codes or sparse."""
    return sorted(_weights(source))


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
    if head["version"] != VERSION:
        raise ValueError(f"version {head['version']!r}, this automc reads 1 and {VERSION}")
    return dict(head["weights"])


def _floats(model: nn.Module, skip: Mapping[str, Any]) -> dict[str, Array]:
    """Every other parameter and buffer that inference reads; tied ones once."""
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    kept = {name: t for name, t in named.items() if name not in skip and not name.endswith("num_batches_tracked")}
    return {name: _array(tensor) for name, tensor in kept.items()}


def _array(tensor: Tensor) -> Array:
    if str(tensor.dtype) == "torch.bfloat16":  # numpy has no bfloat16; float32 holds it exactly
        tensor = tensor.float()
    return np.asarray(tensor.detach().cpu().contiguous().numpy())
