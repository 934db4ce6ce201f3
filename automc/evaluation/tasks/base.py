"""What a task is: what outputs must look like, how they are learned and how they are judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from automc.core.judges import Judge, labelled
from automc.core.metrics import Estimate
from automc.core.study import Part


class Judging(Protocol):
    """Says how good outputs are: a Judge of core/judges, for tensors. Stateless."""

    def measures(self, classes: int, labelled: bool) -> tuple[str, ...]:
        """Names of METRICS that ``summarise`` gives, the one that says most first.

        Args:
            classes: of the data, 0 where it has none or they are not known. labelled: whether there are targets.
        """
        ...

    def answer(self, outputs: Any) -> Any:
        """What of the original network's outputs others are compared with: all that is kept of them."""
        return outputs

    def judge(self, outputs: Any, teacher: Any, targets: Tensor) -> dict[str, Tensor]:
        """What each input of a batch adds to the metrics, by name, shape (n, ...).

        Batches are judged one by one and joined along their first axis.

        Args:
            teacher: ``answer`` of the original network's outputs for the same inputs. targets: (n, 0) without labels.
        """
        ...

    def summarise(self, judged: Mapping[str, Tensor]) -> dict[str, Estimate]:
        """The metrics of all inputs that were judged, n >= 1."""
        ...


class Task(Judging, Protocol):
    """What a network is for. A task of your own is a subclass with ``measures``, ``loss``, ``judge``, ``summarise``.

    Attributes:
        scores: outputs are scores of classes, which softmax makes probabilities: soft distillation has a meaning.
        learns_labels: the repair learns from targets where there are any; else from the original network alone.
        movable: an image may be shifted or mirrored and its target stays right.
        judged_as: name and settings of the judge of core/judges whose metrics these are, so that the proof of an
            exported file can measure them again without torch; None: the proof compares outputs.
    """

    scores: bool = False
    learns_labels: bool = True
    movable: bool = False
    judged_as: Part | None = None

    def check(self, outputs: Any, targets: Tensor, classes: int) -> None:
        """Refuse outputs and targets of another form than the task's.

        Args:
            outputs: of a few inputs. targets: of a whole split.

        Raises:
            ModelError, DataError: in one line.
        """

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """Mean loss of a batch, differentiable, shape ()."""
        ...

    def compared(self, outputs: Any) -> Tensor:
        """What distillation compares with the teacher's: where they are scores, shape (n, classes, ...).

        Raises:
            ModelError: there is nothing to compare.
        """
        assert isinstance(outputs, Tensor)
        return outputs

    def hard(self, targets: Tensor) -> Tensor | None:
        """Targets as class numbers (n, ...) for scores (n, classes, ...), -100 where none counts; or None."""
        return None


class Smooths(Protocol):
    """A task with classes."""

    def smoothed(self, outputs: Any, targets: Tensor, share: float) -> Tensor:
        """The loss with this share of each target spread evenly over all classes (Szegedy et al. 2016)."""
        ...


class Judged(Task, Protocol):
    """A task whose metrics are those of a judge."""

    def judged_by(self) -> Judge:
        """The judge."""
        ...

    def measures(self, classes: int, labelled: bool) -> tuple[str, ...]:
        return self.judged_by().measures(classes, labelled)

    def answer(self, outputs: Any) -> Any:
        return mapped_arrays(self.judged_by().answer(arrays(outputs)))

    def judge(self, outputs: Any, teacher: Any, targets: Tensor) -> dict[str, Tensor]:
        judged = self.judged_by().judge(arrays(outputs), arrays(teacher), arrays(targets))
        return {name: torch.from_numpy(each) for name, each in judged.items()}

    def summarise(self, judged: Mapping[str, Tensor]) -> dict[str, Estimate]:
        return self.judged_by().summarise({name: each.numpy() for name, each in judged.items()})


def arrays(value: Any) -> Any:
    """Tensors as arrays, in mappings too."""
    if isinstance(value, Mapping):
        return {name: arrays(each) for name, each in value.items()}
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else value


def mapped_arrays(value: Any) -> Any:
    """Arrays as tensors, in mappings too."""
    if isinstance(value, Mapping):
        return {name: mapped_arrays(each) for name, each in value.items()}
    return torch.from_numpy(value)


__all__ = ["Judged", "Judging", "Smooths", "Task", "arrays", "labelled"]
