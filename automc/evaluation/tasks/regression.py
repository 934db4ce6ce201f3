"""Regression: numbers as outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from automc.core.judges import labelled
from automc.core.judges.values import ValuesJudge
from automc.core.study import Part
from automc.errors import DataError, ModelError
from automc.evaluation.tasks.base import Judged
from automc.evaluation.tasks.forms import one_tensor


@dataclass(frozen=True)
class Regression(Judged):
    """Numbers (n, outputs, ...), targets of the same shape, for one output also (n,). Mean squared error."""

    judged_as = Part("regression")

    def judged_by(self) -> ValuesJudge:
        return ValuesJudge()

    def check(self, outputs: Any, targets: Tensor, classes: int) -> None:
        one_tensor(outputs, "numbers")
        if not outputs.is_floating_point():
            raise ModelError(f"the model must return floating-point numbers, not {outputs.dtype}")
        if labelled(targets) and _shape(targets) != _shape(outputs):
            shapes = f"one target has shape {tuple(targets.shape[1:])}, one output {tuple(outputs.shape[1:])}"
            raise DataError(f"targets must have the shape of the model's outputs: {shapes}")

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(outputs, targets.to(outputs.dtype).reshape(outputs.shape))


def _shape(values: Tensor) -> tuple[int, ...]:
    """Of one input; one number alone is one output."""
    return tuple(values.shape[1:]) or (1,)
