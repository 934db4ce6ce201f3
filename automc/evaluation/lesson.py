"""What a repair learns from beside the labels: a teacher, and the terms that compare the student with it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from automc.operators.base import Answer, LossTerm
from automc.operators.distillation.features import watched

DECAY = 0.95
"""Of the student's moving average, a step: it remembers about 20 steps, and a repair has tens to hundreds."""


@dataclass(frozen=True)
class Lesson:
    """A teacher and what is learned from it.

    Attributes:
        teacher: another network in eval mode, never changed; or None: the student's own moving average, which begins
            as the student before its first step (self-distillation).
        terms: of the loss; without any the teacher does not run.
    """

    teacher: nn.Module | None
    terms: Sequence[LossTerm] = ()

    @property
    def keeps(self) -> float:
        """Weight of the task's loss; with 0 no label is read."""
        return math.prod(term.keeps for term in self.terms)


@contextmanager
def learning(lesson: Lesson, student: nn.Module) -> Iterator[Learning]:
    """A lesson at work in one repair. Afterwards the student keeps nothing of it: no hook, no adapter."""
    teacher = copy.deepcopy(student).eval() if lesson.teacher is None else lesson.teacher
    paths = {path for term in lesson.terms for path in term.layers}
    with watched(student, paths) as own, watched(teacher, paths) as wanted:
        yield Learning(lesson, student, teacher, (own, wanted))


class Learning:
    """The terms of a lesson with their adapters, and a teacher that may follow the student."""

    def __init__(
        self,
        lesson: Lesson,
        student: nn.Module,
        teacher: nn.Module,
        features: tuple[dict[str, Tensor], dict[str, Tensor]],
    ) -> None:
        self.adapters = nn.ModuleList()
        self._lesson = lesson
        self._student = student
        self._teacher = teacher
        self._features = features

    def loss(self, inputs: Tensor, task: Callable[[Tensor], Tensor]) -> Tensor:
        """The whole loss of a batch, a scalar; the first call makes the adapters.

        Args:
            task: the task's loss of the outputs; not called where it has no weight.
        """
        outputs = self._student(inputs)
        loss: Tensor = task(outputs) if self._lesson.keeps else outputs.new_zeros(())
        if not self._lesson.terms:
            return loss
        with torch.no_grad():
            wanted = Answer(self._teacher(inputs), self._features[1])
        own = Answer(outputs, self._features[0])
        if not self.adapters:
            self.adapters.extend(term.start(own, wanted) for term in self._lesson.terms)
        for term, module in zip(self._lesson.terms, self.adapters, strict=True):
            loss = term.keeps * loss + module(own, wanted)
        return loss

    def follow(self) -> None:
        """Called after each step: ``average = DECAY * average + (1 - DECAY) * student``; buffers are the student's."""
        if self._lesson.teacher is None and self._lesson.terms:
            follow(self._teacher, self._student)


@torch.no_grad()
def follow(average: nn.Module, student: nn.Module) -> None:
    """One step of the moving average, see ``Learning.follow``."""
    own = dict(student.named_parameters())
    for name, parameter in average.named_parameters():
        parameter.lerp_(own[name], 1 - DECAY)
    for name, buffer in student.named_buffers():
        owner, _, leaf = name.rpartition(".")
        setattr(average.get_submodule(owner), leaf, buffer.clone())
