"""CMA-ES, replayed from what was told."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna._transform import _SearchSpaceTransform
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import CmaEsSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from automc.core.metrics import Constraint, Objective
from automc.core.signature import Within
from automc.core.space import SearchSpace
from automc.core.trial import Trial
from automc.errors import SpecError
from automc.proposers.optuna.base import Anchors, OptunaProposer

Optimizer = Any
"""cmaes.CMAwM."""

Floats = NDArray[np.float64]


class CMAESProposer(OptunaProposer):
    """CMA-ES with margin (Hansen 2016; Hamano et al. 2022 for discrete decisions): one normal distribution, adapted.

    The told rows are cut into generations as they come, whoever proposed them: after every ``population`` rows the
    distribution is updated. A row counts as the policy that was evaluated, where it lies; one that is further from the
    mean than a draw would be is pulled in to that distance (Hansen 2011, injection). Only the order within a generation
    counts: feasible before infeasible, then by loss (see Told.scalars).

    It knows ordered decisions only. Choices of two count as ordered; other unordered choices are drawn uniformly.

    Args:
        population: rows of a generation, at least 2; 0 for 4 + 3 ln(decisions), the usual number.

    Raises:
        SpecError: several objectives, or fewer than two ordered decisions.
    """

    name = "cmaes"

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        anchors: Anchors = 8,
        population: Annotated[int, Within(2, 10_000, zero=True)] = 0,
    ) -> None:
        if len(objectives) > 1:
            names = ", ".join(o.metric for o in objectives)
            raise SpecError(
                f"proposer cmaes: has one objective, the study has {len(objectives)} ({names}); "
                "make all but one a constraint, or use nsga2"
            )
        super().__init__(space, objectives, constraints, seed, anchors)
        ordered = {n: d for n, d in self._distributions.items() if not isinstance(d, CategoricalDistribution)}
        self._ordered = {name: found for name, found in ordered.items() if not found.single()}
        if len(self._ordered) < 2:
            raise SpecError(
                f"proposer cmaes: needs at least two ordered decisions, the space has {len(self._ordered)}; use tpe"
            )
        self._population = population or 4 + int(3 * math.log(len(self._ordered)))
        # Numbers in the unit interval, whole ones too: the margin knows their steps.
        self._scale = _SearchSpaceTransform(self._ordered, transform_step=False, transform_0_1=True)
        self._states: list[Optimizer] = []

    def tell(self, trials: Sequence[Trial]) -> None:
        for place in self._told.tell(trials):
            self._frozen.pop(place, None)
            del self._states[place // self._population + 1 :]

    def _shown(self) -> list[int]:
        """None: the sampler is given the distribution."""
        return []

    def _sampler(self, seed: int, number: int) -> CmaEsSampler:
        sampler = self._replayed(seed)
        sampler.optimizer = self._state(len(self._told.rows) // self._population)
        return sampler

    def _replayed(self, seed: int) -> _Replayed:
        settings = {"n_startup_trials": 0, "warn_independent_sampling": False, "with_margin": True}
        return _Replayed(self._ordered, seed=seed, popsize=self._population, **settings)

    def _state(self, generation: int) -> Optimizer:
        """The distribution that a generation is drawn from."""
        if not self._states:
            self._states = [self._fresh()]
        while len(self._states) <= generation:
            state = copy.deepcopy(self._states[-1])
            last = len(self._states) - 1
            rows = list(range(last * self._population, (last + 1) * self._population))
            points = [_drawn(state, self._scale.transform(self._trial(i).params)) for i in rows]
            state.tell(list(zip(points, self._told.scalars(rows).tolist(), strict=True)))
            self._states.append(self._fresh() if state.should_stop() else state)
        return self._states[generation]

    def _fresh(self) -> Optimizer:
        return self._replayed(0)._init_optimizer(self._scale, StudyDirection.MINIMIZE)


def _drawn(state: Optimizer, point: Floats) -> Floats:
    """A policy as the draw of the distribution it could have been, not further out than draws are."""
    mean, sigma = state.mean, state._cma._sigma
    step = (point - mean) / (state._A if state._n_zdim else 1.0)
    base, scale = state._cma._eigen_decomposition()
    far = float(np.linalg.norm(base.T @ step / (scale * sigma)))
    size = len(step)
    found: Floats = mean + step * min(1.0, (math.sqrt(size) + 2 * size / (size + 2)) / max(far, 1e-12))
    return found


class _Replayed(CmaEsSampler):
    """Optuna's CMA-ES with a given distribution: its own travels, pickled, with the trials that it asked."""

    optimizer: Optimizer = None

    def __init__(self, space: dict[str, BaseDistribution], **settings: Any) -> None:
        super().__init__(**settings)
        self._space = space

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._space

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> Optimizer:
        return copy.deepcopy(self.optimizer)
