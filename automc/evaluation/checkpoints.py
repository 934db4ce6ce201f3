"""Reading trained weights: safetensors, or .pt/.th through torch's weights-only loader, which runs no code."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from automc.core.rules import nearest
from automc.errors import ModelError, one_line

SUFFIXES = (".safetensors", ".pt", ".pth", ".th")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name, unwrapped from ``{"state_dict": ...}`` and without ``module.`` prefixes.

    Raises:
        ModelError: no such file, another suffix, a file that cannot be read, or one that holds no state dict.
    """
    if path.suffix not in SUFFIXES:
        raise ModelError(f"weights {path}: the suffix must be one of {', '.join(SUFFIXES)}, not {path.suffix!r}")
    if not path.is_file():
        raise ModelError(f"weights {path}: no such file")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"weights {path}: must hold a state dict (name -> tensor), not {type(content).__name__}")
    strange = [key for key, value in content.items() if not isinstance(value, Tensor)]
    if strange:
        raise ModelError(f"weights {path}: {strange[0]!r} must be a tensor, not {type(content[strange[0]]).__name__}")
    prefix = "module." if all(key.startswith("module.") for key in content) else ""
    return {key.removeprefix(prefix): value for key, value in content.items()}


def load_weights(model: nn.Module, path: Path) -> None:
    """Copy a weights file into the model.

    Raises:
        ModelError: unreadable, a name missing or unknown (with the nearest spelling), another shape, NaN or
            infinity in a weight.
    """
    weights, own = read_weights(path), model.state_dict()
    unknown = [key for key in weights if key not in own]
    # Old files lack the batch counters, which only matter to batch norms without momentum.
    missing = [key for key in own if key not in weights and not key.endswith("num_batches_tracked")]
    if unknown:
        what = f"{unknown[0]!r} is no tensor of the model{nearest(unknown[0], missing or own)}"
        raise ModelError(f"weights {path}: {what}{_more(unknown)}")
    if missing:
        raise ModelError(f"weights {path}: no {missing[0]!r}, which the model needs{_more(missing)}")
    for key, value in weights.items():
        if value.shape != own[key].shape:
            shapes = f"the file has shape {tuple(value.shape)}, the model {tuple(own[key].shape)}"
            raise ModelError(f"weights {path}: {key!r}: {shapes}")
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ModelError(f"weights {path}: {key!r} holds NaN or infinity")
    model.load_state_dict(weights, strict=False)


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _read_safetensors(path: Path) -> Any:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as raised:
        raise ModelError(f"weights {path}: unreadable or truncated safetensors file ({one_line(raised)})") from raised


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as raised:
        named = re.search(r"GLOBAL ([\w.]+)", str(raised))
        what = f"it names {named[1]}" if named else "it is no plain state dict"
        raise ModelError(
            f"weights {path}: refused by the weights-only loader: {what}; save model.state_dict() instead"
        ) from raised
    except Exception as raised:  # the reader of a damaged archive raises RuntimeError, EOFError, KeyError and others
        raise ModelError(f"weights {path}: unreadable or truncated ({one_line(raised)})") from raised
