"""A policy that was not told yet, near one that was: for proposers that have run out of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from automc.core.budget import Budget
from automc.core.metrics import Constraint
from automc.core.policy import Policy
from automc.core.space import SearchSpace

_TRIES = 32


def fresh(
    space: SearchSpace,
    budget: Budget,
    policy: Policy,
    known: Callable[[Policy], bool],
    draw: np.random.Generator,
    bounds: Sequence[Constraint] | None = None,
) -> Policy:
    """The policy with a few of its decisions drawn anew, more with every try, moved into the bounds (see Budget.fit).

    Args:
        known: whether a policy was told. bounds: in the place of the budget's own.

    Returns: the first that was not told; the policy itself where all that were tried were.
    """
    start = np.array(space.encode(policy))
    for tried in range(_TRIES):
        count = 1 + tried * len(start) // _TRIES
        cube = start.copy()
        cube[draw.permutation(len(cube))[:count]] = draw.random(count)
        found = space.decode(budget.fit(cube.tolist(), bounds))
        if not known(found):
            return found
    return policy
