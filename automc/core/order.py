"""The order in which operators are applied, and that order as a decision of the search.

Where a space lists several orders, a policy carries the one it means as an ordinary value at SITE: the names joined
by spaces. So proposers, stores and reports see one more choice and need not know what it is about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from automc.core.policy import Site
from automc.core.space import Choice, Decision, OperatorInfo

SITE = Site("order", "*", "order")
"""Where a policy carries its order."""

Order = tuple[str, ...]


def decision(orders: Iterable[Order]) -> Decision:
    """The choice between these orders."""
    return Decision(SITE, Choice(tuple(" ".join(order) for order in orders)))


def fault(order: Sequence[str], operators: Mapping[str, OperatorInfo]) -> str:
    """Why operators cannot be applied in this order, ``""`` where they can.

    Args:
        order: names of ``operators``.
    """
    for place, name in enumerate(order):
        if name in order[:place]:
            return f"names {name} twice"
        late = [other for other in operators[name].before if other in order[:place]]
        if late:
            return f"has {name} after {late[0]}, but it must come first: move it before {late[0]}"
    return ""


def choice_fault(orders: Sequence[Order], used: Iterable[str]) -> str:
    """Why these orders are no choice for a space that uses these operators, ``""`` where they are."""
    wanted = list(dict.fromkeys(used))
    seen: dict[Order, int] = {}
    for number, order in enumerate(orders, 1):
        which = f" in order {number}" if len(orders) > 1 else ""
        if missing := [name for name in wanted if name not in order]:
            return f"{missing[0]} is missing{which}, though a rule uses it"
        alike = seen.setdefault(tuple(name for name in order if name in wanted), number)
        if alike != number:
            return f"orders {alike} and {number} are the same for the operators that the rules use; remove one"
    return ""
