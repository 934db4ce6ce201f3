"""The batches that a repair trains on: shuffled, augmented, normalised."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from automc.evaluation.augment import Augment, augmentation, chosen
from automc.evaluation.recipe import Recipe
from automc.evaluation.splits import Data
from automc.evaluation.state import State

EPOCHS = 5
"""A repair that shows the train split less often than this is not augmented by ``auto``: nothing is learned by heart so
soon, and harder inputs only slow it down. Measured at 0.14 epochs (ResNet-20, half its channels, 4 bits, 100 steps,
one seed: top1 0.8205 without, 0.7965 with flips and shifts) and at 6.5 (digits_net, two seeds: 0.993 and 0.988); the
limit between them is a choice."""


class Batch(NamedTuple):
    """Some rows of the train split.

    Attributes:
        inputs: augmented and normalised, shape (n, ...). targets: their labels. rows: their numbers, shape (n,).
    """

    inputs: Tensor
    targets: Tensor
    rows: Tensor


@dataclass(frozen=True)
class Batches:
    """Endless batches of a data set's train split.

    Attributes:
        steps: of the repair; ``augment: auto`` goes by them.
    """

    data: Data
    recipe: Recipe
    steps: int

    @property
    def fixed(self) -> bool:
        """A row gives the same inputs whenever it is shown."""
        return self._augment == "none"

    @property
    def size(self) -> int:
        """Inputs of one batch."""
        return min(self.recipe.batch_size, len(self.data.split("train")))

    def shuffled(self, seed: int) -> Shuffled:
        """Each epoch shows the rows in another order; a shorter last batch is left out."""
        augment = augmentation(self._augment, self._shape, blank(self.data))
        return Shuffled(self.data, augment, self.size, seed)

    @property
    def _shape(self) -> tuple[int, ...]:
        return tuple(self.data.split("train").inputs.shape[1:])

    @property
    def _augment(self) -> str:
        if self.recipe.augment != "auto":
            return self.recipe.augment
        if self.steps * self.size < EPOCHS * len(self.data.split("train")):
            return "none"
        return chosen(self.data.facts.augment, self._shape)


class Shuffled(Iterator[Batch]):
    """A walk through the train split, epoch after epoch; see ``Batches.shuffled``."""

    def __init__(self, data: Data, augment: Augment, size: int, seed: int) -> None:
        self._data, self._augment, self._size = data, augment, size
        self._generator = torch.Generator().manual_seed(seed)
        self._order = torch.empty(0, dtype=torch.int64)
        self._next = 0

    def __next__(self) -> Batch:
        split, size = self._data.split("train"), self._size
        if self._next + size > len(self._order):
            self._order, self._next = torch.randperm(len(split), generator=self._generator), 0
        rows = self._order[self._next : self._next + size]
        self._next += size
        inputs = self._data.normalise(self._augment(split.inputs[rows], self._generator))
        return Batch(inputs, split.targets[rows], rows)

    def state(self) -> State:
        """Where the walk is."""
        return {"generator": self._generator.get_state(), "order": self._order, "next": self._next}

    def restore(self, state: State) -> None:
        """Be where the walk was when ``state`` was taken."""
        self._generator.set_state(state["generator"])
        self._order, self._next = state["order"], state["next"]


def blank(data: Data) -> tuple[float, ...]:
    """Per channel, the raw value that normalisation makes 0; empty where there is no mean: then it is 0."""
    return tuple(mean * data.facts.scale for mean in data.mean)
