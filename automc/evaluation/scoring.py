"""The task's metrics of a network on a split, each with its standard error."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from automc.core.metrics import Estimate
from automc.evaluation.answers import Answers
from automc.evaluation.task import Task


@dataclass(frozen=True)
class Scorer:
    """Judges networks batch by batch."""

    answers: Answers
    task: Task

    def __call__(self, model: nn.Module, split: str = "search") -> dict[str, Estimate]:
        """The metrics on a whole split.

        Raises:
            NotFinite: an output is NaN or infinite.
        """
        judged: dict[str, list[Tensor]] = {}
        for outputs, teacher, targets in self.answers.batches(model, split):
            for name, each in self.task.judge(outputs, teacher, targets).items():
                judged.setdefault(name, []).append(each)
        return self.task.summarise({name: torch.cat(each) for name, each in judged.items()})
