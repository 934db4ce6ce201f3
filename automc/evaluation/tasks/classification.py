"""One class an input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from automc.core.judges import labelled
from automc.core.judges.classes import ClassesJudge
from automc.core.study import Part
from automc.errors import DataError, ModelError
from automc.evaluation.tasks.base import Judged
from automc.evaluation.tasks.forms import check_classes, one_tensor


@dataclass(frozen=True)
class Classification(Judged):
    """Scores (n, classes), class numbers (n,). Cross-entropy in nats; top1 and agreement as ratios."""

    scores = True
    movable = True
    judged_as = Part("classification")

    def judged_by(self) -> ClassesJudge:
        return ClassesJudge()

    def check(self, outputs: Any, targets: Tensor, classes: int) -> None:
        one_tensor(outputs, "class scores")
        if outputs.dim() != 2:
            raise ModelError(f"the model must return scores of shape (n, classes), not {tuple(outputs.shape)}")
        if labelled(targets) and targets.dim() != 1:
            raise DataError(f"labels must be whole numbers of shape (n,), not {tuple(targets.shape)}")
        check_classes(targets, outputs.shape[1])
        if classes and outputs.shape[1] != classes:
            hint = f"give it the setting num_classes: {classes}, or other weights"
            if outputs.shape[1] > classes:
                hint = f"set data.settings.classes: {outputs.shape[1]} if the train split lacks some, or {hint}"
            raise ModelError(f"the model returns {outputs.shape[1]} scores, but the data has {classes} classes; {hint}")

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets)

    def smoothed(self, outputs: Tensor, targets: Tensor, share: float) -> Tensor:
        """See Smooths."""
        return F.cross_entropy(outputs, targets, label_smoothing=share)

    def hard(self, targets: Tensor) -> Tensor | None:
        return targets if labelled(targets) else None
