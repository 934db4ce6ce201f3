"""The batches that a repair trains on: shuffled, augmented, normalised."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from automc.evaluation.augment import augmentation, chosen
from automc.evaluation.recipe import Recipe
from automc.evaluation.splits import Data

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

    def shuffled(self, seed: int) -> Iterator[Batch]:
        """Each epoch shows the rows in another order; a shorter last batch is left out."""
        split, size, shape = self.data.split("train"), self.size, self._shape
        augment = augmentation(self._augment, shape, blank(self.data))
        generator = torch.Generator().manual_seed(seed)
        while True:
            order = torch.randperm(len(split), generator=generator)
            for rows in torch.split(order[: len(split) // size * size], size):
                inputs = self.data.normalise(augment(split.inputs[rows], generator))
                yield Batch(inputs, split.targets[rows], rows)

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


def blank(data: Data) -> tuple[float, ...]:
    """Per channel, the raw value that normalisation makes 0; empty where there is no mean: then it is 0."""
    return tuple(mean * data.facts.scale for mean in data.mean)
