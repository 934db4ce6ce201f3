"""Any proposer, asked for more than is evaluated: the predictor lets the best through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from automc.core.metrics import Constraint, Objective
from automc.core.ports import Proposal
from automc.core.signature import MOST, OneOf, Within
from automc.core.space import SearchSpace
from automc.core.trial import Trial
from automc.proposers.evolve.judge import Judge
from automc.proposers.members import PROPOSERS, member
from automc.proposers.threads import one_thread

OTHERS = tuple(name for name in PROPOSERS if name != "filter")


class FilterProposer:
    """Asks another proposer for many candidates and proposes the one with the largest expected gain.

    The first ``startup`` proposals are its own, unfiltered: there it has what it wants to see by all means (a grid, a
    sweep), and the predictor knows nothing yet. From then on every trial has numbers of its own there. It learns from
    all trials, as always.

    Args:
        proposer: name of the other one, which has its own defaults; no filter. candidates: how many, at least 1.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        proposer: Annotated[str, OneOf(OTHERS)] = "random",
        candidates: Annotated[int, Within(1, 1000)] = 16,
        startup: Annotated[int, Within(0, MOST)] = 12,
    ) -> None:
        self._space, self._candidates, self._startup = space, candidates, startup
        self._source = member(proposer, space, objectives, constraints, seed)
        self._judge = Judge(space, objectives, constraints, seed)
        self.measures = tuple(dict.fromkeys(["loss", *getattr(self._source, "measures", ())]))

    def tell(self, trials: Sequence[Trial]) -> None:
        self._judge.tell(trials)
        self._source.tell(trials)

    def ask(self, numbers: range) -> list[Proposal]:
        return [self._ask(number) for number in numbers]

    def _ask(self, number: int) -> Proposal:
        if number < self._startup:
            return self._source.ask(range(number, number + 1))[0]
        first = self._startup + (number - self._startup) * self._candidates
        offered = self._source.ask(range(first, first + self._candidates))
        with one_thread():
            cubes = self._judge.inside(np.array([self._judge.point(proposal.policy) for proposal in offered]))
            best = self._judge.best(cubes)
        policy = self._space.decode(cubes[best].tolist())
        # A memo belongs to the policy it came with, also where that was moved into the budget.
        return Proposal(policy, offered[best].memo)
