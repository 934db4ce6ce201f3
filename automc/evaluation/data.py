"""The data sets: ``load_data`` turns a name and its settings into splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from automc.core.rules import nearest
from automc.core.study import Part
from automc.errors import SpecError
from automc.evaluation.entries import COMMON, DATA
from automc.evaluation.readers.user import open_user
from automc.evaluation.splits import SPLITS, Data, Facts, Split, channel_statistics

__all__ = ["SPLITS", "Data", "Facts", "Split", "load_data"]


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
        module, _, attribute = entry.reader.partition(":")
        facts, reader = getattr(import_module(module), attribute)(own, base)
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
    if "classes" in settings and (not isinstance(classes, int) or classes < 1):
        raise SpecError(f"data classes must be a whole number of at least 1, not {classes!r}")
    facts = replace(facts, classes=classes)
    if "mean" not in settings and "std" not in settings:
        return facts
    mean, std = channel_statistics(settings)
    return replace(facts, mean=mean, std=std)
