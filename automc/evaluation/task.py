"""What a network is for: its loss and its metrics."""

from __future__ import annotations

from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor

from automc.errors import ModelError


class Task(Protocol):
    """Says how good outputs are. Stateless."""

    def check(self, outputs: Any, rows: int, classes: int) -> None:
        """Refuse outputs of another form than the task's.

        Raises:
            ModelError: in one line.
        """
        ...

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of a batch, differentiable, shape ()."""
        ...

    def metrics(self, outputs: Tensor, teacher: Tensor, targets: Tensor) -> dict[str, float]:
        """The metrics of a whole split; ``teacher`` are the original network's outputs on it."""
        ...


class Classification:
    """Cross-entropy in nats; top1 and agreement with the original network as ratios."""

    def check(self, outputs: Any, rows: int, classes: int) -> None:
        if not isinstance(outputs, Tensor):
            raise ModelError(f"the model must return one tensor of class scores, not {type(outputs).__name__}")
        if outputs.dim() != 2 or outputs.shape[0] != rows:
            raise ModelError(f"the model must return scores of shape (n, classes), not {tuple(outputs.shape)}")
        if outputs.shape[1] != classes:
            hint = f"give it the setting num_classes: {classes}, or other weights"
            raise ModelError(f"the model returns {outputs.shape[1]} scores, but the data has {classes} classes; {hint}")

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets)

    def metrics(self, outputs: Tensor, teacher: Tensor, targets: Tensor) -> dict[str, float]:
        found = outputs.argmax(1)
        return {
            "top1": (found == targets).double().mean().item(),
            "loss": F.cross_entropy(outputs.double(), targets).item(),
            "agreement": (found == teacher.argmax(1)).double().mean().item(),
        }
