"""The data sets: ``load_data`` turns a name and its settings into splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from automc.core.rules import nearest
from automc.core.study import Part
from automc.errors import SpecError
from automc.evaluation.readers import digits, folder, npz, parquet
from automc.evaluation.readers.user import open_user
from automc.evaluation.splits import SPLITS, Data, Facts, Reader, Split, channel_statistics

__all__ = ["DATA", "SPLITS", "Data", "DataEntry", "Facts", "Split", "load_data"]


@dataclass(frozen=True)
class DataEntry:
    """A kind of data set: its settings beside the common ones, and one line on it."""

    open: Callable[[Mapping[str, Any], Path | None], tuple[Facts, Reader]]
    settings: tuple[str, ...]
    doc: str


DATA: Mapping[str, DataEntry] = {
    "digits": DataEntry(digits.open_digits, digits.SETTINGS, "scikit-learn's bundled 8x8 scans of digits"),
    "parquet": DataEntry(parquet.open_parquet, parquet.SETTINGS, "images in Hugging Face style parquet files"),
    "folder": DataEntry(folder.open_folder, folder.SETTINGS, "image files in one folder per class"),
    "npz": DataEntry(npz.open_npz, npz.SETTINGS, "arrays in .npz files"),
}

COMMON: Mapping[str, str] = {
    "calibration": "number of train inputs for calibration and batch-norm statistics (256)",
    "search_limit": "use only so many inputs of the search split (all)",
    "mean": "per channel, subtracted from the inputs (pixels first become [0, 1])",
    "std": "per channel, the inputs are divided by it after that",
    "classes": "number of classes (found from the train labels)",
}
"""Settings that every kind of data set takes. A user's factory gets all but these as arguments."""


def load_data(part: Part, base: Path | None = None) -> Data:
    """The data set that a study names; no split is opened yet.

    Args:
        base: folder that relative paths are seen from, before the current one.

    Raises:
        SpecError: an unknown name or setting (with the nearest spelling), or a setting out of range.
        DataError: a file is missing or unreadable.
    """
    own = {key: value for key, value in part.settings.items() if key not in COMMON}
    limits = _limits(part.settings)
    if part.name in DATA:
        entry = DATA[part.name]
        _check_keys(part.name, own, (*entry.settings, *COMMON))
        facts, reader = entry.open(own, base)
    elif ":" in part.name:
        found = open_user(part.name, own, base)
        if isinstance(found, Data):
            return found
        facts, reader = found
    else:
        more = "or package.module:factory or file.py:factory"
        raise SpecError(f"unknown data {part.name!r}{nearest(part.name, DATA)} (data: {', '.join(DATA)}; {more})")
    return Data(part.name, _facts(facts, part.settings), reader, **limits)


def _check_keys(name: str, settings: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in settings:
        if key not in known:
            raise SpecError(f"data {name}: unknown setting {key!r}{nearest(key, known)} (settings: {', '.join(known)})")


def _limits(settings: Mapping[str, Any]) -> dict[str, Any]:
    limits = {"calibration": settings.get("calibration", 256), "search_limit": settings.get("search_limit")}
    for key, value in limits.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise SpecError(f"data {key} must be a whole number of at least 1, not {value!r}")
    if limits["calibration"] is None:
        raise SpecError("data calibration must be a whole number of at least 1, not null")
    return limits


def _facts(facts: Facts, settings: Mapping[str, Any]) -> Facts:
    classes = settings.get("classes", facts.classes)
    if not isinstance(classes, int) or classes < 1:
        raise SpecError(f"data classes must be a whole number of at least 1, not {classes!r}")
    facts = replace(facts, classes=classes)
    if "mean" not in settings and "std" not in settings:
        return facts
    mean, std = channel_statistics(settings)
    return replace(facts, mean=mean, std=std)
