"""Numbers: regressions and embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from automc.core.judges.base import Array, labelled
from automc.core.judges.estimates import bootstrap, mean, mean_over
from automc.core.metrics import Estimate


@dataclass(frozen=True)
class ValuesJudge:
    """Outputs and targets are numbers, shape (n,), (n, outputs) or (n, outputs, ...positions)."""

    metrics: ClassVar[tuple[str, ...]] = ("r2", "mse", "mae", "teacher_r2")

    def measures(self, classes: int, labelled: bool) -> tuple[str, ...]:
        return self.metrics if labelled else ("teacher_r2",)

    def answer(self, outputs: Array) -> Array:
        return outputs

    def judge(self, outputs: Array, teacher: Array, targets: Array) -> dict[str, Array]:
        found = _columns(outputs)
        judged = _compared("teacher", found, _columns(teacher))
        if labelled(targets):
            wanted = _columns(targets)
            judged |= _compared("target", found, wanted)
            judged |= {"mse": np.square(found - wanted).mean((1, 2)), "mae": np.abs(found - wanted).mean((1, 2))}
        return judged

    def summarise(self, judged: Mapping[str, Array]) -> dict[str, Estimate]:
        found = {name: mean(judged[name]) for name in ("mse", "mae") if name in judged}
        for name, what in (("r2", "target"), ("teacher_r2", "teacher")):
            if f"{what}_error" in judged:
                parts = [judged[f"{what}_{part}"] for part in ("error", "mean", "variance")]
                found[name] = _determination(*parts)
        return found


def _columns(values: Array) -> Array:
    """Shape (n, outputs, positions), double precision."""
    values = values.astype(np.float64)
    return values.reshape(len(values), values.shape[1] if values.ndim > 1 else 1, -1)


def _compared(what: str, found: Array, wanted: Array) -> dict[str, Array]:
    """By input and output: mean squared error, mean and variance of what is wanted over the positions."""
    return {
        f"{what}_error": np.square(found - wanted).mean(2),
        f"{what}_mean": wanted.mean(2),
        f"{what}_variance": wanted.var(2),
    }


def _determination(error: Array, centre: Array, variance: Array) -> Estimate:
    """R^2 by output over all inputs and positions, mean over the outputs, as scikit-learn's ``r2_score``.

    What is wanted of an output may never change: such outputs have no R^2 and are left out. Where there are no others,
    it is 1 if all of it is met exactly and else 0.
    """
    centre = centre - centre.mean(0)
    spread = variance + np.square(centre)

    def statistic(counts: Array) -> Array:
        inputs = counts.sum(1, keepdims=True)
        wrong = counts @ error / inputs
        total = counts @ spread / inputs - np.square(counts @ centre / inputs)
        varies = total > _TINY * np.maximum(counts @ spread / inputs, np.finfo(np.float64).tiny)
        found = mean_over(np.where(varies, 1 - wrong / np.where(varies, total, 1.0), np.nan))
        return np.where(varies.any(1), found, (wrong == 0).all(1))

    return bootstrap(statistic, len(error))


_TINY = 1e-12
"""Relative variance below which an output does not change: what is left of it then is rounding."""


@dataclass(frozen=True)
class VectorsJudge:
    """Outputs are embeddings, shape (n, ..., width); targets are not looked at."""

    metrics: ClassVar[tuple[str, ...]] = ("cosine",)

    def measures(self, classes: int, labelled: bool) -> tuple[str, ...]:
        return self.metrics

    def answer(self, outputs: Array) -> Array:
        return outputs

    def judge(self, outputs: Array, teacher: Array, targets: Array) -> dict[str, Array]:
        """The cosine with the original's embedding, mean over the positions.

        Where one of the two is zero it is 0, and where both are, they are the same: 1.
        """
        own, wanted = outputs.astype(np.float64), teacher.astype(np.float64)
        sizes = np.linalg.norm(own, axis=-1) * np.linalg.norm(wanted, axis=-1)
        alike = (own == wanted).all(-1)  # in the place of a quotient of zeros
        cosines = np.where(sizes > 0, (own * wanted).sum(-1) / np.where(sizes > 0, sizes, 1.0), alike)
        return {"cosine": cosines.reshape(len(own), -1).mean(1)}

    def summarise(self, judged: Mapping[str, Array]) -> dict[str, Estimate]:
        return {"cosine": mean(judged["cosine"])}
