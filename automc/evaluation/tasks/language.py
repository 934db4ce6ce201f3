"""The next token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from automc.core.judges import labelled
from automc.core.judges.positions import TokensJudge
from automc.core.study import Part
from automc.errors import DataError, ModelError
from automc.evaluation.tasks.base import Judged
from automc.evaluation.tasks.forms import check_classes, one_tensor


@dataclass(frozen=True)
class LanguageModelling(Judged):
    """Scores (n, tokens, vocabulary), token numbers (n, tokens): what comes next at each place, shifted by the data.

    Attributes:
        ignore_index: places with this target do not count.
    """

    ignore_index: int = -100
    scores = True

    @property
    def judged_as(self) -> Part:  # type: ignore[override]
        return Part("language_modelling", {"ignore_index": self.ignore_index})

    def judged_by(self) -> TokensJudge:
        return TokensJudge(self.ignore_index)

    def check(self, outputs: Any, targets: Tensor, classes: int) -> None:
        one_tensor(outputs, "token scores")
        if outputs.dim() != 3:
            form = "scores of shape (n, tokens, vocabulary)"
            raise ModelError(f"the model must return {form}, not {tuple(outputs.shape)}")
        if labelled(targets) and targets.shape[1:] != outputs.shape[1:2]:
            shapes = f"targets have {tuple(targets.shape[1:])}, the scores {tuple(outputs.shape[1:2])}"
            raise DataError(f"there must be one target token a place: {shapes}")
        check_classes(targets, outputs.shape[2], self.ignore_index)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.smoothed(outputs, targets, 0.0)

    def smoothed(self, outputs: Tensor, targets: Tensor, share: float) -> Tensor:
        """See Smooths."""
        wanted = targets.flatten()
        return F.cross_entropy(outputs.flatten(0, 1), wanted, ignore_index=self.ignore_index, label_smoothing=share)

    def compared(self, outputs: Any) -> Tensor:
        scores: Tensor = outputs.movedim(-1, 1)
        return scores
