"""All coupled groups of a network: found by two finders, each plan proved, and a reason where there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from automc.core.layers import Group
from automc.errors import CompressionError, one_line
from automc.operators.groups.adapters import find_adapters
from automc.operators.groups.fallback import FallbackFinder, wide
from automc.operators.groups.graph import GroupFinder, plan_of
from automc.operators.groups.proof import Prover
from automc.operators.groups.slicing import Plan

OUTPUT = "is the network's output"


@dataclass
class Coupling:
    """The coupled groups among these layers.

    Attributes:
        names: the layers in order of execution. plans: those that hold, by group name.
        reasons: by layer, why it has none.
    """

    names: Sequence[str]
    plans: dict[str, Plan] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def producers(self, plan: Plan) -> list[str]:
        """The layers that lose outputs, in order."""
        found = {cut.module for cut in plan.producers}
        return [name for name in self.names if name in found]

    @property
    def covered(self) -> set[str]:
        """The layers that belong to a group."""
        return {cut.module for plan in self.plans.values() for cut in plan.producers}

    def groups(self) -> list[Group]:
        """The table's groups, in the order of their first producers."""
        rows = []
        for name, plan in self.plans.items():
            readers = {cut.module for cut in plan.consumers}
            consumers = tuple(n for n in self.names if n in readers)
            rows.append(Group(name, plan.channels, tuple(self.producers(plan)), consumers, plan.multiple))
        return sorted(rows, key=lambda row: self.names.index(row.name))

    def accept(self, plans: Mapping[str, Plan], refused: Mapping[str, str]) -> None:
        """Take these plans, but for the refused ones."""
        for name, plan in plans.items():
            if name in refused:
                self.reasons |= dict.fromkeys(self.producers(plan), refused[name])
            else:
                self.plans[name] = plan
                for member in self.producers(plan):
                    self.reasons.pop(member, None)


def couple(model: nn.Module, example: Tensor, names: Sequence[str]) -> Coupling:
    """Find the groups.

    Args:
        model: in eval mode; not changed. names: its layers in order of execution.
    """
    found = Coupling(names)
    try:
        prover = Prover(model, example)
    except Exception as error:
        found.reasons = dict.fromkeys(names, f"cannot be tried on random weights ({one_line(error)})")
        return found
    failed = _by_graph(found, prover, model, example)
    wanted = {name for name in names if name not in found.covered and found.reasons.get(name) != OUTPUT}
    if wanted:
        _by_units(found, prover, wanted, failed)
    return found


def _by_graph(found: Coupling, prover: Prover, model: nn.Module, example: Tensor) -> bool:
    """What the dependency graph explains: first as it is, then with adapters that need not be followed.

    Returns:
        Whether there is no graph.
    """
    adapters = find_adapters(model, example[:2])
    for known in ({}, adapters) if adapters else ({},):
        try:
            finder = GroupFinder(model, example[:2], known)
        except CompressionError as error:
            found.reasons = {name: str(error) for name in found.names if name not in found.covered}
            return True
        plans: dict[str, Plan] = {}
        taken = {name for name in found.names if name in found.covered or found.reasons.get(name) == OUTPUT}
        for name in found.names:
            if name in taken:
                continue
            members = {name}
            try:
                cuts = finder.cuts(name)
                members |= {cut.module for cut in cuts if cut.role in ("out", "depthwise")}
                plans[name] = plan_of(name, cuts)
            except CompressionError as error:
                found.reasons |= {n: str(error) for n in found.names if n in members}
            taken |= members
        found.accept(plans, prover.refused(plans, found.plans))
    return False


def _by_units(found: Coupling, prover: Prover, wanted: set[str], failed: bool) -> None:
    """What is left is measured. The graph's reasons say more than the measurement's, where there is a graph."""
    try:
        finder = FallbackFinder(prover.model, prover.inputs, found.names, wanted, found.covered)
    except (RuntimeError, ValueError, TypeError, IndexError):  # the forward does not bear being cut into pieces
        return
    plans, reasons = finder.plans()
    refused = prover.refused(plans, found.plans)
    holding = {name: plan for name, plan in plans.items() if name not in refused}
    spread: dict[str, Plan] = {}
    for name in refused:
        try:
            spread[name] = wide(plans[name])
        except CompressionError as error:
            reasons[name] = str(error)
    wrong = prover.refused(spread, found.plans | holding)
    found.accept(holding, {})
    found.accept({name: plan for name, plan in spread.items() if name not in wrong}, {})
    for name in set(found.reasons) & set(reasons | wrong):
        if failed or reasons.get(name) == OUTPUT or isinstance(prover.model.get_submodule(name), nn.RNNBase):
            found.reasons[name] = (reasons | wrong)[name]
