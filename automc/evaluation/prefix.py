"""The part of a network before its first changed layer: it does in every trial what it does in the original network.

The original is traced once (torch.fx). A node of its graph is unchanged when it reads only unchanged ones and its
module, if it has one, is the original's bit for bit. What changed nodes read of unchanged ones is kept, so that a later
trial computes the rest alone. Nothing is taken on trust: for the first batch of every trial the whole network runs too,
and where its answer is not that of the graph, bit for bit, the graph is not used in this trial.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from automc.core.required import require
from automc.evaluation.kept import Kept, copied
from automc.evaluation.sameness import equal_or_none, replaced, same
from automc.operators.outputs import tensors_of

WORTH = 0.05
"""Share of the network's MACs that must lie before the first change; below, keeping costs what it saves."""


@dataclass(frozen=True)
class Caching:
    """What a process keeps of the original network's activations.

    Attributes:
        cache_mb: megabytes (2^20 bytes) at most, in each process; 0 keeps nothing.
    """

    cache_mb: int = 512

    def __post_init__(self) -> None:
        require(self, {"cache_mb": (self.cache_mb >= 0, "at least 0")})


@dataclass(frozen=True)
class Cut:
    """The original's graph and where a network leaves it.

    Attributes:
        names: of the unchanged nodes; work that is the same in two graphs of the original has one name.
        frontier: the unchanged nodes that changed ones read.
    """

    graph: fx.Graph
    names: Mapping[fx.Node, str]
    frontier: frozenset[fx.Node]

    def place(self, node: fx.Node, split: str) -> str:
        """Where a node's values for a split are kept; "" for one that has changed."""
        return f"{split} {self.names[node]}" if node in self.names else ""


