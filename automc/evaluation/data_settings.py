"""The settings that every kind of data set takes, held to their rules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from automc.core.required import DATA_SET, no_such_setting, require, show
from automc.errors import SpecError
from automc.evaluation.entries import COMMON
from automc.evaluation.splits import Facts


@dataclass(frozen=True)
class DataSettings:
    """See entries.COMMON, which has a line on each. With an empty mean and std the inputs are left as they are.

    Raises:
        SpecError: one line a setting that breaks its rule.
    """

    calibration: int = 256
    search_limit: int | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    classes: int | None = None

    def __post_init__(self) -> None:
        counts = {name: getattr(self, name) for name in ("calibration", "search_limit", "classes")}
        alike = not _numbers(self.mean) or not _numbers(self.std) or len(self.mean or ()) == len(self.std or ())
        above = _numbers(self.std) and all(x > 0 for x in self.std or ())
        require(
            self,
            {name: (_count(x, name == "calibration"), "a whole number of at least 1") for name, x in counts.items()}
            | {
                "mean": (_numbers(self.mean), "a list of numbers, one per channel"),
                "std": (above and alike, f"a list of numbers above 0, one per channel as in mean: {show(self.mean)}"),
            },
            path=DATA_SET,
        )

    def told(self, facts: Facts) -> Facts:
        """What is known of the data set, with what these settings say in its place."""
        if self.classes is not None:
            facts = replace(facts, classes=self.classes)
        if self.mean is None and self.std is None:
            return facts
        return replace(facts, mean=tuple(map(float, self.mean or ())), std=tuple(map(float, self.std or ())))


def common_settings(name: str, given: Mapping[str, Any], own: Iterable[str] | None) -> DataSettings:
    """Those of the settings given for a data set that all data sets take.

    Args:
        own: names of those that this kind takes besides; None where the factory knows.

    Raises:
        SpecError: one line a setting that the data set does not take, or not so.
    """
    known = (*(own or ()), *COMMON)
    lines = [
        f"{DATA_SET}.{key}: {no_such_setting(name, key, known)}"
        for key in given
        if own is not None and key not in known
    ]
    try:
        found = DataSettings(**{key: value for key, value in given.items() if key in COMMON})
    except SpecError as error:
        raise SpecError("\n".join([*lines, str(error)])) from None
    if lines:
        raise SpecError("\n".join(lines))
    return found


def _count(value: object, needed: bool) -> bool:
    if value is None:
        return not needed
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _numbers(values: object) -> bool:
    return values is None or (
        isinstance(values, (list, tuple))
        and all(isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x) for x in values)
    )
