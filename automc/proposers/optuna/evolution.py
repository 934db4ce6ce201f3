"""NSGA-II and NSGA-III: evolution in generations, which follow from the order of telling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import NSGAIIISampler, NSGAIISampler
from optuna.trial import FrozenTrial

from automc.core.metrics import Constraint, Objective
from automc.core.signature import Within
from automc.core.space import SearchSpace
from automc.core.trial import Trial
from automc.proposers.optuna.base import Anchors, OptunaProposer, in_memory


class NSGA2Proposer(OptunaProposer):
    """NSGA-II (Deb et al. 2002): evolution by non-dominated rank and crowding distance.

    The told rows are cut into generations as they come, whoever proposed them: row i belongs to generation
    i // population. The parents of a generation are the best of the one before and of its parents. So everybody's
    trials take part, the uniform policies of the anchors first, and nothing depends on when something was asked.

    Args:
        population: trials of a generation, at least 2.
    """

    name = "nsga2"

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        anchors: Anchors = 8,
        population: Annotated[int, Within(2, 10_000)] = 20,
    ) -> None:
        self._population = population
        self._parents: list[list[FrozenTrial]] = [[]]
        super().__init__(space, objectives, constraints, seed, anchors)

    def tell(self, trials: Sequence[Trial]) -> None:
        for place in self._told.tell(trials):
            self._frozen.pop(place, None)
            del self._parents[place // self._population + 1 :]

    def _shown(self) -> list[int]:
        """None: the sampler is given the parents."""
        return []

    def _sampler(self, seed: int, number: int) -> _Child:
        return self._child(seed, self._chosen(len(self._told.rows) // self._population))

    def _child(self, seed: int, parents: Sequence[FrozenTrial]) -> _Child:
        return _NSGA2(self._distributions, parents, population_size=self._population, seed=seed)

    def _chosen(self, generation: int) -> list[FrozenTrial]:
        """The parents of a generation; none of the first."""
        while len(self._parents) <= generation:
            last = len(self._parents) - 1
            rows = range(last * self._population, (last + 1) * self._population)
            # Seeded by the generation: what is drawn in choosing must not depend on who asks first.
            chooser = self._child((self._seed * 1_000_003 + last) % 2**32, [])
            study = in_memory([], len(self._objectives), chooser)
            found = chooser.survivors(study, [self._trial(i) for i in rows] + self._parents[last])
            self._parents.append(sorted(found, key=lambda trial: trial.number))
        return self._parents[generation]


class NSGA3Proposer(NSGA2Proposer):
    """NSGA-III (Deb & Jain 2014): as NSGA-II, but a rank that does not fit whole is thinned by its distance to evenly
    spread directions, which keeps a front of three and more objectives even.

    Args:
        divisions: of each side of the simplex of directions; 0 for the most that give no more directions than the
            population has trials.
    """

    name = "nsga3"

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        anchors: Anchors = 8,
        population: Annotated[int, Within(2, 10_000)] = 20,
        divisions: Annotated[int, Within(0, 50)] = 0,
    ) -> None:
        self._divisions = divisions or _divisions(len(objectives), population)
        super().__init__(space, objectives, constraints, seed, anchors, population)

    def _child(self, seed: int, parents: Sequence[FrozenTrial]) -> _Child:
        settings = {"population_size": self._population, "dividing_parameter": self._divisions}
        return _NSGA3(self._distributions, parents, seed=seed, **settings)


def _divisions(objectives: int, population: int) -> int:
    """The most whose number of directions, the multisets of ``p`` out of the objectives, fits the population."""
    if objectives == 1:
        return 1
    found = 1
    while math.comb(objectives + found, found + 1) <= population:
        found += 1
    return found


class _Parents:
    """A sampler of Optuna's with given parents: its own are chosen by what happens to be complete at some time."""

    _elite_population_selection_strategy: Any
    _child_generation_strategy: Any

    def __init__(self, space: dict[str, BaseDistribution], parents: Sequence[FrozenTrial], **settings: Any) -> None:
        super().__init__(**settings)
        self._space, self._given = space, list(parents)

    def survivors(self, study: optuna.Study, pool: list[FrozenTrial]) -> list[FrozenTrial]:
        found: list[FrozenTrial] = self._elite_population_selection_strategy(study, pool)
        return found

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {name: found for name, found in sorted(self._space.items()) if not found.single()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if not self._given or not search_space:
            return {}
        found: dict[str, Any] = self._child_generation_strategy(study, search_space, self._given)
        return found


class _NSGA2(_Parents, NSGAIISampler):
    pass


class _NSGA3(_Parents, NSGAIIISampler):
    pass


_Child = _NSGA2 | _NSGA3