class Prefix:
    """Finds where networks leave the original, and keeps what it did up to there; pickled, it has kept nothing.

    Attributes:
        counts: ``reused``: batches whose beginning was kept; ``computed``: those of networks that begin like the
            original whose beginning had to be computed; ``unproved``: networks whose graph did not answer as they did.
    """

    def __init__(self, original: nn.Module, macs: Mapping[str, int], caching: Caching) -> None:
        """``original``: in the form in which networks are measured (inference.py). ``macs``: by path of its modules."""
        self._original = original
        self._macs = macs
        self._caching = caching
        self._forget()

    def runner(self, model: nn.Module, split: str, batches: int) -> Runner:
        """The network, to be asked batch by batch; the split has so many."""
        return Runner(model, self._cut(model) if self._caching.cache_mb else None, self, split, batches)

    def _cut(self, model: nn.Module) -> Cut | None:
        """Where the model leaves the original; None where that is near its beginning, or no graph is known."""
        leaves = replaced(self._original, model)
        if leaves is None:
            return None
        if leaves not in self._graphs:
            self._graphs[leaves] = _traced(self._original, leaves)
        graph = self._graphs[leaves]
        if graph is None:
            return None
        unchanged = _unchanged(graph, self._original, model)
        paths = [str(node.target) for node in unchanged if node.op == "call_module"]
        done = sum(count for path, count in self._macs.items() if any(f"{path}.".startswith(f"{p}.") for p in paths))
        if done < WORTH * sum(self._macs.values()):
            return None
        frontier = [node for node in unchanged if any(user not in unchanged for user in node.users)]
        work = frozenset(node for node in frontier if node.op not in ("placeholder", "get_attr"))
        names = {node: name for node, name in _names(graph).items() if node in unchanged}
        return Cut(graph, names, work)

    def _forget(self) -> None:
        self.kept = Kept(self._caching.cache_mb * 2**20)
        self.counts: Counter[str] = Counter()
        self._graphs: dict[frozenset[str], fx.Graph | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("_original", "_macs", "_caching")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()


class Runner:
    """A network that answers batch by batch, by the original's graph where that is proved, else as it is."""

    def __init__(self, model: nn.Module, cut: Cut | None, prefix: Prefix, split: str, batches: int) -> None:
        self._model = model
        self._cut = cut
        self._prefix = prefix
        self._split = split
        self._batches = batches
        self._proved = False

    def __call__(self, number: int, inputs: Tensor) -> Any:
        """The outputs for batch ``number`` of the split; the first call decides whether later ones go by the graph."""
        if self._cut is None:
            return self._model(inputs)
        if self._proved:
            return self._by_graph(self._cut, number, inputs)
        outputs = self._model(inputs)
        self._proved = self._agrees(self._cut, number, inputs, outputs)
        if not self._proved:
            self._cut = None
            self._prefix.counts["unproved"] += 1
        return outputs

    def _agrees(self, cut: Cut, number: int, inputs: Tensor, outputs: Any) -> bool:
        try:
            found = tensors_of(self._by_graph(cut, number, inputs))
        except Exception:  # a network may raise anything where its graph is not what it does
            return False
        wanted = tensors_of(outputs)
        return len(found) == len(wanted) > 0 and all(map(torch.equal, found, wanted))

    def _by_graph(self, cut: Cut, number: int, inputs: Tensor) -> Any:
        known = self._known(cut, number)
        kept = {node for node, value in known.items() if value is not None}
        interpreter = _Interpreter(self._model, cut, kept)
        outputs = interpreter.run(inputs, initial_env=known)
        self._prefix.counts["reused" if kept else "computed"] += 1
        seen = {cut.place(node, self._split): value for node, value in interpreter.seen.items()}
        self._prefix.kept.put(seen, number, self._batches)
        return outputs

    def _known(self, cut: Cut, number: int) -> dict[fx.Node, Any]:
        """What need not be computed: values that are kept, and None for what nobody asks for then."""
        known: dict[fx.Node, Any] = {}
        needed: set[fx.Node] = set()
        asked = [cut.graph.output_node()]
        while asked:
            node = asked.pop()
            if node in needed:
                continue
            needed.add(node)
            value = self._prefix.kept.get(cut.place(node, self._split), number)
            if value is None:
                asked += node.all_input_nodes
            else:
                known[node] = value
        return known | {node: None for node in cut.graph.nodes if node not in needed}


class _Interpreter(fx.Interpreter):
    """Runs a graph with the modules of a network, and sees what its frontier gives."""

    def __init__(self, model: nn.Module, cut: Cut, kept: Iterable[fx.Node]) -> None:
        super().__init__(model, graph=cut.graph)
        self.seen: dict[fx.Node, Any] = {}
        self._watched = cut.frontier.difference(kept)

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self._watched:
            self.seen[n] = copied(value)  # now: what comes next may write into it
        return value


class _Tracer(fx.Tracer):
    """Goes into modules with children only, and not into those that a network has replaced."""

    def __init__(self, leaves: frozenset[str]) -> None:
        super().__init__()
        self._leaves = leaves

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return (
            not m._modules or module_qualified_name in self._leaves or super().is_leaf_module(m, module_qualified_name)
        )


def _traced(model: nn.Module, leaves: frozenset[str]) -> fx.Graph | None:
    """The network's graph; None where it has none: its forward asks for a tensor's value or takes several inputs."""
    try:
        graph = _Tracer(leaves).trace(model)
    except Exception:  # the forward is a user's, and sees no tensors here
        return None
    return graph if [node.op for node in graph.nodes].count("placeholder") == 1 else None


def _unchanged(graph: fx.Graph, original: nn.Module, model: nn.Module) -> set[fx.Node]:
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op != "output" and found.issuperset(node.all_input_nodes) and _same_work(node, original, model):
            found.add(node)
    return found


def _same_work(node: fx.Node, original: nn.Module, model: nn.Module) -> bool:
    path = str(node.target)
    if node.op == "call_module":
        return same(original.get_submodule(path), model.get_submodule(path))
    if node.op == "get_attr":
        owner, _, name = path.rpartition(".")
        return equal_or_none(*(getattr(each.get_submodule(owner), name, None) for each in (original, model)))
    return True


def _names(graph: fx.Graph) -> dict[fx.Node, str]:
    """Names by what a node does to what: of the same work in several graphs they are the same.

    Of work that is done several times in one graph, as in place, the later ones count.
    """
    names: dict[fx.Node, str] = {}
    times: Counter[str] = Counter()
    for node in graph.nodes:
        args = fx.node.map_arg((node.args, node.kwargs), lambda argument: names[argument])
        work = f"{node.op} {node.target if isinstance(node.target, str) else id(node.target)} {args!r}"
        times[work] += 1
        names[node] = hashlib.sha256(f"{work} {times[work]}".encode()).hexdigest()
    return names
