"""Space rules: from what a user writes ("all convolutions: 2 to 8 bits") to the decisions of one network."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

from automc.core.layers import LayerTable
from automc.core.order import decision
from automc.core.policy import Site, Value
from automc.core.space import Choice, Decision, Domain, OperatorInfo, Real, SearchSpace
from automc.errors import SpecError


@dataclass(frozen=True)
class Rule:
    """One entry of a space: an operator, the layers it concerns, and a domain for each of its settings.

    A layer is meant when it fits every selector that is given. A later rule replaces the settings an
    earlier one gave to the same layer. For an operator of scope ``group`` a group is meant when one of its
    producers is; for one of scope ``block`` a block is meant when one of its layers is, and its own name counts as a
    name of each of its layers.

    Attributes:
        layers: globs over layer names, any may fit. exclude: globs, none may fit.
        kinds: layer kinds, any may fit; empty: all.
        indices: positions in execution order, negative from the end; empty: all.
        settings: domain by setting name; a domain of one value fixes the setting.
    """

    operator: str
    settings: Mapping[str, Domain]
    layers: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    indices: tuple[int, ...] = ()

    def to_data(self) -> dict[str, Any]:
        data = asdict(self)
        data["settings"] = {name: domain_to_data(domain) for name, domain in self.settings.items()}
        return data

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Rule:
        lists = {key: tuple(data[key]) for key in ("layers", "exclude", "kinds", "indices")}
        settings = {name: domain_from_data(domain) for name, domain in data["settings"].items()}
        return cls(data["operator"], settings, **lists)


def domain_to_data(domain: Domain) -> Any:
    """A list for a choice, ``{low, high, step, log}`` for a range."""
    return list(domain.options) if isinstance(domain, Choice) else asdict(domain)


def domain_from_data(data: Any) -> Domain:
    return Choice(tuple(data)) if isinstance(data, list) else Real(**data)


def nearest(word: str, words: Iterable[str]) -> str:
    """``", did you mean 'x'?"`` for the nearest spelling among ``words``, else ``""``."""
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else ""


def resolve(
    rules: Iterable[Rule],
    order: tuple[str, ...],
    layers: LayerTable,
    operators: Mapping[str, OperatorInfo],
    orders: tuple[tuple[str, ...], ...] = (),
) -> SearchSpace:
    """The search space that the rules make of this network.

    A rule of scope ``block`` without selectors means all blocks there are, also none.

    Args:
        orders: what to choose the order from, where it is a decision.

    Raises:
        SpecError: a rule matches nothing, or no decision is left. The message begins with ``rule N:``
            (from 1) where one rule is at fault.
    """
    chosen: dict[Site, Domain] = {}
    for number, rule in enumerate(rules, 1):
        targets = _targets(rule, operators[rule.operator], layers)
        if not targets and not _sweeping(rule, operators[rule.operator]):
            raise SpecError(f"rule {number}: {_why_nothing(rule, operators[rule.operator], layers)}")
        for target in targets:
            chosen |= {Site(rule.operator, target, name): domain for name, domain in rule.settings.items()}
    position = {name: i for i, name in enumerate(order)}
    place = {layer.name: layer.index for layer in layers.layers}
    place |= {block.name: place[block.layers[0]] for block in layers.blocks}
    sites = sorted(chosen, key=lambda s: (place.get(s.layer, len(place)), position[s.operator], s.setting))
    free = [_decision(s, chosen[s], operators) for s in sites if chosen[s].size > 1]
    free += [decision(orders)] if orders else []
    fixed: dict[Site, Value] = {s: chosen[s].decode(0.0) for s in sites if chosen[s].size == 1}
    if not free:
        raise SpecError("the space leaves nothing to decide: every setting is fixed")
    return SearchSpace(tuple(free), order, layers, fixed)


def _decision(site: Site, domain: Domain, operators: Mapping[str, OperatorInfo]) -> Decision:
    setting = operators[site.operator].settings[site.setting]
    return Decision(site, domain, setting.needs_training, setting.spread, setting.neutral)


def _targets(rule: Rule, operator: OperatorInfo, table: LayerTable) -> list[str]:
    if operator.scope == "network":
        return ["*"]
    count = len(table.layers)
    indices = {i % count if -count <= i < count else -1 for i in rule.indices}
    blocks = table.blocks if operator.scope == "block" else ()
    block_of = {layer: block.name for block in blocks for layer in block.layers}

    def fits(name: str, globs: tuple[str, ...]) -> bool:
        return any(fnmatchcase(own, glob) for own in (name, block_of.get(name, name)) for glob in globs)

    names = [
        layer.name
        for layer in table.layers
        if fits(layer.name, rule.layers)
        and not fits(layer.name, rule.exclude)
        and (not rule.kinds or layer.kind in rule.kinds)
        and (not rule.indices or layer.index in indices)
    ]
    if operator.scope == "block":
        return [block.name for block in blocks if set(block.layers) & set(names)]
    if operator.scope == "group":
        return [group.name for group in table.groups if set(group.producers) & set(names)]
    return [name for name in names if not operator.kinds or table.layer(name).kind in operator.kinds]


def _sweeping(rule: Rule, operator: OperatorInfo) -> bool:
    """It means all blocks there are: a space for every network names blocks, and many networks have none."""
    narrowed = rule.layers != ("*",) or rule.exclude or rule.kinds or rule.indices
    return operator.scope == "block" and not narrowed


def _why_nothing(rule: Rule, operator: OperatorInfo, table: LayerTable) -> str:
    block = operator.scope == "block"
    names = [found.name for found in (table.blocks if block else table.layers)]
    said = f"layers {list(rule.layers)}" + (f", except {list(rule.exclude)}" if rule.exclude else "")
    said += (f", kind {list(rule.kinds)}" if rule.kinds else "") + (
        f", index {list(rule.indices)}" if rule.indices else ""
    )
    what = {"group": "prunable group", "block": "block"}.get(operator.scope, "layer")
    hint = nearest(rule.layers[0], names) if rule.layers else ""
    shown = (", ".join(names[:8]) or "none") + (", ..." if len(names) > 8 else "")
    return f"{operator.name}: {said} matches no {what} of the model{hint or f' (it has: {shown})'}"
