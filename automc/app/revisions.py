"""What a revision changed, and which of the trials before it still count: for people, and as plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from automc.core.layers import LayerTable
from automc.core.order import SITE
from automc.core.revision import Reading
from automc.core.rules import resolve
from automc.core.space import written
from automc.core.study import Part, StudySpec
from automc.core.trial import EXCLUDED, Trial
from automc.errors import SpecError
from automc.operators import OPERATORS


def account(trials: Sequence[Trial], read: Reading, first: int) -> dict[str, Any]:
    """How a revision that begins with trial ``first`` reads those before: how many are ``reused``; by rule how many are
    ``excluded``, and of each rule the first case among ``examples``.
    """
    if read.changeless:
        return {"reused": first, "excluded": {}, "examples": {}}
    excluded: Counter[str] = Counter()
    examples: dict[str, dict[str, Any]] = {}
    for trial in trials[:first]:
        found = read(trial)
        if found.reason == EXCLUDED:
            rule, _, why = found.message.partition(": ")
            excluded[rule] += 1
            examples.setdefault(rule, {"trial": trial.number, "because": why})
    return {"reused": len(trials[:first]) - excluded.total(), "excluded": dict(excluded), "examples": examples}


def told(found: Mapping[str, Any]) -> str:
    """An account for people."""
    cases = (
        f"{count} {rule} (first trial {found['examples'][rule]['trial']}: {found['examples'][rule]['because']})"
        for rule, count in found["excluded"].items()
    )
    gone = sum(found["excluded"].values())
    return f"{found['reused']} earlier trials reused" + (f", {gone} excluded: {'; '.join(cases)}" if gone else "")


def changes(old: StudySpec, new: StudySpec, layers: LayerTable) -> list[str]:
    """What a revision changed in the one before, one line a key."""
    found = [
        f"{part}.{key}: {_shown(before)} -> {_shown(after)}"
        for part in ("budget", "workers")
        for key, before in vars(getattr(old, part)).items()
        if (after := getattr(getattr(new, part), key)) != before
    ]
    for part in ("proposer", "stopper"):
        if getattr(old, part) != getattr(new, part):
            found.append(f"{part}: {_part(getattr(old, part))} -> {_part(getattr(new, part))}")
    for i, (before, after) in enumerate(zip(old.rungs, new.rungs, strict=True)):
        names = [key for key, value in vars(before).items() if value != getattr(after, key)]
        found += [f"rungs[{i}].{key}: {_shown(getattr(before, key))} -> {_shown(getattr(after, key))}" for key in names]
    for part in ("objectives", "constraints"):
        found += _listed(part, [str(x) for x in getattr(old, part)], [str(x) for x in getattr(new, part)])
    return found + _spaces(old, new, layers)


def listed(specs: Sequence[StudySpec], layers: LayerTable) -> list[dict[str, Any]]:
    """Every revision after the first: its number, the trial it begins with, what it changed in the one before."""
    return [
        {"revision": new.revision, "first_trial": new.first_trial, "changes": changes(old, new, layers)}
        for old, new in pairwise(specs)
    ]


def _listed(name: str, old: Sequence[str], new: Sequence[str]) -> list[str]:
    gone, come = [x for x in old if x not in new], [x for x in new if x not in old]
    if not gone and not come and list(old) != list(new):
        return [f"{name}: in another order: {', '.join(new)}"]
    return [f"{name}: {', '.join([*(f'- {x}' for x in gone), *(f'+ {x}' for x in come)])}"] if gone or come else []


def _spaces(old: StudySpec, new: StudySpec, layers: LayerTable) -> list[str]:
    """One line for each setting and what became of its domain."""
    if (old.rules, old.order, old.orders) == (new.rules, new.order, new.orders):
        return []
    try:
        first, second = _domains(old, layers), _domains(new, layers)
    except (KeyError, SpecError):
        return ["space: changed (this automc cannot read one of the two)"]
    moves: Counter[tuple[str, str, str, str]] = Counter()
    for site in sorted({*first, *second}):
        before, after = first.get(site, ""), second.get(site, "")
        if before != after:
            moves[site.operator, site.setting, before, after] += 1
    found = [
        f"space: {operator} {setting}: {before or 'not decided'} -> {after or 'not decided'} ({count} sites)"
        if operator != SITE.operator
        else f"space: order: {before or ' '.join(old.order)} -> {after or ' '.join(new.order)}"
        for (operator, setting, before, after), count in moves.items()
    ]
    same_order = old.order == new.order or old.orders or new.orders
    return [*found, *([] if same_order else [f"space: order: {' '.join(old.order)} -> {' '.join(new.order)}"])]


def _domains(spec: StudySpec, layers: LayerTable) -> dict[Any, str]:
    space = resolve(spec.rules, spec.order, layers, OPERATORS, spec.orders)
    return {d.site: str(d.domain) for d in space.decisions} | {s: written(v) for s, v in space.fixed.items()}


def _part(part: Part) -> str:
    settings = ", ".join(f"{key}={_shown(value)}" for key, value in part.settings.items())
    return f"{part.name} ({settings})" if settings else part.name


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)
