"""How proposers compare losses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from automc.core.metrics import Objective
from automc.proposers.targets import is_cost

_LEAST = 1e-12


def compared(objectives: Sequence[Objective], losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Costs by their logarithm: a tenth less is worth as much at the small end of a front as at the large one.

    Args:
        losses: shape (..., objectives), costs above 0.
    """
    costs = [is_cost(objective) for objective in objectives]
    return np.where(costs, np.log(np.maximum(losses, _LEAST)), losses)
