"""Boxes with a score and a class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from automc.core.judges import labelled
from automc.core.judges.boxes import BoxesJudge
from automc.core.study import Part
from automc.errors import DataError, ModelError
from automc.evaluation.tasks.base import Judged

NEEDED = ("boxes", "scores", "labels")


@dataclass(frozen=True)
class Detection(Judged):
    """The network returns a dict: ``boxes`` (n, k, 4), ``scores`` (n, k), ``labels`` (n, k), k the same for all inputs.

    A box is x1, y1, x2, y2 in the units of the targets; one with a score of 0 or less is none. For a repair it must
    also return ``raw`` (n, ...): the numbers before boxes are decoded and chosen, in the same places in every network.
    Targets have shape (n, m, 5): x1, y1, x2, y2, class number, which is negative in rows that only fill up.

    Which boxes a network was trained to tell from which targets, its outputs do not say. So the repair here learns
    ``raw`` from the original network, and no targets. A loss of your own takes a subclass with ``learns_labels`` True
    and ``loss``.

    Attributes:
        confident: boxes of the original with at least this score are what agreement is measured with.
    """

    confident: float = 0.5
    learns_labels = False

    @property
    def judged_as(self) -> Part:  # type: ignore[override]
        return Part("detection", {"confident": self.confident})

    def __post_init__(self) -> None:
        self.judged_by()  # checks the setting

    def judged_by(self) -> BoxesJudge:
        return BoxesJudge(self.confident)

    def check(self, outputs: Any, targets: Tensor, classes: int) -> None:
        if not isinstance(outputs, Mapping) or not all(isinstance(outputs.get(name), Tensor) for name in NEEDED):
            found = (
                f"a dict with {', '.join(map(str, outputs))}"
                if isinstance(outputs, Mapping)
                else type(outputs).__name__
            )
            raise ModelError(f"the model must return a dict with the tensors {', '.join(NEEDED)}, not {found}")
        boxes, scores, labels = (tuple(outputs[name].shape) for name in NEEDED)
        if len(boxes) != 3 or boxes[2] != 4 or scores != boxes[:2] or labels != boxes[:2]:
            shapes = f"boxes {boxes}, scores {scores}, labels {labels}"
            raise ModelError(f"the model must return boxes (n, k, 4), scores (n, k) and labels (n, k), not {shapes}")
        if not labelled(targets):
            return
        if targets.dim() != 3 or targets.shape[2] != 5:
            raise DataError(f"targets must have shape (n, m, 5): x1, y1, x2, y2, class, not {tuple(targets.shape)}")
        rows = targets[targets[..., 4] >= 0]
        if not len(rows):
            raise DataError("there is not a single box in the targets")
        if bool((rows[:, :2] > rows[:, 2:4]).any()):
            raise DataError("boxes must have x1 <= x2 and y1 <= y2")

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        raise NotImplementedError("give a subclass of Detection with a loss of your own")

    def compared(self, outputs: Any) -> Tensor:
        if not isinstance(outputs.get("raw"), Tensor):
            raise ModelError("task detection: a repair compares the output 'raw', which the model does not return")
        raw: Tensor = outputs["raw"]
        return raw
