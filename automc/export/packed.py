"""The packed file: a network's numbers in one safetensors file, a quantized weight in as many bits as it has.

The layout is documented in README.md beside this file. Reading needs numpy and safetensors, no torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from automc.errors import ModelError, ProofError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from automc.export.codes import Codes

KEY = "automc"
"""The only metadata key: with several, safetensors writes them in a random order."""

VERSION = 1

Array = NDArray[Any]


def dumps(model: nn.Module, example: Tensor) -> bytes:
    """The baked network as the bytes of a packed file; equal networks give equal bytes.

    Args:
        model: the compressed network, not baked yet. Not changed.
        example: normalised inputs, shape (n, ...).

    Raises:
        ModelError: the network cannot be baked or was baked before, or a code does not fit its bits.
    """
    from automc.export.bake import fold  # here, so that reading a file loads no torch
    from automc.export.codes import is_frozen, is_quantized

    layers = {name: layer for name, layer in model.named_modules() if is_quantized(layer)}
    baked_before = [name for name, layer in layers.items() if is_frozen(layer)]
    if baked_before:
        raise ModelError(
            f"packed file: layer {baked_before[0]} is baked already and has no codes; give the network before"
        )
    baked = fold(model, example)
    rounded = {f"{name}.weight" for name in baked.codes}
    helpers = {f"{name}.{own}" for name, layer in layers.items() for own in layer._buffers}  # made codes; done with
    activations = {name: int(layer.activation_bits) for name, layer in layers.items()}
    return pack(_floats(baked.model, rounded | helpers), baked.codes, activations)


def pack(floats: Mapping[str, Array], codes: Mapping[str, Codes], activations: Mapping[str, int]) -> bytes:
    """Write arrays as they are, and each layer's codes as ``<layer>.weight.codes`` and ``<layer>.weight.scales``."""
    arrays = dict(floats)
    layers: dict[str, dict[str, Any]] = {
        name: {"activation_bits": bits} for name, bits in activations.items() if bits < 32
    }
    for name, code in codes.items():
        values = code.values.numpy()
        arrays[f"{name}.weight.codes"] = pack_bits(values, code.bits)
        arrays[f"{name}.weight.scales"] = code.scale.numpy()
        layers.setdefault(name, {}).update(weight_bits=code.bits, shape=list(values.shape))
    note = {"version": VERSION, "layers": layers}
    ordered = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
    return bytes(safetensors.numpy.save(ordered, {KEY: json.dumps(note, sort_keys=True, separators=(",", ":"))}))


def tensors(source: bytes | Path) -> dict[str, Array]:
    """The arrays of a packed file by parameter name, quantized weights as float32 ``codes * scale``.

    Raises:
        ProofError: the file cannot be read, is truncated, or contradicts itself.
    """
    where = "packed file" if isinstance(source, bytes) else str(source)
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
        arrays = safetensors.numpy.load(data)
        layers = _layers(data)
        for name, layer in layers.items():
            if "weight_bits" in layer:
                arrays[f"{name}.weight"] = _weight(arrays, name, layer)
    except OSError as error:
        raise ProofError(f"{where}: cannot be read: {error.strerror}") from error
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProofError(
            f"{where}: not a whole packed file: {type(error).__name__}: {error}".splitlines()[0]
        ) from error
    return dict(sorted(arrays.items()))


def coded_layers(data: bytes) -> dict[str, int]:
    """Bits of a weight by layer, for the layers whose weight is stored as codes; ``data`` is a whole packed file."""
    return {name: layer["weight_bits"] for name, layer in _layers(data).items() if "weight_bits" in layer}


def pack_bits(codes: NDArray[np.int8], bits: int) -> NDArray[np.uint8]:
    """Row-major codes at ``bits`` each, highest bit first, the last byte filled up with zeros.

    One bit holds -1 (as 0) or +1 (as 1); n > 1 bits hold the code plus 2**(n-1).

    Raises:
        ModelError: a code does not fit.
    """
    flat = codes.astype(np.int16).ravel()
    half = 1 << (bits - 1)
    fits = np.abs(flat) == 1 if bits == 1 else (flat >= -half) & (flat < half)
    if not 1 <= bits <= 8 or not fits.all():
        raise ModelError(f"quantized weight: a code does not fit {bits} bits (codes {flat.min()} to {flat.max()})")
    unsigned = ((flat + 1) // 2 if bits == 1 else flat + half).astype(np.uint8)
    return np.packbits(np.unpackbits(unsigned[:, None], axis=1)[:, 8 - bits :])


def unpack_bits(packed: NDArray[np.uint8], bits: int, shape: tuple[int, ...]) -> NDArray[np.int8]:
    """The codes that ``pack_bits`` packed.

    Raises:
        ValueError: bits outside 1 to 8, or the shape needs another number of bytes.
    """
    count = math.prod(shape)
    if not 1 <= bits <= 8 or packed.dtype != np.uint8 or packed.shape != ((count * bits + 7) // 8,):
        raise ValueError(f"{packed.shape} {packed.dtype} does not hold {shape} codes of {bits} bits")
    planes = np.unpackbits(packed, count=count * bits).reshape(count, bits)
    unsigned = np.packbits(np.pad(planes, ((0, 0), (8 - bits, 0))), axis=1)[:, 0].astype(np.int16)
    return (unsigned * 2 - 1 if bits == 1 else unsigned - (1 << (bits - 1))).astype(np.int8).reshape(shape)


def _layers(data: bytes) -> dict[str, dict[str, Any]]:
    """What the header says of quantized layers; safetensors has checked the header's length before."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    note = json.loads(header["__metadata__"][KEY])
    if note["version"] != VERSION:
        raise ValueError(f"version {note['version']!r}, this automc reads {VERSION}")
    return dict(note["layers"])


def _weight(arrays: dict[str, Array], name: str, layer: Mapping[str, Any]) -> Array:
    bits, shape = layer["weight_bits"], tuple(layer["shape"])
    if not all(type(n) is int and n > 0 for n in (bits, *shape)):
        raise ValueError(f"{name}: bits {bits!r}, shape {shape!r}")
    codes = unpack_bits(arrays.pop(f"{name}.weight.codes"), bits, shape)
    scales = arrays.pop(f"{name}.weight.scales")
    if scales.dtype != np.float32 or scales.shape != shape[:1]:
        raise ValueError(f"{name}: scales are {scales.dtype} {scales.shape}")
    return codes.astype(np.float32) * scales.reshape(-1, *[1] * (len(shape) - 1))


def _floats(model: nn.Module, skip: set[str]) -> dict[str, Array]:
    """Every other parameter and buffer that inference reads; tied ones once."""
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    kept = {name: t for name, t in named.items() if name not in skip and not name.endswith("num_batches_tracked")}
    return {name: _array(tensor) for name, tensor in kept.items()}


def _array(tensor: Tensor) -> Array:
    if str(tensor.dtype) == "torch.bfloat16":  # numpy has no bfloat16; float32 holds it exactly
        tensor = tensor.float()
    return np.asarray(tensor.detach().cpu().contiguous().numpy())
