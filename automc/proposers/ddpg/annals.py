"""What the joint agent remembers of trials: the walk that made each policy, what came out, and what it was rewarded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from automc.errors import StoreError
from automc.proposers.ddpg.course import Trace
from automc.proposers.ddpg.credit import FEWEST, Credit
from automc.proposers.ddpg.steps import Array

GOALS = 2
"""Of an episode, at most: what its policy costs, and what it was asked for."""


@dataclass
class Told:
    """A policy that was measured.

    Attributes:
        places: shape (goals, d), where the costs of the episode's goals are; the first is compared with others'.
        rung, figures: the highest rung it was measured at, and its figures there.
        promise: the reward before it was promoted; 0 where it was not.
    """

    trace: Trace
    places: Array
    rung: int
    figures: Array
    promise: float = 0.0


class Annals:
    """All that was told, by fingerprint, in the order it was told.

    On a higher rung only promoted policies are compared, which are better than most. So their reward is what they
    promised on average, and how much better one is than the others of its rung.
    """

    def __init__(self, credit: Credit) -> None:
        self.credit = credit
        self.told: dict[str, Told] = {}

    def __len__(self) -> int:
        return len(self.told)

    def rewards(self, told: Sequence[Told]) -> list[Array]:
        """For each, one reward a goal, against all that is known now."""
        found: list[Array] = [np.zeros(0)] * len(told)
        for rung in {one.rung for one in told}:
            chosen = [i for i, one in enumerate(told) if one.rung == rung]
            same = [one for one in self.told.values() if one.rung == rung]
            known = np.array([one.places[0] for one in same]), np.array([one.figures for one in same])
            counts = [len(told[i].places) for i in chosen]
            places = np.concatenate([told[i].places for i in chosen])
            figures = np.repeat([told[i].figures for i in chosen], counts, axis=0)
            base = float(np.mean([one.promise for one in same]))
            rewards = self.credit.rewards(places, figures, known) + base
            for i, part in zip(chosen, np.split(rewards, np.cumsum(counts)[:-1]), strict=True):
                found[i] = part
        return found

    @property
    def ripe(self) -> bool:
        """Whether the rewards should be counted anew: as often as what is known has grown by a fifth."""
        count = len(self)
        return count > FEWEST and _power(count) > _power(count - 1)

    def memory(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors by name, and numbers that JSON can carry."""
        told = list(self.told.values())
        if not told:
            return {}, {"told": []}
        rows = {
            "cube": [one.trace.cube for one in told],
            "low": [one.trace.low for one in told],
            "high": [one.trace.high for one in told],
            "figures": [one.figures for one in told],
            "places": [_padded(one.places) for one in told],
        }
        tensors = {f"told.{name}": torch.from_numpy(np.array(values)) for name, values in rows.items()}
        facts = [[name, len(one.places), one.rung, one.promise] for name, one in self.told.items()]
        return tensors, {"told": facts}

    def recall(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Be as those that gave this memory.

        Raises:
            StoreError: it is no such memory; nothing has changed then.
        """
        try:
            rows = facts["told"]
            names = ("cube", "low", "high", "figures", "places") if rows else ()
            arrays = {name: tensors[f"told.{name}"].numpy() for name in names}
            found = {}
            for i, (name, goals, rung, promise) in enumerate(rows):
                cube, low, high, figures, places = (arrays[key][i] for key in names)
                found[str(name)] = Told(
                    Trace(cube, low, high), places[: int(goals)], int(rung), figures, float(promise)
                )
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise StoreError(f"not the memory of this proposer: {error}") from error
        self.told = found


def _power(count: int) -> int:
    return int(np.floor(np.log(count) / np.log(1.2)))


def _padded(places: Array) -> Array:
    return np.concatenate([places, np.zeros((GOALS - len(places), places.shape[1]))])
