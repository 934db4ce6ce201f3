"""Networks return one tensor, several, or a dictionary of them: this finds the tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence


def tensors_of(output: Any) -> list[Tensor]:
    """All tensors in nested tuples, lists and dictionaries, in their order; what is no tensor is passed over."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, PackedSequence):
        return [output.data]
    if isinstance(output, Mapping):
        return [tensor for value in output.values() for tensor in tensors_of(value)]
    if isinstance(output, Sequence) and not isinstance(output, (str, bytes)):
        return [tensor for value in output for tensor in tensors_of(value)]
    return []
