"""Whether network, data, task and what a study asks for belong together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from automc.errors import DataError, ModelError, one_line
from automc.evaluation.plan import Plan
from automc.evaluation.splits import Data
from automc.evaluation.tasks.base import Task, labelled
from automc.evaluation.tasks.loading import check_metrics


@dataclass(frozen=True)
class Fitting:
    """What the original network answers to a few inputs, beside the data and the task.

    Every check raises DataError, ModelError or SpecError, in one line.
    """

    outputs: Any
    data: Data
    task: Task

    def split(self, name: str) -> None:
        """Open a split and see whether its targets are such as the task wants."""
        targets = self.data.split(name).targets
        try:
            self.task.check(self.outputs, targets, self.data.classes)
        except DataError as error:
            raise DataError(f"data {self.data.name}, {name} split: {error}") from error

    def study(self, plan: Plan) -> None:
        """The splits that every study opens, the answers that a repair compares, and the metrics that are asked for."""
        for name in ("calibration", "search"):
            self.split(name)
        if any(rung.steps for rung in plan.rungs):
            self.task.compared(self.outputs)
        wanted = {c.metric: "constraints" for c in plan.constraints}
        wanted |= {o.metric: f"objectives.{o.metric}" for o in plan.objectives}
        check_metrics(self.task, wanted, self.data.classes, labelled(self.data.split("search").targets))


def answered(model: nn.Module, example: Tensor, data: str) -> Any:
    """The network's outputs for the example.

    Raises:
        ModelError: it cannot take such inputs.
    """
    try:
        with torch.inference_mode():
            return model(example)
    except Exception as error:
        where = f"model: cannot take inputs of shape {tuple(example.shape)} from data {data}"
        raise ModelError(f"{where}: {one_line(error)}") from error
