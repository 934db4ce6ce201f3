"""Logit distillation: the compressed network also learns the original's soft answers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor
from torch.nn import functional as F

from automc.operators.base import Compression, LossTerm, Settings


@dataclass(frozen=True)
class Distillation:
    """``(1 - alpha) * task_loss + alpha * T^2 * KL(softmax(teacher / T) || softmax(student / T))``.

    Hinton et al. (2015). T^2 keeps the gradient's size independent of T; as T grows, the term approaches half the
    squared distance between the centred logits, divided by the number of classes. The mean is over all predictions.

    Attributes:
        temperature: T, above 0. alpha: in [0, 1].
    """

    temperature: float
    alpha: float

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor, targets: Tensor, task_loss: Tensor) -> Tensor:
        """The weighted loss, a scalar. No gradient reaches the teacher.

        Args:
            student_logits, teacher_logits: shape (n, classes, ...).
        """
        student = F.log_softmax(student_logits / self.temperature, dim=1)
        teacher = F.log_softmax(teacher_logits.detach() / self.temperature, dim=1)
        distance = F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1).mean()
        return (1 - self.alpha) * task_loss + self.alpha * self.temperature**2 * distance


def distill(state: Compression, settings: Settings) -> Compression:
    """Add the distillation term to the repair's loss; without weight (kd_alpha 0) none is added.

    Settings and realized: ``kd_temperature`` and ``kd_alpha`` of ``"*"``.
    """
    chosen = settings["*"]
    temperature, alpha = float(chosen["kd_temperature"]), float(chosen["kd_alpha"])
    state = state.with_realized({"*": {"kd_temperature": temperature, "kd_alpha": alpha}})
    return replace(state, losses=(*state.losses, Distillation(temperature, alpha))) if alpha else state


__all__ = ["Distillation", "LossTerm", "distill"]
