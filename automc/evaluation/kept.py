"""Values kept between trials, the least recently used forgotten first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from automc.operators.outputs import tensors_of


class Kept:
    """What was computed for the batches of a split, by a key of what it is; bounded by the bytes of its tensors.

    Values go in and come out as copies, so that nobody's writing in place reaches what is kept.
    """

    def __init__(self, most: int) -> None:
        """Keep so many bytes."""
        self.most = most
        self.bytes = 0
        self._values: OrderedDict[str, dict[int, Any]] = OrderedDict()

    def get(self, key: str, batch: int) -> Any:
        """A copy of the value for this batch, or None."""
        value = self._values.get(key, {}).get(batch)
        if value is not None:
            self._values.move_to_end(key)
        return copied(value)

    def put(self, values: Mapping[str, Any], batch: int, batches: int) -> None:
        """Keep values that are used together, of one of so many batches; not where those of all would not fit."""
        size = batches * sum(map(_bytes, values.values()))
        if size > self.most or not all(map(_plain, values.values())):
            return
        for key, value in values.items():
            own = self._values.setdefault(key, {})
            self._values.move_to_end(key)
            self.bytes += _bytes(value) - _bytes(own.get(batch))
            own[batch] = value
        while self.bytes > self.most:
            _, forgotten = self._values.popitem(last=False)
            self.bytes -= sum(map(_bytes, forgotten.values()))


def copied(value: Any) -> Any:
    """The value with copies of its tensors, in the same memory layout."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, torch.Size):
        return value
    if isinstance(value, (tuple, list)):
        return type(value)(map(copied, value))
    return value


def _bytes(value: Any) -> int:
    return sum(tensor.nbytes for tensor in tensors_of(value))


def _plain(value: Any) -> bool:
    """Nothing but tensors, numbers and strings, in tuples and lists."""
    if type(value) in (tuple, list):
        return all(map(_plain, value))
    return isinstance(value, (Tensor, torch.Size, bool, int, float, str))
