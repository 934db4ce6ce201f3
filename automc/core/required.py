"""Holding settings to their rules: one line a setting that breaks one, at its key path, all of them together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from automc.core.rules import nearest
from automc.errors import SpecError

EVALUATOR = "evaluator.settings"
"""The keys that lead to an evaluator's settings in a study."""

DATA_SET = "data.settings"
"""The keys that lead to a data set's."""


def show(value: object) -> str:
    """A value as a message quotes it, shortened."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping"
    shown = repr(value)
    if isinstance(value, (list, tuple)):
        return shown if len(shown) <= 60 and not any(isinstance(x, (list, tuple, Mapping)) for x in value) else "a list"
    return shown if len(shown) <= 60 else shown[:57] + "..."


def no_such_setting(part: str, key: str, known: Collection[str]) -> str:
    """What a message says of a setting that a part does not take."""
    return f"{part} has no such setting (it has: {', '.join(known) or 'none'}){nearest(key, known)}"


def require(
    settings: object,
    rules: Mapping[str, tuple[bool, str]],
    words: Mapping[str, Iterable[str]] | None = None,
    path: str = EVALUATOR,
) -> None:
    """Hold attributes of ``settings`` to their rules.

    Args:
        rules: by name, whether the value is right, and what it must be. words: by name, the words that it may be.
        path: of the keys that lead to the settings; may be empty.

    Raises:
        SpecError: one line a setting that breaks its rule.
    """
    lines, path = [], f"{path}." if path else ""
    for name, known in (words or {}).items():
        value, names = getattr(settings, name), list(known)
        if value not in names:
            hint = nearest(value, names) if isinstance(value, str) else ""
            lines.append(f"{path}{name}: must be one of {', '.join(names)}, not {show(value)}{hint}")
    for name, (holds, rule) in rules.items():
        if not holds:
            lines.append(f"{path}{name}: must be {rule}, not {show(getattr(settings, name))}")
    if lines:
        raise SpecError("\n".join(lines))
