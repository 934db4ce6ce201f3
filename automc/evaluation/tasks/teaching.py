"""Learning without labels: the original network's answers in the place of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from automc.evaluation.tasks.base import Task
from automc.operators.base import Answer
from automc.operators.distillation.distances import relative
from automc.operators.distillation.logits import soft


def teacher_loss(task: Task, outputs: Any, teacher: Any) -> Tensor:
    """How far outputs are from the teacher's, a scalar: what a task's loss is where there are no labels.

    Of scores ``KL(softmax(teacher) || softmax(student))`` in nats, mean over all predictions; of other outputs their
    squared distance over the teacher's squared size.
    """
    return _distance(task.scores, task.compared(outputs), task.compared(teacher))


def hessian_root(scores: bool, teacher: Tensor, draw: torch.Generator) -> Tensor:
    """A random vector, shape of the outputs, whose mean outer product is the Hessian of ``teacher_loss`` with respect
    to the outputs, where these are the teacher's own.

    Of scores the Hessian is ``diag(p) - p p^T`` at each prediction: a class is drawn by its probability, and the vector
    is plus or minus (1 at this class) - p. Of other outputs it is a multiple of the identity: signs do.

    Args:
        teacher: its outputs, in the form of ``Task.compared``.
    """
    if not scores:
        signs = 2.0 * torch.randint(2, teacher.shape, generator=draw).to(teacher) - 1
        return signs * (2 / teacher.square().sum().clamp_min(torch.finfo(teacher.dtype).tiny)).sqrt()
    share = teacher.movedim(1, -1).softmax(-1)
    flat = share.flatten(0, -2)
    chosen = torch.multinomial(flat, 1, generator=draw)
    signs = 2.0 * torch.randint(2, (len(flat), 1), generator=draw).to(flat) - 1
    picked = torch.zeros_like(flat).scatter_(1, chosen, 1.0)
    found = signs * (picked - flat) / math.sqrt(len(flat))
    return found.view_as(share).movedim(-1, 1)


@dataclass(frozen=True)
class TeacherTerm:
    """The first term of a loss without labels, see ``base.LossTerm``: ``teacher_loss`` takes the task's place.

    Later terms mix it with theirs as they would mix the labels' loss. Answers are compared in the form that
    ``Task.compared`` gives them.
    """

    scores: bool

    @property
    def keeps(self) -> float:
        return 0.0

    @property
    def layers(self) -> tuple[str, ...]:
        return ()

    def start(self, student: Answer, teacher: Answer) -> nn.Module:
        """The term; it has nothing to learn."""
        return _Compared(self)


class _Compared(nn.Module):
    def __init__(self, term: TeacherTerm) -> None:
        super().__init__()
        self.term = term

    def forward(self, student: Answer, teacher: Answer) -> Tensor:
        """The distance, a scalar. No gradient reaches the teacher."""
        return _distance(self.term.scores, student.outputs, teacher.outputs.detach())


def _distance(scores: bool, own: Tensor, wanted: Tensor) -> Tensor:
    return soft(own, wanted, 1.0) if scores else relative(own, wanted)
