"""Checks of outputs and targets that several tasks share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from automc.core.judges import labelled
from automc.errors import DataError, ModelError


def one_tensor(outputs: Any, what: str) -> None:
    """Raises ModelError where the outputs are anything but one tensor."""
    if not isinstance(outputs, Tensor):
        raise ModelError(f"the model must return one tensor of {what}, not {type(outputs).__name__}")


def check_classes(targets: Tensor, classes: int, ignored: int | None = None) -> None:
    """Targets must be whole numbers from 0 to classes - 1, or ``ignored``; without labels there is nothing to check.

    Raises:
        DataError: they are not, or none of them counts.
    """
    if not labelled(targets):
        return
    if targets.dtype != torch.int64:
        raise DataError(f"labels must be whole numbers, not {targets.dtype}")
    counted = targets if ignored is None else targets[targets != ignored]
    if not counted.numel():
        raise DataError(f"every label is {ignored}, the one that does not count")
    low, high = int(counted.min()), int(counted.max())
    if low < 0 or high >= classes:
        besides = "" if ignored is None else f" (or {ignored}, which does not count)"
        found = low if low < 0 else high
        row = int((targets == found).nonzero()[0, 0])
        wider = f"give the model, which has {classes} scores, num_classes: {high + 1} or other weights, or "
        cure = f"{'' if low < 0 else wider}mend the labels"
        raise DataError(f"labels must be 0..{classes - 1}{besides}, found {found} in row {row}; {cure}")
