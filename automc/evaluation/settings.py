"""The settings of the network evaluator, each in the dataclass of the part that it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from automc.core.rules import nearest
from automc.errors import SpecError


def sorted_out(settings: Mapping[str, Any], *kinds: type[Any]) -> list[Any]:
    """One object of each kind, made of the settings that are its fields; what a setting may be is its default's type.

    Args:
        kinds: frozen dataclasses whose fields all have defaults and different names; they check their own ranges.

    Raises:
        SpecError: an unknown setting (with the nearest spelling), a wrong type, or a value out of range.
    """
    known = {field.name: type(field.default) for kind in kinds for field in fields(kind)}
    for key, value in settings.items():
        if key not in known:
            raise SpecError(
                f"evaluator.settings.{key}: network has no such setting "
                f"(it has: {', '.join(known)}){nearest(key, known)}"
            )
        right = (int, float) if known[key] is float else known[key]
        if (isinstance(value, bool) and known[key] is not bool) or not isinstance(value, right):
            raise SpecError(f"evaluator.settings.{key}: must be {known[key].__name__}, not {value!r}")
    own = [{field.name for field in fields(kind)} for kind in kinds]
    return [
        kind(**{key: value for key, value in settings.items() if key in names})
        for kind, names in zip(kinds, own, strict=True)
    ]
