"""Whether network, data, task and what a study asks for belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from automc.errors import AutomcError, DataError, ModelError, SpecError, one_line
from automc.evaluation.finetune import Repair
from automc.evaluation.lesson import Lesson
from automc.evaluation.plan import Plan
from automc.evaluation.splits import Data
from automc.evaluation.tasks.base import Task, labelled
from automc.evaluation.tasks.loading import check_metrics
from automc.operators.copies import duplicate
from automc.operators.outputs import tensors_of


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
            part = " (the first rows of train)" if name == "calibration" else ""
            raise DataError(f"data {self.data.name}, {name} split{part}: {error}") from error

    def study(self, plan: Plan) -> None:
        """The splits that every study opens, the answers that a repair compares, and the metrics that are asked for."""
        for name in ("calibration", "search"):
            try:
                self.split(name)
            except ModelError:
                self.split("train")  # a wrong label there makes a class too many, and is the better thing to say
                raise
        if any(rung.steps for rung in plan.rungs):
            self.task.compared(self.outputs)
        targets = self.data.split("search").targets
        check_metrics(self.task, _places(plan), self.data.classes, labelled(targets))
        if labelled(targets):
            self._varies("r2", targets, "the targets of the search split", plan)

    def compared(self, plan: Plan, answers: Sequence[Any]) -> None:
        """Whether the original's answers to the search split, in batches, are such as metrics can compare with."""
        if "teacher_r2" in _places(plan):
            self._varies("teacher_r2", torch.cat(list(answers)), "the original's outputs on the search split", plan)
        if (place := _places(plan).get("cosine")) and not any(bool(each.any()) for each in answers):
            raise SpecError(f"{place}: the original's embeddings of the search split are all zero: they have no cosine")

    def _varies(self, metric: str, values: Tensor, what: str, plan: Plan) -> None:
        place = _places(plan).get(metric)
        columns = values.double().reshape(len(values), values.shape[1] if values.dim() > 1 else 1, -1)
        low, high = columns.amin((0, 2)), columns.amax((0, 2))
        if place and bool((high - low <= _ALIKE * torch.maximum(low.abs(), high.abs())).all()):
            raise SpecError(f"{place}: {what} are all alike, so {metric} says nothing; use mse, or another split")


_ALIKE = 1e-6
"""Relative spread below which numbers are all alike: what is left of it is rounding."""


def _places(plan: Plan) -> dict[str, str]:
    """By metric that the study asks for, the key path where it stands."""
    places = {c.metric: "constraints" for c in plan.constraints}
    return places | {o.metric: f"objectives.{o.metric}" for o in plan.objectives}


def steady(model: nn.Module, example: Tensor, outputs: Any) -> None:
    """Whether the network answers a second time what it answered first.

    Raises:
        ModelError: it does not.
    """
    again = tensors_of(answered(model, example, "again"))
    if not all(_same(one, other) for one, other in zip(tensors_of(outputs), again, strict=True)):
        why = "something in its forward is random, such as dropout that does not ask self.training"
        raise ModelError(
            f"model: its outputs change from call to call in eval mode: {why}; make it F.dropout(x, p, self.training), "
            "nn.Dropout, or leave it out"
        )


def _same(one: Tensor, other: Tensor) -> bool:
    """Alike but for what rounding in another order may do."""
    if one.shape != other.shape:
        return False
    one, other = one.double(), other.double()
    return torch.allclose(one, other, rtol=1e-4, atol=1e-4 * float(one.abs().nan_to_num().max()), equal_nan=True)


def rehearse(repair: Repair, model: nn.Module) -> None:
    """One step of a repair on a copy: a network that cannot train is found before any trial.

    Raises:
        ModelError: it cannot.
    """
    try:
        repair(duplicate(model), Lesson(model), 1, 0, lambda step, value: True)
    except (AutomcError, MemoryError):
        raise
    except Exception as error:  # a network may raise anything
        rows = min(len(repair.data.split("train")), repair.recipe.batch_size)
        more = "; batch norm needs two inputs a step, and the train split has one" if rows == 1 else ""
        raise ModelError(
            f"model: cannot take a training step, which a rung with steps asks for, on {rows} of the train split's "
            f"inputs: {one_line(error)}{more}"
        ) from error


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
