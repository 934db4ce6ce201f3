"""Splits of a data set, and the data set that opens each of them when it is first asked for."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from automc.core.judges import labelled
from automc.errors import DataError
from automc.evaluation.factories import ship_user_modules

SPLITS = ("train", "calibration", "search", "test")


@dataclass(frozen=True)
class Split:
    """Inputs and targets.

    Attributes:
        inputs: raw uint8 (pixels 0..255), float32, or int64 (tokens), shape (n, ...).
        targets: int64 or float32, shape (n, ...), as the task wants them: class numbers (n,), masks (n, height, width),
            tokens (n, tokens), numbers (n, outputs), boxes (n, m, 5). Shape (n, 0): nothing is known of the inputs.
    """

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def labelled(self) -> bool:
        """Whether there are targets."""
        return labelled(self.targets)

    def head(self, count: int | None) -> Split:
        """The first ``count`` rows, all when None."""
        return Split(self.inputs[:count], self.targets[:count])

    def __reduce__(self) -> tuple[Any, ...]:
        # As numpy arrays: Ray then keeps one copy in shared memory for all workers of a machine.
        return _from_arrays, (self.inputs.numpy(), self.targets.numpy())


def _from_arrays(inputs: Any, targets: Any) -> Split:
    with warnings.catch_warnings():  # shared memory is read-only, and so are splits
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return Split(torch.from_numpy(inputs), torch.from_numpy(targets))


class Reader(Protocol):
    """Where a data set's splits come from. Must survive cloudpickle; holds paths and no open file."""

    def read(self, split: str, limit: int | None) -> Split:
        """Read ``train``, ``search`` or ``test`` from its file, the first ``limit`` rows only where a limit is given.

        Raises:
            DataError: it cannot be read.
        """
        ...


@dataclass(frozen=True)
class Facts:
    """What is known of a data set before any input is decoded.

    Attributes:
        classes: number of classes; 0 where there are none or they are not known.
        scale: raw inputs are divided by this first (255 for pixels).
        mean, std: per channel, on the divided inputs; empty to leave them as they are.
        augment: what the repair's ``augment: auto`` means for these inputs; ``auto``: what suits their shape.
    """

    classes: int
    scale: float = 255.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    augment: str = "auto"


class Data:
    """A data set; a split is opened when it is first asked for, and then kept.

    ``calibration`` is the first rows of ``train``. ``openings`` counts what was read from the reader by split,
    so that a test can prove that a search never opened the test split. Pickled, the opened splits travel along
    except for the test split.
    """

    def __init__(
        self, name: str, facts: Facts, reader: Reader, calibration: int = 256, search_limit: int | None = None
    ) -> None:
        self.name = name
        self.facts = facts
        self.reader = reader
        self.limits = {"calibration": calibration, "search": search_limit}
        self.openings: Counter[str] = Counter()
        self._opened: dict[str, Split] = {}

    @property
    def classes(self) -> int:
        return self.facts.classes

    @property
    def mean(self) -> tuple[float, ...]:
        return self.facts.mean

    @property
    def std(self) -> tuple[float, ...]:
        return self.facts.std

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch axis; opens the calibration split."""
        return tuple(self.split("calibration").inputs.shape[1:])

    def split(self, name: str) -> Split:
        """One of ``train``, ``calibration``, ``search`` and ``test``.

        Raises:
            DataError: another name, or the split cannot be read or breaks a rule (labels, finite inputs, rows).
        """
        if name not in SPLITS:
            raise DataError(f"data {self.name}: the splits are {', '.join(SPLITS)}, not {name!r}")
        if name not in self._opened:
            self._opened[name] = self._open(name)
        return self._opened[name]

    def normalise(self, inputs: Tensor) -> Tensor:
        """Raw inputs (n, ...) as the network takes them: float32, ``(x / scale - mean) / std`` per channel.

        int64 inputs are tokens and stay as they are, unless there is a mean.
        """
        if inputs.dtype == torch.int64 and not self.mean:
            return inputs
        out = inputs.float() / self.facts.scale
        if not self.mean:
            return out
        shape = (1, -1, *(1,) * (inputs.dim() - 2))
        return (out - torch.tensor(self.mean).view(shape)) / torch.tensor(self.std).view(shape)

    def digest(self, name: str) -> str:
        """SHA-256 over the shape, type and bytes of a split's inputs and labels."""
        split, found = self.split(name), hashlib.sha256()
        for array in (split.inputs.numpy(), split.targets.numpy()):
            found.update(f"{array.shape} {array.dtype.str}".encode())
            found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        ship_user_modules()
        return {**self.__dict__, "_opened": {k: v for k, v in self._opened.items() if k != "test"}}

    def _open(self, name: str) -> Split:
        limit = self.limits.get(name)
        if name == "calibration" and "train" in self._opened:
            return self._opened["train"].head(limit)
        source = "train" if name == "calibration" else name
        self.openings[source] += 1
        found = self.reader.read(source, limit).head(limit)
        self._check(name, found)
        return found

    def _check(self, name: str, split: Split) -> None:
        where, inputs, targets = f"data {self.name}, {name} split", split.inputs, split.targets
        if not len(inputs):
            raise DataError(f"{where}: is empty")
        if len(inputs) != len(targets):
            raise DataError(f"{where}: needs one label for each input, not {len(targets)} for {len(inputs)}")
        if inputs.dtype not in (torch.uint8, torch.int64, torch.float32):
            raise DataError(f"{where}: needs uint8, int64 or float32 inputs, not {inputs.dtype}")
        if targets.dtype not in (torch.int64, torch.float32):
            raise DataError(f"{where}: needs int64 or float32 targets, not {targets.dtype}")
        if targets.is_floating_point() and not bool(targets.isfinite().all()):
            row = int((~targets.isfinite()).flatten(1).any(dim=1).nonzero()[0]) if targets.dim() > 1 else 0
            raise DataError(f"{where}: targets must be finite, row {row} holds NaN or infinity")
        if inputs.is_floating_point() and not bool(inputs.isfinite().all()):
            row = int((~inputs.flatten(1).isfinite()).any(dim=1).nonzero()[0])
            raise DataError(f"{where}: inputs must be finite, row {row} holds NaN or infinity")


def unlabelled(count: int) -> Tensor:
    """The targets of so many inputs of which nothing is known."""
    return torch.empty(count, 0, dtype=torch.int64)


def classes_of(targets: Any) -> int:
    """How many classes labels (n,) speak of, whole numbers from 0 on; 0 for targets that are no such labels."""
    whole = not labelled(targets) or targets.ndim != 1 or "int" not in str(targets.dtype)
    return 0 if whole or not len(targets) or int(targets.min()) < 0 else int(targets.max()) + 1
