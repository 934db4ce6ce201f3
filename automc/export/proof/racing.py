"""Latency of an exported network, timed in turn with the original one. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from automc.core.interleave import FEWEST, WARM_UP, Ratio, Timing, interleaved, ratio, summary
from automc.export.formats import Network

ROUNDS = 50
"""Timed runs of each network, where they take no longer than LIMIT_MS together."""

LIMIT_MS = 30_000.0


@dataclass(frozen=True)
class Race:
    """Milliseconds of one run of ``batch`` inputs, of both networks on one thread, and the ratio of paired runs."""

    batch: int
    ours: Timing
    original: Timing
    ratio: Ratio

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Race:
        """What ``asdict`` made of one."""
        ours, original = (Timing(**data[name]) for name in ("ours", "original"))
        return cls(int(data["batch"]), ours, original, Ratio(**data["ratio"]))


def race(ours: Network, original: Network, input_shape: Sequence[int], batch: int, whole: bool, rounds: int) -> Race:
    """Time both networks in turn, so that a busy moment of the machine hits both.

    Args:
        batch: inputs of one run, standard normal. whole: the networks take whole numbers; these are 0, which every
            embedding has.
        rounds: at most; at least FEWEST are timed.
    """
    shape = (batch, *input_shape)
    inputs = np.random.default_rng(0).standard_normal(shape, dtype=np.float32) if not whole else np.zeros(shape, int)
    calls = [partial(network.outputs, inputs) for network in (ours, original)]
    once = sum(row[0] for row in interleaved(calls, 1))
    affordable = int(LIMIT_MS / max(once, 1e-3))
    own, other = interleaved(calls, max(FEWEST, min(rounds, affordable)), warm_up=min(WARM_UP, affordable))
    return Race(batch, summary(own), summary(other), ratio(own, other))
