"""Boxes with a score and a class: detection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from automc.core.judges.base import Array, labelled
from automc.core.judges.estimates import bootstrap, mean_over
from automc.core.metrics import Estimate
from automc.errors import SpecError

OVERLAPS = np.linspace(0.5, 0.95, 10)
"""Intersections over union from which on a box counts as found (COCO, Lin et al. 2014)."""


@dataclass(frozen=True)
class BoxesJudge:
    """Outputs are ``boxes`` (n, k, 4), ``scores`` (n, k) and ``labels`` (n, k); k is the same for all inputs.

    A box is x1, y1, x2, y2 with x1 <= x2 and y1 <= y2; one with a score of 0 or less is none. Targets have shape
    (n, m, 5): x1, y1, x2, y2 and the class number, which is negative in rows that only fill up.

    Attributes:
        confident: boxes of the original with at least this score are what agreement is measured with.
    """

    metrics: ClassVar[tuple[str, ...]] = ("map", "map50", "agreement")
    confident: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.confident <= 1:
            raise SpecError(f"task detection: confident must be above 0, at most 1, not {self.confident!r}")

    def measures(self, classes: int, labelled: bool) -> tuple[str, ...]:
        return self.metrics if labelled else ("agreement",)

    def answer(self, outputs: Mapping[str, Array]) -> Array:
        """The confident boxes, in the form of targets, shape (n, k, 5)."""
        labels = np.where(outputs["scores"] >= self.confident, outputs["labels"], -1)
        return np.concatenate([outputs["boxes"], labels[..., None]], 2).astype(np.float64)

    def judge(self, outputs: Mapping[str, Array], teacher: Array, targets: Array) -> dict[str, Array]:
        judged = {
            "scores": outputs["scores"].astype(np.float64),
            "labels": outputs["labels"].astype(np.int64),
            "teacher_found": _found(outputs, teacher, OVERLAPS[:1]),
            "teacher_truths": teacher[..., 4].astype(np.int64),
        }
        if labelled(targets):
            judged |= {"found": _found(outputs, targets, OVERLAPS), "truths": targets[..., 4].astype(np.int64)}
        return judged

    def summarise(self, judged: Mapping[str, Array]) -> dict[str, Estimate]:
        """mAP over the classes that there are; agreement is mAP at IoU 0.5 against the original's confident boxes.

        NaN where there is nothing to be found.
        """
        found = {"agreement": self._precision(judged, "teacher_")}
        if "found" in judged:
            found["map"] = self._precision(judged, "")
            found["map50"] = self._precision({**judged, "found": judged["found"][..., :1]}, "")
        return found

    def _precision(self, judged: Mapping[str, Array], prefix: str) -> Estimate:
        scores, labels = judged["scores"], judged["labels"]
        hits, truths = judged[f"{prefix}found"], judged[f"{prefix}truths"]
        classes = [_ranked(scores, labels, hits, truths, each) for each in np.unique(truths[truths >= 0])]
        if not classes:
            return Estimate(float("nan"), float("nan"), len(scores))
        return bootstrap(lambda counts: mean_over(np.stack([_area(counts, *each) for each in classes], 1)), len(scores))


def _found(outputs: Mapping[str, Array], targets: Array, overlaps: Array) -> Array:
    """Which boxes find a target, at each overlap, shape (n, k, overlaps).

    In order of their scores, each takes the target of its class that it overlaps most among those still free.
    """
    boxes, scores, labels = (outputs[name] for name in ("boxes", "scores", "labels"))
    found = np.zeros((*scores.shape, len(overlaps)), dtype=bool)
    for i, truth in enumerate(targets):
        truth = truth[truth[:, 4] >= 0]
        shares = intersection_over_union(boxes[i], truth[:, :4])
        shares[(labels[i][:, None] != truth[None, :, 4]) | (scores[i] <= 0)[:, None]] = 0.0
        free = np.ones((len(overlaps), len(truth)), dtype=bool)
        for j in np.argsort(-scores[i], kind="stable"):
            if len(truth) and shares[j].max() >= overlaps[0]:
                left = np.where(free, shares[j], 0.0)
                best = left.argmax(1)
                found[i, j] = left.max(1) >= overlaps
                free[found[i, j], best[found[i, j]]] = False
    return found


def intersection_over_union(boxes: Array, others: Array) -> Array:
    """Shape (k, m) for boxes (k, 4) and others (m, 4), x1, y1, x2, y2; 0 where both are empty."""
    boxes, others = boxes.astype(np.float64)[:, None], others.astype(np.float64)[None]
    low, high = np.maximum(boxes[..., :2], others[..., :2]), np.minimum(boxes[..., 2:], others[..., 2:])
    both = np.clip(high - low, 0.0, None).prod(-1)
    sizes = [np.clip(each[..., 2:] - each[..., :2], 0.0, None).prod(-1) for each in (boxes, others)]
    either = sizes[0] + sizes[1] - both
    return np.where(either > 0, both / np.where(either > 0, either, 1.0), 0.0)


def _ranked(scores: Array, labels: Array, hits: Array, truths: Array, each: int) -> tuple[Array, Array, Array]:
    """Of one class, highest score first: which input a box is of, and what it found; and the targets by input."""
    inputs, places = np.nonzero((labels == each) & (scores > 0))
    order = np.argsort(-scores[inputs, places], kind="stable")
    return inputs[order], hits[inputs[order], places[order]].astype(np.float64), (truths == each).sum(1)


def _area(counts: Array, inputs: Array, hits: Array, truths: Array) -> Array:
    """Average precision, mean over the overlaps: the area below precision over recall, where precision at a recall is
    the best at that or a higher one (PASCAL VOC 2010, all points).

    Args:
        counts: how often each input counts, shape (b, n). inputs, hits, truths: see ``_ranked``.

    Returns:
        Shape (b,); NaN where nothing is to be found.
    """
    wanted = counts @ truths
    total = np.zeros(len(counts))
    rows = max(_AT_ONCE // max(len(inputs), 1), 1)
    for start in range(0, len(counts), rows):
        weight = counts[start : start + rows][:, inputs]
        seen = np.maximum(weight.cumsum(1), 1.0)
        for column in range(hits.shape[1]):
            gained = weight * hits[:, column]
            precision = gained.cumsum(1) / seen
            best = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
            total[start : start + rows] += (gained * best).sum(1)
    return np.where(wanted > 0, total / hits.shape[1] / np.maximum(wanted, 1.0), np.nan)


_AT_ONCE = 2**20
"""Boxes of resamples that are ranked at a time."""
