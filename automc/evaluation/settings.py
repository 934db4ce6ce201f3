"""The settings of the network evaluator, each in the dataclass of the part that it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from automc.core.required import EVALUATOR, no_such_setting, show
from automc.errors import SpecError


def sorted_out(settings: Mapping[str, Any], *kinds: type[Any]) -> list[Any]:
    """One object of each kind, made of the settings that are its fields; what a setting may be is its default's type.

    Args:
        kinds: frozen dataclasses whose fields all have defaults and different names; they check their own ranges.

    Raises:
        SpecError: one line a mistake: an unknown setting (with the nearest spelling), a wrong type, or a value out of
            range.
    """
    known = {field.name: field.default for kind in kinds for field in fields(kind)}
    lines, right, made = [], {}, []
    for key, value in settings.items():
        if key not in known:
            problem = no_such_setting("network", key, known)
        elif not (problem := _wrong(value, type(known[key]))):
            right[key] = value
        if problem:
            lines.append(f"{EVALUATOR}.{key}: {problem}")
    for kind in kinds:
        names = {field.name for field in fields(kind)}
        try:
            made.append(kind(**{key: value for key, value in right.items() if key in names}))
        except SpecError as error:
            lines += str(error).splitlines()
    if lines:
        raise SpecError("\n".join(lines))
    return made


def _wrong(value: object, wanted: type) -> str:
    """Why a value is not of the type, "" where it is; a whole number is a number too."""
    fits = isinstance(value, (int, float) if wanted is float else wanted)
    return "" if fits and isinstance(value, bool) == (wanted is bool) else f"must be {TYPES[wanted]}, not {show(value)}"


TYPES: Mapping[type, str] = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
"""What the types of settings are called in messages."""
