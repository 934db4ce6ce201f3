"""Repair: a short training of the compressed network, its masks, quantizers and distillation losses live.

One recipe for every method, so that searches differ by what they propose and by nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from automc.core.ports import Monitor
from automc.errors import NotFinite, SpecError
from automc.evaluation.augment import augmentation
from automc.evaluation.lesson import Learning, Lesson, learning
from automc.evaluation.splits import Data
from automc.evaluation.task import Task
from automc.operators import live


@dataclass(frozen=True)
class Recipe:
    """Stochastic gradient descent with Nesterov momentum, a linear warm-up and a cosine decay to zero.

    Attributes:
        learning_rate: the highest one. momentum: in [0, 1).
        weight_decay: of weights; biases and normalisation parameters have none.
        batch_size: inputs per step. warmup: share of the steps in which the rate rises, in [0, 1).
        clip: gradients are scaled down to this norm.
        augment: ``auto``, ``none``, ``shift`` or ``flip-shift``.
        reports: how often the monitor is told during a repair.
    """

    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 64
    warmup: float = 0.1
    clip: float = 5.0
    augment: str = "auto"
    reports: int = 5

    def __post_init__(self) -> None:
        rules = {
            "learning_rate": (self.learning_rate > 0, "above 0"),
            "momentum": (0 <= self.momentum < 1, "in [0, 1)"),
            "weight_decay": (self.weight_decay >= 0, "at least 0"),
            "batch_size": (self.batch_size >= 2, "at least 2 (batch norm needs two)"),
            "warmup": (0 <= self.warmup < 1, "in [0, 1)"),
            "clip": (self.clip > 0, "above 0"),
            "reports": (self.reports >= 1, "at least 1"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise SpecError(f"evaluator network: {name} must be {rule}, not {getattr(self, name)!r}")

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of step 0..steps-1."""
        rising = max(round(self.warmup * steps), 1)
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rising + 1) / (steps - rising + 1)))


@dataclass(frozen=True)
class Repair:
    """What every repair of a study has in common."""

    data: Data
    task: Task
    recipe: Recipe

    def __call__(self, model: nn.Module, lesson: Lesson, steps: int, seed: int, monitor: Monitor) -> bool:
        """Train ``model`` in place on the train split; it is left in eval mode.

        The same arguments give the same weights, whoever runs it.

        Args:
            lesson: the teacher and the terms of the loss. seed: of the batches, the augmentation and dropout.
            monitor: told (step, loss on the first search inputs) during the repair, not at its end.

        Returns:
            False when the monitor asked for the end.

        Raises:
            NotFinite: the loss became NaN or infinite.
        """
        try:
            with torch.random.fork_rng(devices=[]), learning(lesson, model) as course:
                torch.manual_seed(seed)
                return self._train(model.train(), course, steps, monitor)
        finally:
            model.eval()

    def _train(self, model: nn.Module, course: Learning, steps: int, monitor: Monitor) -> bool:
        optimizer = _optimizer(model, self.recipe)
        every = max(math.ceil(steps / (self.recipe.reports + 1)), 1)
        for step, batch in zip(range(steps), self._batches(), strict=False):
            live.advance(model, step / steps)
            loss = self._loss(course, *batch)
            if not math.isfinite(loss.item()):
                raise NotFinite(f"repair: the loss became {loss.item()} at step {step + 1} of {steps}")
            if step == 0:
                optimizer.add_param_group({"params": list(course.adapters.parameters()), "weight_decay": 0.0})
            for group in optimizer.param_groups:
                group["lr"] = self.recipe.rate(step, steps)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            for trained in (model, course.adapters):  # apart: adapters must not shrink the network's steps
                nn.utils.clip_grad_norm_(list(trained.parameters()), self.recipe.clip)
            optimizer.step()
            course.follow()
            done = step + 1
            if done % every == 0 and done < steps and not monitor(done, self._watched(model)):
                return False
        return True

    def _loss(self, course: Learning, inputs: Tensor, targets: Tensor) -> Tensor:
        return course.loss(inputs, lambda outputs: self.task.loss(outputs, targets))

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Endless shuffled batches, augmented and normalised; a shorter last batch is left out."""
        split = self.data.split("train")
        augment = augmentation(self.recipe.augment, tuple(split.inputs.shape[1:]))
        generator = torch.Generator().manual_seed(torch.initial_seed())
        size = min(self.recipe.batch_size, len(split))
        while True:
            order = torch.randperm(len(split), generator=generator)
            for rows in torch.split(order[: len(split) // size * size], size):
                yield self.data.normalise(augment(split.inputs[rows], generator)), split.targets[rows]

    def _watched(self, model: nn.Module) -> float:
        """Loss on the first WATCHED inputs of the search split, in eval mode.

        Raises:
            NotFinite: it is NaN or infinite.
        """
        split = self.data.split("search").head(WATCHED)
        model.eval()
        with torch.inference_mode():
            loss = self.task.loss(model(self.data.normalise(split.inputs)), split.targets).item()
        model.train()
        if not math.isfinite(loss):
            raise NotFinite(f"repair: the loss on the search split became {loss}")
        return loss


WATCHED = 256
"""Inputs of the search split that a report to the monitor is measured on."""


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    weights = [p for p in model.parameters() if p.requires_grad and p.dim() > 1]
    others = [p for p in model.parameters() if p.requires_grad and p.dim() <= 1]
    groups = [{"params": weights, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    nesterov = recipe.momentum > 0
    return torch.optim.SGD(groups, recipe.learning_rate, momentum=recipe.momentum, nesterov=nesterov)
