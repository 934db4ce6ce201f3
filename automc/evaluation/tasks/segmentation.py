"""One class a pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from automc.core.judges import labelled
from automc.core.judges.positions import PixelsJudge
from automc.core.study import Part
from automc.errors import DataError, ModelError
from automc.evaluation.tasks.base import Judged
from automc.evaluation.tasks.forms import check_classes, one_tensor


@dataclass(frozen=True)
class Segmentation(Judged):
    """Scores (n, classes, height, width), class numbers (n, height, width). Mean cross-entropy of a pixel.

    Attributes:
        ignore_index: pixels with this target do not count.
    """

    ignore_index: int = 255
    scores = True

    @property
    def judged_as(self) -> Part:  # type: ignore[override]
        return Part("segmentation", {"ignore_index": self.ignore_index})

    def judged_by(self) -> PixelsJudge:
        return PixelsJudge(self.ignore_index)

    def check(self, outputs: Any, targets: Tensor, classes: int) -> None:
        one_tensor(outputs, "class scores")
        if outputs.dim() != 4:
            form = "scores of shape (n, classes, height, width)"
            raise ModelError(f"the model must return {form}, not {tuple(outputs.shape)}")
        if labelled(targets) and targets.shape[1:] != outputs.shape[2:]:
            shapes = f"one mask has shape {tuple(targets.shape[1:])}, the scores {tuple(outputs.shape[2:])}"
            raise DataError(f"masks must have the height and width of the model's scores: {shapes}")
        check_classes(targets, outputs.shape[1], self.ignore_index)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.smoothed(outputs, targets, 0.0)

    def smoothed(self, outputs: Tensor, targets: Tensor, share: float) -> Tensor:
        """See Smooths."""
        return F.cross_entropy(outputs, targets, ignore_index=self.ignore_index, label_smoothing=share)

    def hard(self, targets: Tensor) -> Tensor | None:
        return targets.masked_fill(targets == self.ignore_index, -100) if labelled(targets) else None
