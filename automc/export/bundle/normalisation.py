"""What turns a test split's raw inputs into the network's. Numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Normalisation:
    """What turns raw inputs into the network's: ``(raw / scale - mean) / std``, mean and std per channel.

    Empty ``mean`` and ``std`` leave out the second step.
    """

    scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __call__(self, raw: NDArray[Any]) -> NDArray[np.float32]:
        """Raw inputs of shape (n, ...) as float32."""
        out = raw.astype(np.float32) / np.float32(self.scale)
        if not self.mean:
            return out
        shape = (1, -1, *[1] * (raw.ndim - 2))
        mean, std = (np.array(row, np.float32).reshape(shape) for row in (self.mean, self.std))
        return np.asarray((out - mean) / std, np.float32)
