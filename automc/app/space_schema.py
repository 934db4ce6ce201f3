"""Reading a search space: ``{order, rules, runtime}``, every operator, setting and domain checked against OPERATORS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from automc.app.domains import domain, suggested
from automc.app.places import Node
from automc.app.readers import Fields, Reader, integer, items, many, text, unknown, word
from automc.core.order import Order, choice_fault, fault
from automc.core.required import show
from automc.core.rules import Rule
from automc.core.space import Domain, OperatorInfo
from automc.core.study import Rung
from automc.errors import SpecError
from automc.measure.runtimes import RUNTIMES
from automc.operators import OPERATORS, ORDER

SPACE_KEYS = ("order", "rules", "runtime")
RULE_KEYS = ("operator", "layers", "except", "kind", "index", "settings")
KINDS = tuple(dict.fromkeys(kind for operator in OPERATORS.values() for kind in operator.kinds))
_SELECTORS = ("layers", "except", "kind", "index")
_FARTHEST = 100_000


@dataclass(frozen=True)
class Space:
    """A space as it was written; ``nodes`` say where its rules are, ``orders`` what to choose the order from."""

    rules: tuple[Rule, ...] = ()
    order: Order = ORDER
    nodes: tuple[Node, ...] = ()
    orders: tuple[Order, ...] = ()
    runtime: str = ""


def space(node: Node) -> Space:
    """Reads a space.

    Raises:
        SpecError: no mapping. Every mistake inside is recorded.
    """
    if isinstance(node.value, str):
        return Space()  # a name that could not be opened; that is recorded already
    if not isinstance(node.value, dict):
        raise SpecError(f"must be the name of a space, a path to one, or {{order, rules}}, not {show(node.value)}")
    before = len(node.mistakes.found)
    fields = Fields(node, SPACE_KEYS)
    nodes: list[Node] = fields.need("rules", _rule_nodes, [], "[{operator: prune}]")
    rules = tuple(rule for item in nodes for rule in item.attempt(_rule))
    orders: tuple[Order, ...] = fields.get("order", _orders, (ORDER,))
    runtime: str = fields.get("runtime", word(RUNTIMES, "runtime"), "")
    if len(node.mistakes.found) > before:
        return Space(order=orders[0] if orders else ORDER)
    if problem := choice_fault(orders, [rule.operator for rule in rules]):
        fields["order"].complain(problem)
    if len(orders) == 1 and not any(domain.size > 1 for rule in rules for domain in rule.settings.values()):
        node.complain("leaves nothing to decide: every setting is fixed")
    return Space(rules, orders[0], tuple(nodes), orders if len(orders) > 1 else (), runtime)


def check_training(found: Space, rungs: Sequence[Rung]) -> None:
    """Records settings that can have no effect, because no rung trains."""
    if not rungs or any(rung.steps for rung in rungs):
        return
    for rule, node in zip(found.rules, found.nodes, strict=True):
        for name in rule.settings:
            if OPERATORS[rule.operator].settings[name].needs_training:
                message = f"{rule.operator}.{name} has no effect: no rung trains; add a rung with steps or remove it"
                node.deepest("settings", name).complain(message)


def _rule_nodes(node: Node) -> list[Node]:
    return items(node, "list of rules")


def _orders(node: Node) -> tuple[Order, ...]:
    """One order, or a list of orders to choose from."""
    if isinstance(node.value, list) and any(isinstance(item.value, list) for item in node.value):
        return tuple(order for item in items(node) for order in item.attempt(_order))
    return (_order(node),)


def _order(node: Node) -> Order:
    before = len(node.mistakes.found)
    names = many(word(OPERATORS, "operator"))(node)
    problem = fault(names, OPERATORS) if len(node.mistakes.found) == before else ""
    if problem:
        raise SpecError(problem)
    return names


def _rule(node: Node) -> Rule:
    fields = Fields(node, RULE_KEYS, _setting_hint(node))
    name = fields.need("operator", word(OPERATORS, "operator"), "", "prune")
    layers: tuple[str, ...] = fields.get("layers", many(text), ("*",))
    exclude: tuple[str, ...] = fields.get("except", many(text), ())
    kinds: tuple[str, ...] = fields.get("kind", many(word(KINDS, "kind of layer")), ())
    indices: tuple[int, ...] = fields.get("index", many(integer(-_FARTHEST, _FARTHEST)), ())
    if not name:
        return Rule("", {})
    operator = OPERATORS[name]
    _check_selectors(fields, operator)
    chosen = _suggestions(operator)
    if "settings" in fields:
        chosen = fields["settings"].read(_settings(operator), chosen)
    return Rule(name, chosen, layers, exclude, kinds, indices)


def _setting_hint(node: Node) -> str:
    """A setting written beside ``settings`` instead of below it."""
    names = {name for operator in OPERATORS.values() for name in operator.settings}
    strays = [key for key in node.value if key in names] if isinstance(node.value, dict) else []
    return f"; {strays[0]} belongs below settings" if strays else ""


def _check_selectors(fields: Fields, operator: OperatorInfo) -> None:
    for key in _SELECTORS if operator.scope == "network" else ():
        if key in fields:
            fields[key].complain(f"{operator.name} concerns the whole network and takes no {key}")


def _suggestions(operator: OperatorInfo) -> dict[str, Domain]:
    return {name: suggested(setting) for name, setting in operator.settings.items() if setting.suggested is not None}


def _settings(operator: OperatorInfo) -> Reader[dict[str, Domain]]:
    def read(node: Node) -> dict[str, Domain]:
        if isinstance(node.value, dict) and not node.value:
            raise SpecError("is empty: leave the key out for the domains the operator suggests")
        if not isinstance(node.value, dict):
            raise SpecError(f"must be a mapping of setting to domain, not {show(node.value)}")
        found: dict[str, Domain] = {}
        for name, child in node.value.items():
            if name not in operator.settings:
                problem = unknown(name, operator.settings, f"setting of {operator.name}")
                node.mistakes.add(child.place, node.path, str(problem))
                continue
            for value in child.attempt(domain(operator.settings[name])):
                found[name] = value
        return found

    return read
