"""Live layers as export knows them: by what they offer, not by their class (see README.md beside this file)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from automc.core.stored import Stored
from automc.errors import ModelError


def is_live(layer: nn.Module) -> bool:
    """Whether a layer follows the convention of live layers."""
    return hasattr(layer, "stored") and hasattr(layer, "freeze")


def is_frozen(layer: nn.Module) -> bool:
    """Whether a live layer was baked before: what its weights were made of is gone."""
    return bool(getattr(layer, "frozen", False))


def stored_tensors(layer: Any, name: str) -> dict[str, Stored]:
    """What a file holds of a live layer's weights, by tensor name; empty when it is frozen or no live layer.

    Raises:
        ModelError: a weight is not float32: a file could not hold it exactly.
    """
    if not is_live(layer) or is_frozen(layer):
        return {}
    found: dict[str, Stored] = layer.stored()
    for own in found:
        if getattr(layer, own).dtype != torch.float32:
            kind = str(getattr(layer, own).dtype).removeprefix("torch.")
            raise ModelError(f"layer {name}: compressed weights must be float32, not {kind}; call model.float() before")
    return found


def finish(layer: Any, tensors: dict[str, Tensor | None]) -> None:
    """Give a layer its last tensors. A live one is frozen and loses what only its training form needs."""
    if is_live(layer):
        layer.freeze(tensors)
        layer.ways = nn.ModuleDict()
        return
    for name, tensor in tensors.items():
        setattr(layer, name, None if tensor is None else nn.Parameter(tensor, requires_grad=False))
