"""An ONNX graph that passes can edit: nodes in any order, constants as arrays. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Array = NDArray[Any]


class Graph:
    """The main graph of a model, simplified: no Constant and Identity nodes, nothing that no output needs.

    Attributes:
        constants: by name. inputs, outputs: names.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        graph = model.graph
        self.inputs = [slot.name for slot in graph.input]
        self.outputs = [slot.name for slot in graph.output]
        self.constants: dict[str, Array] = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self._nodes: dict[int, Any] = {}
        self._makers: dict[str, Any] = {}
        self._readers: dict[str, dict[int, Any]] = {}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            else:
                self._keep(node)
        for node in [node for node in self.nodes if node.op_type == "Identity"]:
            self._skip(node)

    @property
    def nodes(self) -> list[Any]:
        """NodeProtos, in any order."""
        return list(self._nodes.values())

    @staticmethod
    def plain(model: Any) -> bool:
        """Whether the main graph is all there is: no functions, no graphs inside nodes."""
        inner = (a.HasField("g") or a.graphs for node in model.graph.node for a in node.attribute)
        return not model.functions and not any(inner)

    def maker(self, name: str) -> Any:
        """The node that makes a tensor, None of inputs and constants."""
        return self._makers.get(name)

    def readers(self, name: str) -> list[Any]:
        """The nodes that read a tensor, each once."""
        return list(self._readers.get(name, {}).values())

    def only_reader(self, name: str) -> Any:
        """The node that alone reads a tensor; None where there is none, several, or it is an output of the graph."""
        readers = self.readers(name)
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def number(self, name: str) -> float | None:
        """A constant with one element, else None."""
        found = self.constants.get(name)
        return float(found.reshape(-1)[0]) if found is not None and found.size == 1 else None

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """A new node; returns the name of its output."""
        self._keep(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, name: str, value: Array) -> str:
        """A new constant; returns its name."""
        self.constants[name] = value
        return name

    def redirect(self, old: str, new: str, readers: list[Any]) -> None:
        """Let these nodes read another tensor."""
        for node in readers:
            for i, name in enumerate(node.input):
                if name == old:
                    self.feed(node, i, new)

    def feed(self, node: Any, place: int, name: str) -> None:
        """Let a node read another tensor at one place."""
        old, node.input[place] = node.input[place], name
        if old not in node.input:
            self._readers[old].pop(id(node))
        self._readers.setdefault(name, {})[id(node)] = node

    def drop(self, nodes: list[Any]) -> None:
        """Take nodes out."""
        for node in nodes:
            del self._nodes[id(node)]
            for name in set(node.input):
                self._readers[name].pop(id(node))
            for name in node.output:
                self._makers.pop(name, None)

    def _keep(self, node: Any) -> None:
        self._nodes[id(node)] = node
        self._makers |= dict.fromkeys(node.output, node)
        for name in node.input:
            self._readers.setdefault(name, {})[id(node)] = node

    def _skip(self, node: Any) -> None:
        """Take an Identity out, unless it makes an output."""
        given, made = node.input[0], node.output[0]
        if made in self.outputs:
            return
        self.redirect(made, given, self.readers(made))
        self.drop([node])

    def model(self, metadata: dict[str, str] | None = None) -> Any:
        """The model again, of nodes and constants that an output needs, each constant once."""
        nodes = self._sorted()
        used = {name for node in nodes for name in node.input} | set(self.outputs)
        initializers = [numpy_helper.from_array(np.asarray(a), n) for n, a in self.constants.items() if n in used]
        old = self._model.graph
        graph = helper.make_graph(nodes, old.name, old.input, old.output, initializers)
        made = helper.make_model(graph, opset_imports=self._model.opset_import, ir_version=self._model.ir_version)
        made.producer_name, made.producer_version = self._model.producer_name, self._model.producer_version
        helper.set_model_props(made, metadata or {})
        return made

    def _sorted(self) -> list[Any]:
        """The nodes that outputs need, each behind those it reads."""
        makers = self._makers
        done: set[int] = set()
        found: list[Any] = []
        stack = [(makers[name], False) for name in reversed(self.outputs) if name in makers]
        while stack:
            node, ready = stack.pop()
            if id(node) in done:
                continue
            if ready:
                done.add(id(node))
                found.append(node)
                continue
            stack.append((node, True))
            stack += [(makers[name], False) for name in reversed(node.input) if name in makers]
        return found

    def walk(self) -> Iterator[Any]:
        """The nodes, each behind those it reads."""
        yield from self._sorted()


def attribute(node: Any, name: str, default: Any = None) -> Any:
    """An attribute's value."""
    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else onnx.helper.get_attribute_value(found)
