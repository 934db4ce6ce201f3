"""Evolution on a predictor: thousands of children are judged without an evaluation, one of them is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from automc.core.decoded import Array
from automc.core.metrics import Constraint, Objective
from automc.core.policy import Policy
from automc.core.ports import Proposal
from automc.core.signature import MOST, Within
from automc.core.space import SearchSpace
from automc.core.trial import Trial
from automc.proposers.evolve.judge import Judge
from automc.proposers.threads import one_thread

_FEW, _PARENTS, _TOLD, _DEEP, _SPARE = 4, 32, 0.25, 1 / 3, 8
"""The least and the most parents, between them a quarter of the told policies; share of fathers that are told ones in
later generations too; share of proposals that take all generations; mutants of a first proposal, in case it was
told already.
"""


class EvolveProposer:
    """Evolutionary search with an accuracy predictor (APQ, Wang et al. 2020), multi-objective, with uncertainty.

    Parents are the told policies, feasible ones first, by non-dominated rank and crowding. Their children (crossover
    over layers, mutation) are moved into the budget before anything else. The predictor stands in for the evaluation,
    for one generation or (every third proposal) several: near steps are sure, far ones gain more if the predictor is
    right. The child with the largest expected gain of hypervolume over the told front is asked, costs taken by their
    logarithm. A policy that was told is not asked again while there are others.

    Args:
        startup: first proposals, made without the predictor: in turn points of the uniform grid moved into the budget,
            and, with a sensitivity table, policies of little predicted damage under costs that sweep the front.
        generations: of children, in every third proposal. children: of each generation.
    """

    measures = ("loss",)

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        startup: Annotated[int, Within(0, MOST)] = 12,
        generations: Annotated[int, Within(1, 1000)] = 4,
        children: Annotated[int, Within(1, 10_000)] = 64,
    ) -> None:
        self._seed, self._startup = seed, startup
        self._generations, self._children = generations, children
        self._judge = Judge(space, objectives, constraints, seed)

    def tell(self, trials: Sequence[Trial]) -> None:
        self._judge.tell(trials)

    def ask(self, numbers: range) -> list[Proposal]:
        with one_thread():
            return [Proposal(self._policy(number)) for number in numbers]

    def _policy(self, number: int) -> Policy:
        draw = np.random.default_rng([self._seed, number])
        judge = self._judge
        if number < self._startup or not judge.ready():
            cube = judge.start.point(number, draw)
            others = judge.vary.mutated(draw, np.repeat(cube[None], _SPARE, axis=0), sites=len(cube) / 4)
            return judge.first(judge.inside(np.vstack([cube[None], others])), draw)
        told = judge.parents(min(max(judge.count // 4, _FEW), _PARENTS))
        pool, cubes, scores = told, [], []
        for _ in range(self._generations if draw.random() < _DEEP else 1):
            children = self._bred(draw, pool, told)
            cubes.append(children)
            scores.append(judge.scores(children))
            everyone, worth = np.vstack(cubes), np.concatenate(scores)
            pool = everyone[np.argsort(-worth, kind="stable")[:_PARENTS]]
        order = np.argsort(-worth, kind="stable")
        return judge.first(everyone[order], draw)

    def _bred(self, draw: np.random.Generator, pool: Array, told: Array) -> Array:
        """Children of the pool, some of them with a told father; feasible."""
        count, vary = self._children, self._judge.vary
        mothers = pool[_ranked(draw, len(pool), count)]
        fathers = pool[_ranked(draw, len(pool), count)]
        others = draw.random(count) < _TOLD
        fathers[others] = told[draw.integers(0, len(told), int(others.sum()))]
        crossed = vary.crossed(draw, mothers, fathers)
        children = vary.mutated(draw, crossed, sites=float(draw.choice([1.0, 2.0, 4.0])))
        return self._judge.inside(children)


def _ranked(draw: np.random.Generator, size: int, count: int) -> Array:
    """Places of the better of two, ``count`` times."""
    return np.asarray(draw.integers(0, size, (count, 2)).min(axis=1))
