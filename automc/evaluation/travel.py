"""Facts of the original network on their way to other processes: pickled once, their tensors as numpy arrays.

Ray keeps the arrays of what it pickles in shared memory, one copy for all processes of a machine, and only arrays. So
every tensor, whatever it lies in (tuples, dataclasses, modules), leaves as an array outside the pickled bytes, and is
rebuilt as a view of it. **Nobody may write into such a tensor**: the memory is shared and read-only.
"""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

MOST = 2**28
"""Bytes that travel; of more facts the smallest, and the others are computed again where they are needed."""

_HELD = {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64} | {
    *(torch.float16, torch.float32, torch.float64)
}

Packed = list[tuple[bytes, list[NDArray[np.uint8]]]]
"""By fact, the pickled key and value, and the bytes of its tensors."""


def pack(facts: Mapping[Hashable, Any]) -> Packed:
    """The facts as bytes and arrays. What does not pickle stays behind."""
    packed: Packed = []
    for fact in facts.items():
        buffers: list[pickle.PickleBuffer] = []
        stream = io.BytesIO()
        try:
            _Pickler(stream, protocol=5, buffer_callback=buffers.append).dump(fact)
        except (pickle.PicklingError, AttributeError, TypeError):
            continue
        packed.append((stream.getvalue(), [np.frombuffer(buffer.raw(), np.uint8) for buffer in buffers]))
    kept, total = [], 0
    for size, place in sorted((_size(entry), place) for place, entry in enumerate(packed)):
        total += size
        if total <= MOST:
            kept.append(place)
    return [packed[place] for place in sorted(kept)]


def unpack(packed: Packed) -> dict[Hashable, Any]:
    """The facts, in their order; their tensors are views of the arrays."""
    return dict(pickle.loads(data, buffers=buffers) for data, buffers in packed)


def _size(entry: tuple[bytes, list[NDArray[np.uint8]]]) -> int:
    return len(entry[0]) + sum(array.nbytes for array in entry[1])


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if type(value) not in (Tensor, nn.Parameter) or value.dtype not in _HELD or value.layout != torch.strided:
            return NotImplemented
        tensor = value.detach().cpu()
        order = _memory_order(tensor)
        array = tensor.permute(order).contiguous().numpy()
        return _tensor, (array, order, value.requires_grad, isinstance(value, nn.Parameter))


def _memory_order(tensor: Tensor) -> list[int]:
    """The axes as they lie in memory: so that a channels-last tensor stays one."""
    return sorted(range(tensor.dim()), key=lambda axis: tensor.stride(axis), reverse=True)


def _tensor(array: NDArray[Any], order: Sequence[int], requires_grad: bool, parameter: bool) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        tensor = torch.from_numpy(array)
    tensor = tensor.permute([order.index(axis) for axis in range(len(order))])
    return nn.Parameter(tensor, requires_grad) if parameter else tensor.requires_grad_(requires_grad)
