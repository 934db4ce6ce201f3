"""What a repair learns from beside the labels: a teacher, and the terms that compare the student with it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from automc.evaluation.device import Device, widened
from automc.evaluation.state import State, put_back, taken
from automc.operators.base import Answer, LossTerm
from automc.operators.distillation.features import watched

ON_CPU = Device("cpu", "float32")

DECAY = 0.95
"""Of the student's moving average, a step: it remembers about 20 steps, and a repair has tens to hundreds."""


def _all(outputs: Any) -> Any:
    return outputs


@dataclass(frozen=True)
class Lesson:
    """A teacher and what is learned from it.

    Attributes:
        teacher: another network in eval mode, never changed; or None: the student's own moving average, which begins
            as the student before its first step (self-distillation).
        terms: of the loss; without any the teacher does not run.
        memory: where answers of this teacher may be kept for later lessons; None: nowhere.
        compared: what the terms compare of outputs, see Task; all of them by default.
    """

    teacher: nn.Module | None
    terms: Sequence[LossTerm] = ()
    memory: dict[Hashable, Any] | None = field(default=None, compare=False, repr=False)
    compared: Callable[[Any], Any] = _all

    @property
    def keeps(self) -> float:
        """Weight of the task's loss; with 0 no label is read."""
        return math.prod(term.keeps for term in self.terms)

    @property
    def layers(self) -> frozenset[str]:
        """Paths of the modules whose outputs are compared; without any the teacher's answers are all that counts."""
        return frozenset(path for term in self.terms for path in term.layers)


@contextmanager
def learning(
    lesson: Lesson, student: nn.Module, device: Device = ON_CPU, known: Tensor | None = None
) -> Iterator[Learning]:
    """A lesson at work in one repair. Afterwards the student keeps nothing of it: no hook, no adapter.

    Args:
        student: on the device, and so is the lesson's teacher.
        known: the teacher's answers to all rows of the train split, if it need not run.
    """
    teacher = copy.deepcopy(student).eval() if lesson.teacher is None else lesson.teacher
    with watched(student, lesson.layers) as own, watched(teacher, lesson.layers) as wanted:
        yield Learning(lesson, (student, teacher), (own, wanted), device, known)


class Learning:
    """The terms of a lesson with their adapters, and a teacher that may follow the student."""

    def __init__(
        self,
        lesson: Lesson,
        networks: tuple[nn.Module, nn.Module],
        features: tuple[dict[str, Tensor], dict[str, Tensor]],
        device: Device,
        known: Tensor | None,
    ) -> None:
        self.adapters = nn.ModuleList()
        self._lesson = lesson
        self._student, self._teacher = networks
        self._features = features
        self._device = device
        self._known = known

    @property
    def terms(self) -> Sequence[LossTerm]:
        """Of the loss, beside the task's."""
        return self._lesson.terms

    def loss(self, inputs: Tensor, task: Callable[[Any], Tensor], rows: Tensor | None = None) -> Tensor:
        """The whole loss of a batch, a float32 scalar; the first call makes the adapters.

        Args:
            inputs: on the device. task: the task's loss of the outputs; not called where it has no weight.
            rows: of the train split, by which known answers are looked up; without them the teacher runs.
        """
        own = self._answer(0, inputs)
        loss: Tensor = task(own.outputs) if self._lesson.keeps else torch.zeros((), device=inputs.device)
        if not self._lesson.terms:
            return loss
        if self._known is not None and rows is not None:
            wanted = Answer(self._known[rows].to(inputs.device), {})
        else:
            with torch.no_grad():
                wanted = self._answer(1, inputs)
        own, wanted = (answer._replace(outputs=self._lesson.compared(answer.outputs)) for answer in (own, wanted))
        if not self.adapters:
            self.adapters.extend(term.start(own, wanted) for term in self._lesson.terms)
        for term, module in zip(self._lesson.terms, self.adapters, strict=True):
            loss = term.keeps * loss + module(own, wanted)
        return loss

    def _answer(self, who: int, inputs: Tensor) -> Answer:
        """The student's (0) or the teacher's (1), all float32."""
        with self._device.mixed():
            outputs = (self._student, self._teacher)[who](inputs)
        return Answer(widened(outputs), widened(self._features[who]))

    def follow(self) -> None:
        """Called after each step: ``average = DECAY * average + (1 - DECAY) * student``; buffers are the student's."""
        if self._following:
            follow(self._teacher, self._student)

    def state(self) -> State:
        """The adapters, and the teacher where it follows the student."""
        return {"adapters": taken(self.adapters), "teacher": taken(self._teacher) if self._following else None}

    def restore(self, state: State) -> None:
        """Be as when ``state`` was taken, in the same lesson; there was a loss, which made the adapters."""
        put_back(self.adapters, state["adapters"])
        if self._following:
            put_back(self._teacher, state["teacher"])

    @property
    def _following(self) -> bool:
        return self._lesson.teacher is None and bool(self._lesson.terms)


@torch.no_grad()
def follow(average: nn.Module, student: nn.Module) -> None:
    """One step of the moving average, see ``Learning.follow``."""
    own = dict(student.named_parameters())
    for name, parameter in average.named_parameters():
        parameter.lerp_(own[name], 1 - DECAY)
    for name, buffer in student.named_buffers():
        owner, _, leaf = name.rpartition(".")
        setattr(average.get_submodule(owner), leaf, buffer.clone())
