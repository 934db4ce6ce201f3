"""A repair's recipe, in data: optimizer, schedule, batches, average, augmentation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from automc.core.required import require
from automc.evaluation.augment import AUGMENTS

OPTIMIZERS: Mapping[str, float] = {"sgd": 0.02, "adamw": 0.003}
"""By the value of ``optimizer``, the learning rate of a recipe that gives none: the best tried in 100 steps."""

SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "linear": lambda done: 1 - done,
    "constant": lambda done: 1.0,
}
"""By the value of ``schedule``: the share of the highest learning rate, by the share in (0, 1) of the steps after the
warm-up that are done."""


@dataclass(frozen=True)
class Recipe:
    """How a repair trains.

    Attributes:
        optimizer: ``sgd`` (with Nesterov momentum) or ``adamw`` (Loshchilov & Hutter 2019).
        learning_rate: the highest one; 0: the optimizer's own, see OPTIMIZERS.
        schedule: ``cosine`` or ``linear``, which fall to zero, or ``constant``; a linear warm-up comes first.
        momentum: in [0, 1); of adamw its first beta (the second is 0.999).
        weight_decay: of weights; biases, normalisation parameters and learned steps have none.
        batch_size: inputs per step. warmup: share of the steps in which the rate rises, in [0, 1).
        clip: gradients are scaled down to this norm.
        ema: decay of the weights' moving average, which the repair leaves in their place; 0: the last weights.
        label_smoothing: share of the target that is spread over all classes, in [0, 1); without effect in a repair
            with distillation, whose targets are soft already.
        augment: ``auto``, ``none``, ``shift``, ``flip-shift`` or ``flip-shift-cutout``.
        reports: how often the monitor is told during a repair.
    """

    optimizer: str = "sgd"
    learning_rate: float = 0.0
    schedule: str = "cosine"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 64
    warmup: float = 0.1
    clip: float = 5.0
    ema: float = 0.0
    label_smoothing: float = 0.0
    augment: str = "auto"
    reports: int = 5

    def __post_init__(self) -> None:
        rules = {
            "learning_rate": (0 <= self.learning_rate < math.inf, "above 0, or 0 for the optimizer's own"),
            "momentum": (0 <= self.momentum < 1, "in [0, 1)"),
            "weight_decay": (self.weight_decay >= 0, "at least 0"),
            "batch_size": (self.batch_size >= 2, "at least 2 (batch norm needs two)"),
            "warmup": (0 <= self.warmup < 1, "in [0, 1)"),
            "clip": (self.clip > 0, "above 0"),
            "ema": (0 <= self.ema < 1, "in [0, 1)"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "in [0, 1)"),
            "reports": (self.reports >= 1, "at least 1"),
        }
        require(self, rules, {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "augment": AUGMENTS})

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of step 0..steps-1: a linear rise to the highest, then the schedule."""
        highest = self.learning_rate or OPTIMIZERS[self.optimizer]
        rising = max(round(self.warmup * steps), 1)
        if step < rising:
            return highest * (step + 1) / rising
        return highest * SCHEDULES[self.schedule]((step - rising + 1) / (steps - rising + 1))


def optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over all parameters of a network that train; its learning rate is set step by step."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    first = recipe.rate(0, 1)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, first, betas=(recipe.momentum, 0.999))
    return torch.optim.SGD(groups, first, momentum=recipe.momentum, nesterov=recipe.momentum > 0)
