"""What a network returns, as named tensors: one tensor, or tensors in tuples, lists and dicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from automc.errors import ModelError

OUTPUT = "output"


def named_outputs(outputs: Any, model: nn.Module) -> dict[str, Tensor]:
    """The tensors in the order in which they are met: ``output``, ``output_1``, ...; in a dict under their keys.

    Lists inside a dict give ``key``, ``key_1``, ...; None is left out.

    Raises:
        ModelError: there is anything else among them, no tensor at all, or two would get one name.
    """
    found: dict[str, Tensor] = {}
    for key, tensor in _flat(outputs, OUTPUT):
        if not isinstance(tensor, Tensor):
            raise ModelError(
                f"model {type(model).__name__}: must return tensors, alone or in tuples, lists and dicts, "
                f"not {type(tensor).__name__}"
            )
        name, count = key, 0
        while name in found:
            count += 1
            name = f"{key}_{count}"
        found[name] = tensor
    if not found:
        raise ModelError(f"model {type(model).__name__}: must return at least one tensor")
    return found


def _flat(outputs: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(outputs, Mapping):
        for own, value in outputs.items():
            yield from _flat(value, str(own) if key == OUTPUT else f"{key}.{own}")
    elif isinstance(outputs, (tuple, list)):
        for value in outputs:
            yield from _flat(value, key)
    elif outputs is not None:
        yield key, outputs


def near(found: NDArray[Any], wanted: NDArray[Any], share: float) -> bool:
    """Whether outputs are of one shape and, floats, at most ``share`` of the largest apart; whole numbers are equal."""
    if found.shape != wanted.shape or wanted.dtype.kind != "f":
        return np.array_equal(found, wanted)
    most = float(np.abs(np.nan_to_num(wanted, posinf=0, neginf=0)).max(initial=0.0))
    return np.allclose(found, wanted, rtol=0.0, atol=share * most, equal_nan=True)


class Flattened(nn.Module):
    """A network that returns its tensors as one tuple, as exporters want them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(named_outputs(self.model(x), self.model).values())
