"""Learning without labels: the original network's answers in the place of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
