"""A user's own data: a factory that returns a Data, or its splits as arrays or functions that return them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from automc.errors import DataError
from automc.evaluation.factories import call_factory, find_factory
from automc.evaluation.readers.npz import as_split
from automc.evaluation.splits import Data, Facts, Split, classes_of

NEEDED = ("train", "search", "test")


@dataclass(frozen=True)
class UserReader:
    """``{split: (inputs, targets)}``, or inputs alone; a value may be a function, called when the split is opened.

    Targets that are None, and inputs alone, say that nothing is known of the inputs.
    """

    name: str
    splits: Mapping[str, Any]

    def read(self, split: str, limit: int | None) -> Split:
        value = self.splits[split]
        if callable(value):
            value = call_factory(f"{self.name}, {split} split", value, {}, DataError)
        if isinstance(value, Split):
            return value.head(limit)
        if hasattr(value, "dtype"):
            value = (value, None)
        if not isinstance(value, tuple | list) or len(value) != 2:
            raise DataError(f"{self.name}: split {split!r} must be (inputs, targets), not {type(value).__name__}")
        return as_split(value[0], value[1], f"{self.name}, {split} split").head(limit)


def open_user(name: str, settings: Mapping[str, Any], base: Path | None) -> Data | tuple[Facts, UserReader]:
    """Call the factory. Pixels (uint8) are divided by 255; floats are taken as they are.

    Raises:
        DataError: the factory is not found, raises, or returns neither a Data nor a dict with all splits.
    """
    found = call_factory(name, find_factory(name, base, DataError), settings, DataError)
    if isinstance(found, Data):
        return found
    return _from_splits(name, found)


def as_data(name: str, splits: Any) -> Data:
    """Splits as a data set: ``{"train": (inputs, targets), "search": ..., "test": ...}``, see UserReader.

    Raises:
        DataError: no such mapping, or a train split that cannot be read.
    """
    return Data(name, *_from_splits(name, splits))


def _from_splits(name: str, splits: Any) -> tuple[Facts, UserReader]:
    missing = [key for key in NEEDED if not isinstance(splits, Mapping) or key not in splits]
    if missing:
        what = f"no {missing[0]!r}" if isinstance(splits, Mapping) else type(splits).__name__
        raise DataError(f"{name}: must be a Data or a dict with {', '.join(NEEDED)}, not {what}")
    reader = UserReader(name, splits)
    train = reader.read("train", None)
    if not len(train):
        raise DataError(f"{name}: the train split is empty")
    return Facts(classes_of(train.targets), 255.0 if train.inputs.dtype == torch.uint8 else 1.0), reader
