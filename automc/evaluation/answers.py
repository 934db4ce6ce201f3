"""What networks answer to a split's inputs, beside what the original answered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from automc.errors import NotFinite
from automc.evaluation.splits import Data

BATCH = 100
"""Inputs run at a time: on a CPU, 50 to 100 is faster than 1,000."""


class Answers:
    """Runs networks over splits; the original's answers are kept."""

    def __init__(self, teacher: nn.Module, data: Data) -> None:
        self._teacher = teacher
        self._data = data
        self._kept: dict[str, list[Any]] = {}

    def batches(self, model: nn.Module, split: str) -> Iterator[tuple[Any, Any, Tensor]]:
        """The network's outputs, the original's and the labels, batch by batch, always in the same order.

        Raises:
            NotFinite: an output is NaN or infinite.
        """
        if split not in self._kept:
            self._kept[split] = list(self._run(self._teacher, split))
        targets = torch.split(self._data.split(split).targets, BATCH)
        yield from zip(self._run(model, split), self._kept[split], targets, strict=True)

    def _run(self, model: nn.Module, split: str) -> Iterator[Any]:
        for inputs in torch.split(self._data.split(split).inputs, BATCH):
            with torch.inference_mode():
                outputs = model(self._data.normalise(inputs))
            if not bool(outputs.isfinite().all()):
                rows = int((~outputs.isfinite()).any(dim=1).sum())
                raise NotFinite(
                    f"the network's outputs are NaN or infinite for {rows} of {len(outputs)} {split} inputs"
                )
            yield outputs

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {split: kept for split, kept in self._kept.items() if split != "test"}}
