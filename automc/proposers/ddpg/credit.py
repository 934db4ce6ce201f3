"""What an episode was worth: its task figures against those of others of about the same cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from automc.core.budget import ANALYTIC
from automc.core.metrics import Constraint, Objective
from automc.proposers.ddpg.steps import Array
from automc.proposers.targets import is_cost

FEWEST = 3
"""No reward while fewer policies are known."""

_WIDTH, _LATEST, _MOST, _SHRUNK = 0.15, 512, 3.0, 1e-3


class Credit:
    """Rewards: how many standard deviations a policy is better than what is usual at its cost.

    What is usual is a running baseline: the plane, fitted with weights exp(-(distance / 0.15)^2 / 2) over the position
    of the cost (see senses.spread), through the figures of the latest 512 policies (local linear regression, Cleveland
    1979). Figures are the losses of the objectives that a budget does not hold: those of the task, measured times,
    energy. Of several, the reward is the mean; for each constraint that only an evaluation tells, what its violation
    is worse than usual, in the same measure, goes off. Where every objective follows from the policy alone, they
    themselves are the figures. Rewards are cut off at 3.
    """

    def __init__(self, objectives: Sequence[Objective], constraints: Sequence[Constraint]) -> None:
        tasks = [o for o in objectives if o.metric not in ANALYTIC or not is_cost(o)]
        self._objectives = tuple(tasks or objectives)
        self._constraints = tuple(c for c in constraints if c.metric not in ANALYTIC)

    def figures(self, metrics: Mapping[str, float]) -> Array | None:
        """Smaller is better; None where one is absent or not finite."""
        found = [o.loss(metrics) for o in self._objectives] + [c.violation(metrics) for c in self._constraints]
        return np.array(found) if all(math.isfinite(x) for x in found) else None

    def rewards(self, places: Array, figures: Array, known: tuple[Array, Array]) -> Array:
        """Shape (n,); 0 while fewer than FEWEST are known.

        Args:
            places: shape (n, d), where the costs are. figures: shape (n, f), what came out.
            known: places and figures of all that is compared with, in the order they were told.
        """
        at, values = known[0][-_LATEST:], known[1][-_LATEST:]
        if len(at) < FEWEST:
            return np.zeros(len(places))
        error = usual(at[-64:], at, values) - values[-64:]
        spread = np.sqrt((error**2).mean(axis=0))
        better = (usual(places, at, values) - figures) / np.where(spread > 1e-9, spread, 1.0)
        tasks, broken = better[:, : len(self._objectives)], better[:, len(self._objectives) :]
        found: Array = np.clip(tasks.mean(axis=1) + np.minimum(broken, 0.0).sum(axis=1), -_MOST, _MOST)
        return found


def usual(places: Array, at: Array, values: Array) -> Array:
    """Local linear regression, its slopes a little shrunk; shape (n, f).

    Args:
        places: shape (n, d). at: shape (m, d). values: shape (m, f).
    """
    away = at[None] - places[:, None]
    weights = np.exp(-((away**2).sum(axis=2)) / (2 * _WIDTH**2)) + 1e-6
    rows = np.concatenate([np.ones((*away.shape[:2], 1)), away], axis=2)
    square = np.einsum("nm,nmi,nmj->nij", weights, rows, rows)
    slopes = np.arange(1, rows.shape[2])
    square[:, slopes, slopes] += _SHRUNK * weights.sum(axis=1)[:, None]
    return np.asarray(np.linalg.solve(square, np.einsum("nm,nmi,mf->nif", weights, rows, values))[:, 0])
