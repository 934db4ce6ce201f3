"""Which modules of a network are still those of the original."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_PLAIN = (bool, int, float, str, tuple, type(None))


def same(module: nn.Module, other: nn.Module) -> bool:
    """The two do the same: of one class, with equal settings and tensors, bit for bit, and so are their children.

    A module with hooks is like no other: nobody knows what they do.
    """
    return (
        alike(module, other)
        and _tensors_equal(module, other)
        and all(same(child, other._modules[name]) for name, child in module.named_children())  # type: ignore[arg-type]
    )


def alike(module: nn.Module, other: nn.Module) -> bool:
    """The same of the modules by themselves, whatever their tensors and children hold."""
    if type(module) is not type(other) or list(module._modules) != list(other._modules):
        return False
    return not _hooked(module) and not _hooked(other) and _settings(module) == _settings(other)


def replaced(original: nn.Module, other: nn.Module) -> frozenset[str] | None:
    """Paths of the modules with children whose own doing differs, the outermost; None if the network itself does.

    What runs between the children of such a module is not what ran in the original.
    """
    if not alike(original, other):
        return None
    found: set[str] = set()

    def walk(module: nn.Module, counterpart: nn.Module, path: str) -> None:
        for name, child in module.named_children():
            own, place = counterpart._modules[name], f"{path}{name}"
            if not child._modules:
                continue
            if own is None or not alike(child, own):
                found.add(place)
            else:
                walk(child, own, f"{place}.")

    walk(original, other, "")
    return frozenset(found)


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks) or "forward" in module.__dict__


def _settings(module: nn.Module) -> dict[str, Any]:
    """Public numbers and words of a module, and its mode."""
    return {
        name: value for name, value in module.__dict__.items() if not name.startswith("_") and isinstance(value, _PLAIN)
    }


def _tensors_equal(module: nn.Module, other: nn.Module) -> bool:
    for kind in ("_parameters", "_buffers"):
        own, others = getattr(module, kind), getattr(other, kind)
        if list(own) != list(others) or not all(equal_or_none(own[name], others[name]) for name in own):
            return False
    return True


def equal_or_none(tensor: Any, other: Any) -> bool:
    """Two tensors equal in type, shape and every bit that counts; or both None."""
    if not isinstance(tensor, Tensor) or not isinstance(other, Tensor):
        return tensor is other
    return tensor.dtype == other.dtype and torch.equal(tensor, other)
