"""Random search: every proposal is drawn independently and uniformly from the unit cube."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from automc.core.metrics import Constraint, Objective
from automc.core.ports import Proposal
from automc.core.space import SearchSpace
from automc.core.trial import Trial


class RandomProposer:
    """Independent uniform draws (Bergstra & Bengio 2012); trial ``n`` is seeded by ``(seed, n)``."""

    def __init__(
        self, space: SearchSpace, objectives: Sequence[Objective], constraints: Sequence[Constraint], seed: int
    ) -> None:
        self._space = space
        self._seed = seed

    def ask(self, numbers: range) -> list[Proposal]:
        cubes = (np.random.default_rng([self._seed, number]).random(len(self._space)) for number in numbers)
        return [Proposal(self._space.decode(cube.tolist())) for cube in cubes]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Nothing to learn."""
