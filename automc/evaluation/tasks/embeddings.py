"""Vectors that are to stay where the original network puts them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from automc.core.judges.values import VectorsJudge
from automc.core.study import Part
from automc.errors import ModelError
from automc.evaluation.tasks.base import Judged
from automc.evaluation.tasks.forms import one_tensor


@dataclass(frozen=True)
class Embeddings(Judged):
    """Embeddings (n, ..., width). Targets are not looked at: the original network is all there is to learn from."""

    learns_labels = False
    movable = True
    judged_as = Part("embeddings")

    def judged_by(self) -> VectorsJudge:
        return VectorsJudge()

    def check(self, outputs: Any, targets: Tensor, classes: int) -> None:
        one_tensor(outputs, "embeddings")
        if outputs.dim() < 2 or not outputs.is_floating_point():
            form = "embeddings of shape (n, ..., width)"
            raise ModelError(f"the model must return {form}, not {tuple(outputs.shape)} of {outputs.dtype}")

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        raise NotImplementedError("embeddings are learned from the original network alone")
