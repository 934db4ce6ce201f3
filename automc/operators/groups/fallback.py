"""Plans for the layers whose coupling no graph explains, from measured units (units.py).

Each group is tried in two forms. Plain: everything shrinks, the tensors between the layers too. Where the forward does
not follow, because widths are written into it, wide: the layers shrink, and the network between them keeps its widths
(ports.py). The proof decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace

from torch import Tensor, nn

from automc.errors import CompressionError
from automc.operators.groups.adapters import Adapter, find_adapters
from automc.operators.groups.graph import plan_of, tied
from automc.operators.groups.sides import cuts_at, side_of
from automc.operators.groups.slicing import Cut, Plan
from automc.operators.groups.units import Port, Units, partition

_Node = tuple[Port, int]
"""One channel at one side of one layer."""


class FallbackFinder:
    """Groups of the layers that have none.

    Args:
        model: in eval mode, with random weights (Prover.model); not changed. inputs: what its forward takes.
        layers: the table's layers in order of execution. wanted: those without a group. taken: those with one.
    """

    def __init__(
        self, model: nn.Module, inputs: Tensor, layers: Sequence[str], wanted: Set[str], taken: Set[str]
    ) -> None:
        self._model, self._layers, self._wanted, self._taken = model, layers, wanted, taken
        self._adapters: Mapping[str, Adapter] = find_adapters(model, inputs)
        self._tied = tied(model)
        self._units = Units(model, inputs)
        self._parents: dict[_Node, _Node] = {}
        self._connect()
        self._members: dict[_Node, list[_Node]] = {}
        for node in self._parents:
            self._members.setdefault(self._root(node), []).append(node)
        self._spoken = {
            self._root((port, int(i)))
            for port, hit in self._units.touched(None).items()
            for i in hit.nonzero().flatten()
            if (port, 0) in self._parents
        }

    def plans(self) -> tuple[dict[str, Plan], dict[str, str]]:
        """Plain plans by group name, and why other layers have none; the reason completes "layer x ..."."""
        found: dict[str, Plan] = {}
        reasons: dict[str, str] = {}
        for name in self._layers:
            done = name in reasons or any(name in (cut.module for cut in plan.producers) for plan in found.values())
            if name not in self._wanted or done or (name, "out") not in self._units.widths:
                continue
            try:
                found[name] = self._plan(name)
            except CompressionError as error:
                reasons[name] = str(error)
        return found, reasons

    def _connect(self) -> None:
        """Join the channels that can only go together, around the layers of interest."""
        around = self._around()
        for port in around:
            for channel in range(self._units.widths[port]):
                self._parents[port, channel] = (port, channel)
        for port in around:
            if port[1] == "in":
                for block, makers in partition(self._units, port):
                    nodes = [(port, int(i)) for i in block.nonzero().flatten()]
                    nodes += [(maker, int(i)) for maker, hit in makers.items() for i in hit.nonzero().flatten()]
                    if makers:
                        self._join(nodes)
            if port[1] == "out" and self._through(port[0]) and (port[0], "in") in around:
                for channel in range(self._units.widths[port]):
                    self._join([(port, channel), ((port[0], "in"), channel)])

    def _around(self) -> list[Port]:
        """The sides of layers that are connected to the outputs of a layer of interest."""
        found = {(name, "out") for name in self._wanted} & set(self._units.widths)
        while True:
            grown = set(found)
            for reader, makers in self._units.reach.items():
                if makers & found or reader in found:
                    grown |= makers | {reader}
            for name, way in list(grown):
                other = (name, "in" if way == "out" else "out")
                if other in self._units.widths and self._through(name):
                    grown.add(other)
            if grown == found:
                return sorted(found)
            found = grown

    def _through(self, name: str) -> bool:
        """Channel i that goes out is channel i that comes in."""
        module = self._model.get_submodule(name)
        if name in self._adapters or isinstance(module, (nn.RNNBase, nn.Embedding)):
            return False
        try:
            return side_of(name, module, True).role in ("each", "depthwise")
        except CompressionError:
            return False

    def _join(self, nodes: Sequence[_Node]) -> None:
        first = self._root(nodes[0])
        for node in nodes[1:]:
            self._parents[self._root(node)] = first

    def _root(self, node: _Node) -> _Node:
        while self._parents[node] != node:
            self._parents[node] = self._parents[self._parents[node]]
            node = self._parents[node]
        return node

    def _plan(self, name: str) -> Plan:
        members = self._members
        chosen: dict[_Node, None] = {}
        pending: list[Port] = [(name, "out")]
        seen: set[Port] = set()
        while pending:  # every unit of every layer that makes a channel of the group
            port = pending.pop(0)
            if port in seen:
                continue
            seen.add(port)
            for channel in range(self._units.widths[port]):
                root = self._root((port, channel))
                if root not in chosen:
                    chosen[root] = None
                    pending += [p for p, _ in members[root] if p[1] == "out" and p not in pending]
        if self._spoken & set(chosen):
            raise CompressionError("is the network's output")
        units = [members[root] for root in chosen]
        return plan_of(name, self._cuts(name, units))

    def _cuts(self, name: str, units: Sequence[Sequence[_Node]]) -> list[Cut]:
        places: dict[Port, list[set[int]]] = {}
        for number, unit in enumerate(units):
            for (path, way), channel in unit:
                port = (path, "out") if self._through(path) else (path, way)
                places.setdefault(port, [set() for _ in units])[number].add(channel)
        cuts: list[Cut] = []
        for (path, way), index in sorted(places.items(), key=lambda item: item[0] != (name, "out")):
            if path in self._tied:
                raise CompressionError(f"shares a parameter with another layer ({path!r})")
            if way == "out" and path in self._taken:
                raise CompressionError(f"is coupled to {path!r}, which belongs to another group")
            sorted_index = tuple(tuple(sorted(places)) for places in index)
            if path in self._adapters:
                cuts.append(self._adapters[path].cut(path, way == "in", sorted_index))
            else:
                cuts += cuts_at(path, self._model.get_submodule(path), way == "in", sorted_index)
        return cuts


def wide(plan: Plan) -> Plan:
    """The plan that leaves the network between the layers at its full width.

    Raises:
        CompressionError: a recurrent layer is in it, whose several outputs have no port.
    """
    if any(cut.role == "recurrent" for cut in plan.cuts):
        raise CompressionError("is recurrent, and the network around it does not follow its width")
    return replace(plan, cuts=tuple(replace(cut, full=cut.full or "outside") for cut in plan.cuts))
