"""The data sets: ``load_data`` turns a name and its settings into splits."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from automc.core.rules import nearest
from automc.core.study import Part
from automc.errors import SpecError
from automc.evaluation.data_settings import common_settings
from automc.evaluation.entries import COMMON, DATA
from automc.evaluation.readers.user import open_user
from automc.evaluation.splits import SPLITS, Data, Facts, Split

__all__ = ["SPLITS", "Data", "Facts", "Split", "load_data"]


def load_data(part: Part, base: Path | None = None) -> Data:
    """The data set that a study names; no split is opened yet.

    Args:
        base: folder that relative paths are seen from, before the current one.

    Raises:
        SpecError: an unknown name or setting (with the nearest spelling), or a setting out of range.
        DataError: a file is missing or unreadable.
    """
    entry = DATA.get(part.name)
    if entry is None and ":" not in part.name:
        more = "or package.module:factory or file.py:factory"
        raise SpecError(f"unknown data {part.name!r}{nearest(part.name, DATA)} (data: {', '.join(DATA)}; {more})")
    common = common_settings(part.name, part.settings, entry.settings if entry else None)
    own = {key: value for key, value in part.settings.items() if key not in COMMON}
    if entry:
        module, _, attribute = entry.reader.partition(":")
        facts, reader = getattr(import_module(module), attribute)(own, base)
    else:
        found = open_user(part.name, own, base)
        if isinstance(found, Data):
            return found
        facts, reader = found
    return Data(part.name, common.told(facts), reader, common.calibration, common.search_limit)
