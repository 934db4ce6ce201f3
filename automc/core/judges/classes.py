"""One class an input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from automc.core.judges.base import Array, labelled
from automc.core.judges.estimates import bootstrap, mean, proportion_error, share
from automc.core.metrics import Estimate

TOP = 5


@dataclass(frozen=True)
class ClassesJudge:
    """Outputs are class scores, shape (n, classes); targets class numbers, shape (n,)."""

    metrics: ClassVar[tuple[str, ...]] = ("top1", "top5", "top1_worst_class", "loss", "agreement")

    def measures(self, classes: int, labelled: bool) -> tuple[str, ...]:
        if not labelled:
            return ("agreement",)
        return tuple(name for name in self.metrics if name != "top5" or classes > TOP)

    def answer(self, outputs: Array) -> Array:
        """The highest output, shape (n,); of equal ones the first."""
        return np.asarray(outputs.argmax(1))

    def judge(self, outputs: Array, teacher: Array, targets: Array) -> dict[str, Array]:
        found = self.answer(outputs)
        judged = {"agreement": found == teacher}
        if labelled(targets):
            judged |= {"top1": found == targets, "loss": cross_entropy(outputs, targets), "label": targets}
            if outputs.shape[1] > TOP:
                own = np.take_along_axis(outputs, targets[:, None], 1)
                judged["top5"] = (outputs > own).sum(1) < TOP
        return judged

    def summarise(self, judged: Mapping[str, Array]) -> dict[str, Estimate]:
        found = {name: mean(each) for name, each in judged.items() if name != "label"}
        if "label" in judged:
            classes, label = np.unique(judged["label"], return_inverse=True)
            hits = judged["top1"].astype(np.float64)

            def worst(counts: Array) -> Array:
                pairs = [(np.bincount(label, row * hits), np.bincount(label, row)) for row in counts]
                return np.array([np.nanmin(share(own, all_)) for own, all_ in pairs])

            sizes = np.bincount(label)
            shares = share(np.bincount(label, hits), sizes).tolist()
            by_class = dict(zip(map(int, classes), shares, strict=True))
            lowest = bootstrap(worst, len(label))
            # Where all or none of a class is right, resamples are all alike.
            error = lowest.error or max(proportion_error(p, n) for p, n in zip(shares, sizes, strict=True))
            found["top1_worst_class"] = replace(lowest, error=error, by_class=by_class)
        return found


def cross_entropy(scores: Array, labels: Array) -> Array:
    """``-log softmax(scores)[label]`` in nats, in double precision.

    Args:
        scores: shape (m, classes). labels: shape (m,).

    Returns:
        Shape (m,).
    """
    found = np.empty(len(scores))
    rows = max(_AT_ONCE // max(scores.shape[1], 1), 1)
    for start in range(0, len(scores), rows):
        part = scores[start : start + rows].astype(np.float64)
        part -= part.max(1, keepdims=True)
        own = np.take_along_axis(part, labels[start : start + rows, None], 1)[:, 0]
        found[start : start + rows] = np.log(np.exp(part).sum(1)) - own
    return found


_AT_ONCE = 2**20
"""Numbers that are turned into double precision at a time: scores over a vocabulary are large."""
