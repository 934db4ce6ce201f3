"""What outputs are worth: numbers from arrays, by task.

The evaluator judges trials with these, and the proof of an exported file, which knows no torch, the file's outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from automc.core.judges.base import Array, Judge, labelled
from automc.core.judges.boxes import BoxesJudge
from automc.core.judges.classes import ClassesJudge
from automc.core.judges.positions import PixelsJudge, TokensJudge
from automc.core.judges.values import ValuesJudge, VectorsJudge

__all__ = ["JUDGES", "Array", "Judge", "judge_named", "labelled"]

JUDGES: Mapping[str, type[Any]] = {
    "classification": ClassesJudge,
    "regression": ValuesJudge,
    "segmentation": PixelsJudge,
    "detection": BoxesJudge,
    "language_modelling": TokensJudge,
    "embeddings": VectorsJudge,
}
"""By name of the task. Each is a frozen dataclass: its fields are its settings, ``metrics`` all that it may measure."""


def judge_named(name: str, settings: Mapping[str, Any]) -> Judge:
    """The judge of a task.

    Raises:
        KeyError: no such task. TypeError, SpecError: settings that it does not take.
    """
    found: Judge = JUDGES[name](**settings)
    return found
