"""Repair: a short training of the compressed network, its masks, quantizers and distillation losses live.

One recipe for every method, so that searches differ by what they propose and by nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from automc.core.ports import Monitor
from automc.errors import NotFinite, SpecError
from automc.evaluation.batches import Batch, Batches
from automc.evaluation.bookmarks import Bookmark
from automc.evaluation.descent import Descent
from automc.evaluation.device import Device, mapped
from automc.evaluation.lesson import Learning, Lesson, learning
from automc.evaluation.progress import Progress, key_of
from automc.evaluation.recall import recalled
from automc.evaluation.recipe import Recipe
from automc.evaluation.splits import Data
from automc.evaluation.state import State
from automc.evaluation.tasks.base import Smooths, Task, labelled
from automc.evaluation.tasks.teaching import TeacherTerm, teacher_loss
from automc.operators import live

__all__ = ["Recipe", "Repair"]

WATCHED = 256
"""Inputs of the search split that a report to the monitor is measured on."""


@dataclass(frozen=True)
class Repair:
    """What every repair of a study has in common.

    Where there are no labels, or the task does not learn them, the teacher's answers take their place (TeacherTerm).

    Attributes:
        original: the original network, in eval mode: what the monitor hears of then is the distance to its answers.
    """

    data: Data
    task: Task
    recipe: Recipe
    device: Device = field(default_factory=Device)
    original: nn.Module | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.task.learns_labels and not self.task.movable:
            if self.recipe.augment not in ("auto", "none"):
                raise SpecError(
                    f"evaluator.settings.augment: {self.recipe.augment} moves images, but not the targets of "
                    "this task; use none"
                )
            object.__setattr__(self, "recipe", replace(self.recipe, augment="none"))
        if self.recipe.label_smoothing and not hasattr(self.task, "smoothed"):
            kind = type(self.task).__name__
            raise SpecError(f"evaluator.settings.label_smoothing: needs classes, which {kind} has not; leave it out")

    def __call__(
        self,
        model: nn.Module,
        lesson: Lesson,
        steps: int,
        seed: int,
        monitor: Monitor,
        bookmark: Bookmark | None = None,
    ) -> bool:
        """Train ``model`` in place on the train split; it is left in eval mode, on the CPU.

        The same arguments give the same weights, whoever runs it on a CPU.

        Args:
            lesson: the teacher and the terms of the loss. seed: of the batches, the augmentation and dropout.
            monitor: told (step, loss on the first search inputs) during the repair, not at its end. What it is told of
                is the network that an end at this step would leave.
            bookmark: where an earlier attempt was and this one goes on, and the place to say how far this one is. What
                the monitor was told of by then it is told again.

        Returns:
            False when the monitor asked for the end.

        Raises:
            NotFinite: the loss became NaN or infinite.
        """
        place, batches = self.device.place, Batches(self.data, self.recipe, steps)
        try:
            model.to(place)
            if lesson.teacher is not None:
                lesson = replace(lesson, teacher=self.device.copied(lesson.teacher))
            lesson = self._suited(lesson)
            carry = self._carrier(model if lesson.teacher is None else lesson.teacher)
            known = recalled(lesson, batches, self.device, carry)
            with self.device.seeded(), learning(lesson, model, self.device, known) as course:
                torch.manual_seed(seed)
                key = key_of(model, lesson, batches, self.task, self.device, seed) if bookmark else ""
                found = bookmark.opened(key) if bookmark else None
                return _Run(self, model.train(), course, carry, bookmark).through(batches, seed, monitor, found)
        finally:
            model.eval().cpu()

    def supervised(self, split: str) -> bool:
        """Whether labels say what is right on this split."""
        return self.task.learns_labels and labelled(self.data.split(split).targets)

    def _suited(self, lesson: Lesson) -> Lesson:
        terms = lesson.terms if self.supervised("train") else (TeacherTerm(self.task.scores), *lesson.terms)
        return replace(lesson, terms=terms, compared=self.task.compared)

    def loss(self, outputs: Any, targets: Any, distilled: bool) -> Tensor:
        """The task's loss, its targets smoothed where the recipe says so and no teacher softens them."""
        if self.recipe.label_smoothing and not distilled:
            return cast(Smooths, self.task).smoothed(outputs, targets, self.recipe.label_smoothing)
        return self.task.loss(outputs, targets)

    def _carrier(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        """Puts normalised inputs onto the device, in the layout that suits the network."""
        few = self.data.normalise(self.data.split("train").inputs[:2])
        layout = self.device.layout(model, few)
        return partial(_carried, place=self.device.place, layout=layout)


@dataclass(frozen=True)
class _Run:
    """One repair on its way."""

    repair: Repair
    model: nn.Module
    course: Learning
    carry: Callable[[Tensor], Tensor]
    bookmark: Bookmark | None

    def through(self, batches: Batches, seed: int, monitor: Monitor, found: State | None) -> bool:
        """All steps, those after ``found``, or as many as the monitor wants; see ``Repair.__call__``."""
        recipe, steps, place = self.repair.recipe, batches.steps, self.repair.device.place
        descent = Descent(self.model, self.course.adapters, recipe, self.repair.device)
        progress = Progress(self.model, self.course, descent, batches.shuffled(seed), place, steps)
        if found is not None:
            self._loss(next(progress.walk))  # it makes the adapters; all else that it changes is put back
            progress.restore(found)
        every = max(math.ceil(steps / (recipe.reports + 1)), 1)
        wanted = all(monitor(*report) for report in progress.reports)
        while wanted and progress.step < steps:
            self._step(progress)
            if progress.step % every == 0 and progress.step < steps:
                with descent.shown():
                    progress.reports.append((progress.step, self._watched()))
                wanted = monitor(*progress.reports[-1])
            if self.bookmark is not None and self.bookmark.due and wanted and progress.step < steps:
                self.bookmark.write(progress.state())
        descent.end()
        return wanted

    def _step(self, progress: Progress) -> None:
        step, steps = progress.step, progress.steps
        live.advance(self.model, step / steps)
        loss = self._loss(next(progress.walk))
        if not math.isfinite(loss.item()):
            raise NotFinite(f"repair: the loss became {loss.item()} at step {step + 1} of {steps}")
        progress.descent.step(loss, self.repair.recipe.rate(step, steps))
        self.course.follow()
        progress.step += 1

    def _loss(self, batch: Batch) -> Tensor:
        targets = mapped(batch.targets, lambda tensor: tensor.to(self.repair.device.place))
        distilled = bool(self.course.terms)
        return self.course.loss(
            self.carry(batch.inputs), lambda outputs: self.repair.loss(outputs, targets, distilled), batch.rows
        )

    def _watched(self) -> float:
        """Loss on the first WATCHED inputs of the search split, in eval mode, float32; see ``Repair.original``.

        Raises:
            NotFinite: it is NaN or infinite.
        """
        split = self.repair.data.split("search").head(WATCHED)
        targets = mapped(split.targets, lambda tensor: tensor.to(self.repair.device.place))
        self.model.eval()
        with torch.inference_mode():
            inputs = self.repair.data.normalise(split.inputs)
            outputs = self.model(self.carry(inputs))
            if self.repair.supervised("search"):
                loss = self.repair.task.loss(outputs, targets).item()
            else:
                assert self.repair.original is not None
                wanted = mapped(self.repair.original(inputs), lambda tensor: tensor.to(self.repair.device.place))
                loss = teacher_loss(self.repair.task, outputs, wanted).item()
        self.model.train()
        if not math.isfinite(loss):
            raise NotFinite(f"repair: the loss on the search split became {loss}")
        return loss


def _carried(inputs: Tensor, place: torch.device, layout: torch.memory_format) -> Tensor:
    """Inputs on the device; only images have a layout."""
    return inputs.to(place, memory_format=layout) if inputs.dim() == 4 else inputs.to(place)
