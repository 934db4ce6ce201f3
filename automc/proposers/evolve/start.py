"""What to ask while nothing is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from automc.core.budget import Budget
from automc.core.decoded import Array
from automc.core.metrics import Objective
from automc.core.space import SearchSpace
from automc.errors import SpecError
from automc.proposers.evolve.guided import Guide
from automc.proposers.targets import Targets
from automc.proposers.uniform import UniformProposer

_OFF = 0.5
"""Every second guided policy has the table's damages off by factors exp(_OFF z), z standard normal, in case it errs."""


class Start:
    """Points of the uniform grid; with a sensitivity table every second one is moved to little damage under the bounds
    of an aim, so that the first few sweep the front.
    """

    def __init__(self, space: SearchSpace, objectives: Sequence[Objective], budget: Budget, guide: Guide) -> None:
        self._space, self._guide = space, guide
        self._uniform = UniformProposer(space, objectives, budget.constraints, 0)
        try:
            self._targets: Targets | None = Targets(space, objectives, budget.constraints, budget)
        except SpecError:
            self._targets = None  # nothing has to be cheap

    def point(self, number: int, draw: np.random.Generator) -> Array:
        """For trial ``number``, not yet within the budget; shape (decisions,)."""
        sites = self._guide.sites
        half, guided = divmod(number, 2) if sites else (number, 0)
        grid = np.array(self._space.encode(self._uniform.ask(range(half, half + 1))[0].policy))
        if not guided or not self._targets:
            return grid
        weights = np.exp(_OFF * draw.standard_normal(sites) * (half % 2))
        return self._guide.policy(grid, self._targets.at(half), weights)
