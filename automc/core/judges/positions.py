"""One class a position: pixels of an image, tokens of a text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from automc.core.judges.base import Array, labelled
from automc.core.judges.classes import cross_entropy
from automc.core.judges.estimates import bootstrap, mean_over, proportion, ratio, share
from automc.core.metrics import Estimate


@dataclass(frozen=True)
class TokensJudge:
    """Outputs are scores of the next token, shape (n, tokens, vocabulary); targets token numbers, shape (n, tokens).

    Attributes:
        ignore_index: positions with this target do not count. Without targets all count.
    """

    metrics: ClassVar[tuple[str, ...]] = ("perplexity", "loss", "top1", "agreement")
    ignore_index: int = -100

    def measures(self, classes: int, labelled: bool) -> tuple[str, ...]:
        return self.metrics if labelled else ("agreement",)

    def answer(self, outputs: Array) -> Array:
        """The highest output of each position; of equal ones the first."""
        return np.asarray(outputs.argmax(-1))

    def judge(self, outputs: Array, teacher: Array, targets: Array) -> dict[str, Array]:
        return judged_positions(outputs, self.answer(outputs), teacher, targets, self.ignore_index)

    def summarise(self, judged: Mapping[str, Array]) -> dict[str, Estimate]:
        """Perplexity is ``exp(loss)``, and its error that of the loss times it (delta method)."""
        positions = judged["positions"]
        found = {name: proportion(judged[name], positions) for name in ("top1", "agreement") if name in judged}
        if "loss" in judged:
            found["loss"] = ratio(judged["loss"], positions)
            with np.errstate(over="ignore"):
                value = float(np.exp(found["loss"].value))
            found["perplexity"] = replace(found["loss"], value=value, error=value * found["loss"].error)
        return found


@dataclass(frozen=True)
class PixelsJudge:
    """Outputs are class scores, shape (n, classes, height, width); targets class numbers, shape (n, height, width).

    Attributes:
        ignore_index: pixels with this target do not count. Without targets all count.
    """

    metrics: ClassVar[tuple[str, ...]] = ("miou", "pixel_accuracy", "loss", "agreement")
    ignore_index: int = 255

    def measures(self, classes: int, labelled: bool) -> tuple[str, ...]:
        return self.metrics if labelled else ("agreement",)

    def answer(self, outputs: Array) -> Array:
        """The highest output of each pixel; of equal ones the first."""
        return np.asarray(outputs.argmax(1))

    def judge(self, outputs: Array, teacher: Array, targets: Array) -> dict[str, Array]:
        found = self.answer(outputs)
        judged = judged_positions(np.moveaxis(outputs, 1, -1), found, teacher, targets, self.ignore_index)
        if labelled(targets):
            judged |= _overlaps(found, targets, targets != self.ignore_index, outputs.shape[1])
        return judged

    def summarise(self, judged: Mapping[str, Array]) -> dict[str, Estimate]:
        """mIoU over the classes that there are, in labels or answers, over all images together."""
        positions = judged["positions"]
        found = {"agreement": proportion(judged["agreement"], positions)}
        if "loss" in judged:
            both, either = judged["both"].astype(np.float64), judged["either"].astype(np.float64)
            found["loss"] = ratio(judged["loss"], positions)
            found["pixel_accuracy"] = proportion(judged["top1"], positions)
            miou = bootstrap(lambda counts: mean_over(share(counts @ both, counts @ either)), len(both))
            shares = share(both.sum(0), either.sum(0))
            by_class = {number: float(each) for number, each in enumerate(shares) if not np.isnan(each)}
            found["miou"] = replace(miou, by_class=by_class)
        return found


def judged_positions(scores: Array, found: Array, teacher: Array, targets: Array, ignored: int) -> dict[str, Array]:
    """By input, sums over the positions that count: of the cross-entropy, of hits, of agreement, of the positions.

    Args:
        scores: shape (n, ..., classes). found, teacher: classes, shape (n, ...). targets: the same, or (n, 0).
    """
    axes = tuple(range(1, found.ndim))
    same = found == teacher
    if not labelled(targets):
        return {"agreement": same.sum(axes), "positions": np.full(len(found), found[0].size)}
    counted = targets != ignored
    losses = np.zeros(targets.shape)
    losses[counted] = cross_entropy(scores[counted], targets[counted])
    return {
        "loss": losses.sum(axes),
        "top1": ((found == targets) & counted).sum(axes),
        "agreement": (same & counted).sum(axes),
        "positions": counted.sum(axes),
    }


def _overlaps(found: Array, targets: Array, counted: Array, classes: int) -> dict[str, Array]:
    """Pixels of each class that are so in answers and labels, and in either; shape (n, classes)."""
    first = np.arange(len(found)).reshape(-1, *[1] * (found.ndim - 1)) * classes

    def tally(values: Array, where: Array) -> Array:
        return np.bincount((values + first)[where], minlength=len(found) * classes).reshape(len(found), classes)

    both = tally(targets, counted & (found == targets))
    either = tally(targets, counted) + tally(found, counted) - both
    return {"both": both, "either": either}
