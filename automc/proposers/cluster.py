"""Clusters of alike layers: one decision for each, searched by another proposer in the small space that is left."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np

from automc.core.budget import Budget, Cube
from automc.core.metrics import Constraint, Objective
from automc.core.ports import Proposal, Proposer
from automc.core.signature import MOST, OneOf, Within
from automc.core.space import SearchSpace
from automc.core.trial import Trial, TrialState
from automc.errors import OutOfSpace
from automc.proposers.alike import Trees
from automc.proposers.clustered import Clustered
from automc.proposers.members import member

AUTO = "auto"
INNER = ("gp", "tpe", "cmaes", "nsga2", "nsga3", "qmc", "random")
"""Proposers that look at nothing but decisions; others need the layers, which the small space does not have."""

_NEAR = 0.1


class ClusterProposer:
    """Layers with alike features share their decisions, so that a search of a few coordinates finds a joint policy.

    Every setting has a tree of its sites (see Trees): layers, coupled groups or blocks that are alike in kind, depth,
    cost and measured sensitivity join first. Cut into k clusters, it leaves k decisions of this setting, each a
    position in the members' own domains (see Clustered). The small space is searched by ``inner``, with all objectives
    and constraints, and what it asks is moved into the study's bounds.

    With ``clusters`` 0 the search goes from coarse to fine: 1 cluster of each setting to begin with, so the first
    policies are uniform ones, then 2, 4, 8, ..., up to every site for itself. Clusters split when ``patience`` trials a
    decision of the small space have taught. As the cuts of a tree are nested, whatever was asked of few clusters is
    exactly a policy of more, and the inner proposer, made anew at each split, is told all of it.

    What others asked is told to the inner proposer as the nearest policy of the small space, with its measured figures,
    where that is near: at most 0.1 away in root mean square over the coordinates of the unit cube. What is not near now
    may be when there are more clusters.

    Args:
        clusters: of each setting; 0 for from coarse to fine.
        inner: who searches the small space, one of INNER, or ``auto``: tpe for one objective, nsga2 for a front.
        patience: trials a decision before clusters split.
    """

    measures = ("loss",)

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        clusters: Annotated[int, Within(0, 10_000)] = 0,
        inner: Annotated[str, OneOf((AUTO, *INNER))] = AUTO,
        patience: Annotated[int, Within(1, MOST)] = 6,
    ) -> None:
        self._space, self._aims, self._seed = space, (objectives, constraints), seed
        self._name = inner if inner != AUTO else "tpe" if len(objectives) == 1 else "nsga2"
        self._patience = patience
        self._budget = Budget(space, constraints)
        self._trees = Trees(space)
        self._fixed = clusters > 0
        self._told: list[tuple[Trial, Cube]] = []
        self._enter(clusters or 1)

    def ask(self, numbers: range) -> list[Proposal]:
        return [self._ask(number) for number in numbers]

    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            if (cube := self._cube(trial)) is None:
                continue
            self._told.append((trial, cube))
            self._teach(self._told[-1:])
            while not self._fixed and self._count < self._trees.most and self._taught >= self._enough:
                self._enter(min(self._count * 2, self._trees.most))

    def _cube(self, trial: Trial) -> Cube | None:
        """None for a policy of another space."""
        try:
            return np.array(self._space.encode(self._space.policy(trial.policy)))
        except OutOfSpace:
            return None

    def _ask(self, number: int) -> Proposal:
        asked = self._inner.ask(range(number, number + 1))[0]
        policy = self._small.whole(asked.policy)
        if not self._budget.holds(policy):
            policy = self._space.decode(self._budget.fit(self._space.encode(policy)))
        return Proposal(policy, json.dumps({"clusters": self._count, "inner": asked.memo}))

    @property
    def _enough(self) -> int:
        return self._patience * len(self._small.space)

    def _enter(self, count: int) -> None:
        """Go on with so many clusters of each setting."""
        self._count = count
        self._small = Clustered(self._space, self._trees.cut(count))
        self._inner: Proposer = member(self._name, self._small.space, *self._aims, self._seed)
        self._taught = 0
        self._teach(self._told)

    def _teach(self, told: Sequence[tuple[Trial, Cube]]) -> None:
        near = []
        for trial, cube in told:
            policy, distance = self._small.nearest(cube)
            if distance <= _NEAR:
                near.append(replace(trial, policy=policy, memo=_memo(trial.memo)))
                self._taught += trial.state is TrialState.COMPLETE or trial.hopeless
        self._inner.tell(near)


def _memo(memo: str) -> str:
    """The inner proposer's own; "" for a trial of others."""
    try:
        data = json.loads(memo or "{}")
    except ValueError:
        return ""
    found = data.get("inner", "") if isinstance(data, dict) else ""
    return found if isinstance(found, str) else ""
