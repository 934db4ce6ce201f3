"""The catalogue: which name stands for which part. Nothing heavy is imported before a part is used."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

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

__all__ = ["DATA_SETS", "EVALUATORS", "MODELS", "PROPOSERS", "STOPPERS", "TASKS", "build", "part"]


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


def build(table: Mapping[str, str], kind: str, chosen: Part, *arguments: Any) -> Any:
    """Build a part with its settings as keyword arguments.

    Raises:
        SpecError: unknown name, or settings that the part does not take.
    """
    make = part(table, kind, chosen.name)
    known = dict(list(inspect.signature(make).parameters.items())[len(arguments) :])
    for key, value in chosen.settings.items():
        if key not in known:
            has = ", ".join(known) or "none"
            raise SpecError(
                f"{kind}.settings.{key}: {chosen.name} has no such setting (it has: {has}){nearest(key, known)}"
            )
        # What a setting may be is read off its default; a whole number will do where a fraction may stand.
        wanted = type(known[key].default)
        fits = isinstance(value, (int, float) if wanted is float else wanted)
        if not fits or isinstance(value, bool) != (wanted is bool):
            raise SpecError(f"{kind}.settings.{key}: must be {_TYPES.get(wanted, wanted.__name__)}, not {value!r}")
    return make(*arguments, **chosen.settings)


_TYPES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
