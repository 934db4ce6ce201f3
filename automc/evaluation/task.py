"""What a network is for: its loss and its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor

from automc.core.metrics import Estimate
from automc.errors import ModelError


class Task(Protocol):
    """Says how good outputs are. Stateless."""

    def check(self, outputs: Any, rows: int, classes: int) -> None:
        """Refuse outputs of another form than the task's.

        Raises:
            ModelError: in one line.
        """
        ...

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """Mean loss of a batch, differentiable, shape ()."""
        ...

    def judge(self, outputs: Any, teacher: Any, targets: Tensor) -> dict[str, Tensor]:
        """What each input of a batch adds to the metrics, by name, shape (n, ...).

        Batches are judged one by one and joined along their first axis.

        Args:
            teacher: the original network's outputs for the same inputs.
        """
        ...

    def summarise(self, judged: Mapping[str, Tensor]) -> dict[str, Estimate]:
        """The metrics of all inputs that were judged, n >= 1."""
        ...


def means(judged: Mapping[str, Tensor]) -> dict[str, Estimate]:
    """Of metrics that are means over inputs: the standard error of a mean, of shares the binomial one."""
    found = {}
    for name, each in judged.items():
        each = each.double()
        error = float(each.std(correction=0)) / len(each) ** 0.5  # of zeros and ones this is sqrt(p (1 - p) / n)
        found[name] = Estimate(float(each.mean()), error, len(each))
    return found


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

    def judge(self, outputs: Tensor, teacher: Tensor, targets: Tensor) -> dict[str, Tensor]:
        found = outputs.argmax(1)
        return {
            "top1": found == targets,
            "loss": F.cross_entropy(outputs.double(), targets, reduction="none"),
            "agreement": found == teacher.argmax(1),
        }

    def summarise(self, judged: Mapping[str, Tensor]) -> dict[str, Estimate]:
        return means(judged)
