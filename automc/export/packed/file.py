"""The packed file: a network's numbers in one safetensors file, a compressed weight in as few bits as it has.

The layout is documented in README.md beside this file. Reading needs numpy and safetensors, no torch.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors

from automc.core.stored import Stored
from automc.errors import ModelError, ProofError
from automc.export.formats import PACKED, Source
from automc.export.packed import older, sections, sections_read
from automc.export.packed.bits import Array
from automc.export.packed.encoding import decode, encode

if TYPE_CHECKING:
    from torch import Tensor, nn

    from automc.export.baking.bake import Baked


def write(folder: Path, source: Source) -> None:
    """The file of format ``packed``. Raises as ``dumps``."""
    (folder / PACKED).write_bytes(dumps(source.model, source.example, source.baked))


def dumps(model: nn.Module, example: Tensor, baked: Baked | None = None) -> bytes:
    """The baked network as the bytes of a packed file; equal networks give equal bytes.

    Args:
        model: the compressed network, not baked yet. Not changed.
        example: normalised inputs, shape (n, ...). baked: what ``fold`` makes of them, where it is at hand.

    Raises:
        ModelError: the network cannot be baked or was baked before, or a code does not fit its bits.
    """
    from automc.export.baking.bake import fold  # here, so that reading a file loads no torch
    from automc.export.baking.live_layers import is_frozen, is_live

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
    """Write arrays as they are, and compressed weights in as few bits as they have.

    Args:
        floats, stored: by tensor name. activations: bits of a layer's input, by layer name.

    Raises:
        ModelError: a code does not fit its bits, two arrays have one name, or one is of a type that the file has not.
    """
    arrays, weights = dict(floats), {}
    if twice := sorted(floats.keys() & stored.keys()):
        raise ModelError(f"packed file: two arrays are called {twice[0]}")
    notes: dict[str, Any] = {}
    for name, weight in stored.items():
        note, parts = encode(weight, name)
        if note:
            notes[name], weights[name] = note, parts
        else:
            arrays[name] = np.asarray(parts[""])
    rounded = {name: bits for name, bits in activations.items() if bits < 32}
    return sections.join({"activation_bits": rounded, "weights": notes}, weights, arrays)


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
    where, place = "packed file" if isinstance(source, bytes) else str(source), ""
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
        notes, arrays = _split(data)
        stored = {}
        for name, (note, parts) in notes.items():
            place = f"{name}: "
            stored[name] = decode(note, parts)
    except OSError as error:
        raise ProofError(f"{where}: cannot be read: {error.strerror}") from error
    except _FAULTS as error:
        raise ProofError(
            f"{where}: not a whole packed file: {place}{type(error).__name__}: {error}".splitlines()[0]
        ) from error
    return arrays, stored


_FAULTS = (
    safetensors.SafetensorError, zlib.error, ValueError, KeyError, TypeError, AttributeError, OverflowError,
    RecursionError,
)  # fmt: skip


def compressed_weights(source: bytes) -> list[str]:
    """Names of the weights that a whole packed file holds as codes or sparse."""
    return sorted(_split(source)[0])


def _split(data: bytes) -> tuple[dict[str, tuple[dict[str, Any], dict[str, Array]]], dict[str, Array]]:
    return older.split(data) if _OLDER in data[8:200] else sections_read.split(data)


_OLDER = f'"{sections.KEY}":"{{'.encode()
"""Before version 3 the only metadata was JSON."""


def _floats(model: nn.Module, skip: Mapping[str, Any]) -> dict[str, Array]:
    """Every other parameter and buffer that inference reads; tied ones once."""
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    kept = {name: t for name, t in named.items() if name not in skip and not name.endswith("num_batches_tracked")}
    return {name: _array(tensor) for name, tensor in kept.items()}


def _array(tensor: Tensor) -> Array:
    if str(tensor.dtype) == "torch.bfloat16":  # numpy has no bfloat16; float32 holds it exactly
        tensor = tensor.float()
    return np.asarray(tensor.detach().cpu().contiguous().numpy())
