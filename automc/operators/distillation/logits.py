"""Logit distillation: the compressed network learns its teacher's answers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from automc.operators.base import Answer


def soft(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``T^2 * KL(softmax(teacher / T) || softmax(student / T))``, mean over all predictions (Hinton et al. 2015).

    T^2 keeps the gradient's size independent of T; as T grows, the term approaches half the squared distance between
    the centred logits, divided by the number of classes.

    Args:
        student, teacher: logits, shape (n, classes, ...). temperature: T, above 0.
    """
    own = F.log_softmax(student / temperature, dim=1)
    wanted = F.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * F.kl_div(own, wanted, reduction="none", log_target=True).sum(dim=1).mean()


def plain(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean squared difference of the logits (Ba & Caruana 2014); there is no temperature in it."""
    return F.mse_loss(student, teacher)


LOGITS = {"soft": soft, "plain": plain}
"""By the value of ``kd_logits``."""


@dataclass(frozen=True)
class LogitTerm:
    """``loss = (1 - alpha) * loss so far + alpha * distance``: see base.LossTerm.

    Attributes:
        temperature: T, above 0. alpha: in [0, 1]; with 1 the labels are never read. kind: a key of LOGITS.
    """

    temperature: float
    alpha: float
    kind: str = "soft"

    @property
    def keeps(self) -> float:
        return 1 - self.alpha

    @property
    def layers(self) -> tuple[str, ...]:
        return ()

    def start(self, student: Answer, teacher: Answer) -> nn.Module:
        """The term; it has nothing to learn."""
        return _Weighted(self)


class _Weighted(nn.Module):
    def __init__(self, term: LogitTerm) -> None:
        super().__init__()
        self.term = term

    def forward(self, student: Answer, teacher: Answer) -> Tensor:
        """The weighted distance, a scalar. No gradient reaches the teacher."""
        distance = LOGITS[self.term.kind]
        return self.term.alpha * distance(student.outputs, teacher.outputs.detach(), self.term.temperature)
