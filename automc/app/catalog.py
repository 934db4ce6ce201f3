"""The catalogue: which name stands for which part. Nothing heavy is imported before a part is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from automc.core import signature
from automc.core.rules import nearest
from automc.core.study import Part
from automc.errors import SpecError
from automc.evaluation.entries import DATA, ZOO
from automc.evaluation.tasks import TASKS
from automc.proposers.members import PROPOSERS

STOPPERS: Mapping[str, str] = {
    "never": "automc.stoppers:NeverStopper",
    "median": "automc.stoppers:MedianStopper",
}

EVALUATORS: Mapping[str, str] = {
    "network": "automc.evaluation.evaluator:prepare",
    "synthetic": "automc.evaluation.synthetic:prepare_synthetic",
}

DATA_SETS, MODELS = DATA, ZOO

__all__ = ["DATA_SETS", "EVALUATORS", "MODELS", "PROPOSERS", "STOPPERS", "TASKS", "build", "mistakes", "part"]


def part(table: Mapping[str, str], kind: str, name: str) -> Callable[..., Any]:
    """The class or function that ``name`` stands for.

    Raises:
        SpecError: the table has no such name.
    """
    if name not in table:
        raise SpecError(f"{kind}: unknown name {name!r}{nearest(name, table)} (allowed: {', '.join(table)})")
    module, attribute = table[name].split(":")
    found: Callable[..., Any] = getattr(import_module(module), attribute)
    return found


def mistakes(table: Mapping[str, str], kind: str, chosen: Part) -> dict[str, str]:
    """What is wrong with the settings of a part, by key. Raises SpecError for an unknown name."""
    return signature.mistakes(part(table, kind, chosen.name), chosen.name, chosen.settings)


def build(table: Mapping[str, str], kind: str, chosen: Part, *arguments: Any) -> Any:
    """Build a part with its settings as keyword arguments.

    Raises:
        SpecError: unknown name, or settings that the part does not take.
    """
    return signature.made(part(table, kind, chosen.name), kind, chosen.name, chosen.settings, *arguments)
