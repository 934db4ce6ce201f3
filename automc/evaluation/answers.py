"""What networks answer to a split's inputs, beside what the original answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from automc.errors import AutomcError, ModelError, NotFinite, one_line
from automc.evaluation.prefix import Prefix
from automc.evaluation.splits import Data
from automc.operators.outputs import tensors_of

BATCH = 100
"""Inputs run at a time: on a CPU, 50 to 100 is faster than 1,000."""


class Answers:
    """Runs networks over splits; the original's answers are kept.

    A split is walked in one random order, the same for every network: the rows of a file may be sorted by class, and
    the first n inputs must be a fair sample of all (evaluation/scoring.py may stop after them).
    """

    def __init__(
        self,
        teacher: nn.Module,
        data: Data,
        prefix: Prefix | None = None,
        keep: Callable[[Any], Any] = lambda outputs: outputs,
    ) -> None:
        """
        Args:
            prefix: of the teacher; without it every network runs from its beginning.
            keep: what is kept of the teacher's outputs, see Judging.answer.
        """
        self._keep = keep
        self.prefix = prefix
        self._teacher = teacher
        self._data = data
        self._kept: dict[str, list[Any]] = {}

    def batches(self, model: nn.Module, split: str) -> Iterator[tuple[Any, Any, Tensor]]:
        """The network's outputs, what was kept of the original's, and the labels, by batch, always in the same order.

        Raises:
            NotFinite: an output is NaN or infinite. ModelError: the original cannot take the split.
        """
        kept = self.originals(split)
        targets = (self._data.split(split).targets[rows] for rows in self._rows(split))
        yield from zip(self._run(model, split), kept, targets, strict=True)

    def originals(self, split: str) -> list[Any]:
        """What is kept of the original's outputs, by batch. It takes every split before any other network does.

        Raises:
            NotFinite, ModelError: as ``batches``.
        """
        if split not in self._kept:
            self._kept[split] = self._run_original(split)
        return self._kept[split]

    def _run_original(self, split: str) -> list[Any]:
        try:
            return [self._keep(outputs) for outputs in self._run(self._teacher, split)]
        except (AutomcError, MemoryError):
            raise
        except Exception as error:  # a network may raise anything
            where = f"model: cannot take the inputs of the {split} split of data {self._data.name}"
            raise ModelError(
                f"{where}, of shape {tuple(self._data.split(split).inputs.shape)}: {one_line(error)}"
            ) from error

    def _rows(self, split: str) -> Sequence[Tensor]:
        """The numbers of the inputs of each batch: one permutation of the split, drawn from its length."""
        count = len(self._data.split(split))
        return torch.split(torch.randperm(count, generator=torch.Generator().manual_seed(count)), BATCH)

    def _run(self, model: nn.Module, split: str) -> Iterator[Any]:
        batches = self._rows(split)
        runner = self.prefix.runner(model, split, len(batches)) if self.prefix else None
        for number, rows in enumerate(batches):
            inputs = self._data.split(split).inputs[rows]
            with torch.inference_mode():
                inputs = self._data.normalise(inputs)
                outputs = runner(number, inputs) if runner else model(inputs)
                wrong = max((_wrong(tensor, len(rows)) for tensor in tensors_of(outputs)), default=0)
            if wrong:
                raise NotFinite(f"the network's outputs are NaN or infinite for {wrong} of {len(rows)} {split} inputs")
            yield outputs

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {split: kept for split, kept in self._kept.items() if split != "test"}}


def _wrong(outputs: Tensor, rows: int) -> int:
    """For how many of so many inputs there is NaN or infinity."""
    finite = outputs.isfinite()
    if bool(finite.all()):
        return 0
    return int((~finite).flatten(1).any(dim=1).sum()) if len(outputs) == rows and outputs.dim() > 1 else rows
