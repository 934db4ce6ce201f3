"""How far one repair is: all that changes from step to step, and the key of all that it follows from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import nn

from automc.evaluation.batches import Batches, Shuffled
from automc.evaluation.descent import Descent
from automc.evaluation.device import Device
from automc.evaluation.lesson import Learning, Lesson
from automc.evaluation.state import State, digest, put_back, taken
from automc.operators.outputs import tensors_of

SAMPLE = 16
"""Rows of the train split by which a key tells data sets apart."""

FORMAT = 1
"""Of ``Progress.state``, and of what a repair does with it: another one is of no use."""


@dataclass
class Progress:
    """A repair on its way.

    Attributes:
        step: how many are done. reports: what the monitor was told, (step, value).
    """

    model: nn.Module
    course: Learning
    descent: Descent
    walk: Shuffled
    place: torch.device
    steps: int
    step: int = 0
    reports: list[tuple[int, float]] = field(default_factory=list)

    def state(self) -> State:
        """Of everything: who restores it takes the very steps that would have come."""
        return {
            "step": self.step,
            "steps": self.steps,
            "reports": self.reports,
            "model": taken(self.model),
            "course": self.course.state(),
            "descent": self.descent.state(),
            "walk": self.walk.state(),
            "random": [torch.get_rng_state(), *([torch.cuda.get_rng_state(self.place)] if self._gpu else [])],
        }

    def restore(self, state: State) -> None:
        """Be as when ``state`` was taken, of a repair with the same key, after at least one loss (see Learning)."""
        self.step, self.reports = state["step"], [(step, value) for step, value in state["reports"]]
        put_back(self.model, state["model"])
        self.course.restore(state["course"])
        self.descent.restore(state["descent"])
        self.walk.restore(state["walk"])
        torch.set_rng_state(state["random"][0])
        if self._gpu:
            torch.cuda.set_rng_state(state["random"][1], self.place)

    @property
    def _gpu(self) -> bool:
        return self.place.type == "cuda"


def key_of(model: nn.Module, lesson: Lesson, batches: Batches, task: Any, device: Device, seed: int) -> str:
    """Of all that decides a repair's weights: a state counts for repairs with the same key only.

    That is the network before its first step, its teacher, the terms of the loss, the recipe, the steps, the seed (and
    so policy, rung and study), what computes, and of the data the size and a few rows.
    """
    split = batches.data.split("train")
    rows = torch.linspace(0, len(split) - 1, min(SAMPLE, len(split))).long()
    shown = batches.data.normalise(split.inputs[rows])
    said = (FORMAT, torch.__version__, batches.steps, seed, device.place.type, str(device.dtype), len(split))
    networks = [model] if lesson.teacher is None else [model, lesson.teacher]
    tensors = [tensor for network in networks for tensor in taken(network).values()]
    words = (_said(each) for each in (said, batches.recipe, task, lesson.terms))
    return digest(*words, *tensors_of([shown, split.targets[rows]]), *tensors)


def _said(value: Any) -> str:
    """Plain data and dataclasses in words that are the same in every process; of anything else the kind."""
    kind = type(value)
    if isinstance(value, (bool, int, float, str)) or value is None:
        return repr(value)
    if is_dataclass(kind):
        inner = ", ".join(f"{f.name}={_said(getattr(value, f.name))}" for f in fields(value))
        return f"{kind.__qualname__}({inner})"
    inner = ", ".join(map(_said, value)) if isinstance(value, Sequence) else ""
    return f"{kind.__qualname__}({inner})"
