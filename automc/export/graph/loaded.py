"""A network that is run node by node from a graph of plain data: no code is made from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from automc.export.graph.operators import ARITHMETIC, GETITEM

Values = dict[str, Any]

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
"""Rows of weights a unit of recurrent layers."""

LARGEST = 2**62
"""Beyond it a size is no size."""


class Step(NamedTuple):
    """One node: what is called with what, and which results nobody reads afterwards."""

    name: str
    call: Callable[..., Any]
    args: Any
    kwargs: Mapping[str, Any]
    last: tuple[str, ...]


class LoadedNetwork(nn.Module):
    """The network of a graph file. Its parameters and buffers lie where the original's did, under the same names.

    Attributes:
        graph: what the file says, checked.
    """

    def __init__(self, graph: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """``automc.load`` makes one.

        Raises:
            KeyError, TypeError, ValueError: graph and tensors do not fit each other.
        """
        super().__init__()
        self.graph = dict(graph)
        self._constants = {}
        for name, said in graph["tensors"].items():
            if said["kind"] == "constant":
                self._constants[name] = tensors[name]
            else:
                _put(self, name, tensors[name], said["kind"] == "parameter")
        self._steps = steps(graph)
        self.eval()

    def forward(self, x: Tensor) -> Any:
        """The outputs, in the lists, tuples and dicts in which the original returned them."""
        values: Values = {self.graph["inputs"][0]["name"]: x}
        for step in self._steps:
            values[step.name] = self.called(step, values, x.device)
            for name in step.last:
                del values[name]
        return self._shaped(self.graph["outputs"], values, x.device)

    def called(self, step: Step, values: Values, device: torch.device) -> Any:
        """What one node gives."""
        kwargs = {name: self._filled(value, values, device) for name, value in step.kwargs.items()}
        return step.call(*(self._filled(arg, values, device) for arg in step.args), **kwargs)

    def _filled(self, arg: Any, values: Values, device: torch.device) -> Any:
        """An argument of the file as torch takes it."""
        if isinstance(arg, list):
            return [self._filled(each, values, device) for each in arg]
        if not isinstance(arg, dict):
            return arg
        ((kind, name),) = arg.items()
        if kind == "node":
            return values[name]
        if kind == "tensor":
            constant = self._constants.get(name)
            return self._own(name) if constant is None else constant.to(device)
        if kind == "device":
            return device
        return float(name) if kind == "float" else torch_word(kind, name)

    def _own(self, name: str) -> Any:
        found: Any = self
        for part in name.split("."):
            found = getattr(found, part)
        return found

    def _shaped(self, outputs: Any, values: Values, device: torch.device) -> Any:
        if not isinstance(outputs, dict):
            return outputs
        ((kind, inside),) = outputs.items()
        if kind == "dict":
            return {key: self._shaped(value, values, device) for key, value in inside}
        if kind in ("list", "tuple"):
            found = [self._shaped(value, values, device) for value in inside]
            return found if kind == "list" else tuple(found)
        return self._filled(outputs, values, device)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_steps": None}  # torch's operators do not pickle

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._steps = steps(self.graph)

    def extra_repr(self) -> str:
        return f"{len(self._steps)} operations"


def steps(graph: Mapping[str, Any]) -> list[Step]:
    """The nodes of a checked graph, ready to be called."""
    nodes: Sequence[Mapping[str, Any]] = graph["nodes"]
    kept, last = set(nodes_in(graph["outputs"])), dict[str, list[str]]()
    for node in reversed(nodes):
        read = set(nodes_in([node["args"], list(node.get("kwargs", {}).values())]))
        own = [] if node["name"] in kept else [node["name"]]  # a result that nobody reads goes at once
        last[node["name"]] = [*sorted(read - kept), *own]
        kept |= read | {node["name"]}
    return [
        Step(node["name"], callable_of(node["op"]), node["args"], node.get("kwargs", {}), tuple(last[node["name"]]))
        for node in nodes
    ]


def callable_of(name: str) -> Callable[..., Any]:
    """What an allowed name calls.

    Raises:
        AttributeError: torch has no such overload.
    """
    room, _, rest = name.partition(".")
    if room == "operator":
        return _item if rest == GETITEM else _of_numbers(ARITHMETIC[rest])
    base, _, overload = rest.partition(".")
    called: Callable[..., Any] = getattr(getattr(torch.ops.aten, base), overload)
    if not isinstance(called, torch._ops.OpOverload):
        raise AttributeError(f"aten.{base} has no overload {overload}")
    return _recurrent(called, GATES[base]) if base in GATES else called


def torch_word(kind: str, name: str) -> Any:
    """A type, memory format or layout of torch.

    Raises:
        ValueError: it is none.
    """
    kinds = {"dtype": torch.dtype, "memory_format": torch.memory_format, "layout": torch.layout}
    found = getattr(torch, name, None) if isinstance(name, str) and kind in kinds else None
    if found is None or not isinstance(found, kinds[kind]):
        raise ValueError(f"{kind} {name!r} is none of torch's"[:200])
    return found


def nodes_in(value: Any) -> Iterator[str]:
    """Names of the nodes that an argument of the file speaks of."""
    if isinstance(value, list):
        for each in value:
            yield from nodes_in(each)
    elif isinstance(value, dict):
        if isinstance(value.get("node"), str):
            yield value["node"]
        for each in value.values():
            yield from nodes_in(each)


def _recurrent(call: Callable[..., Any], gates: int) -> Callable[..., Any]:
    """torch's recurrent layer, its states and weights measured before: torch 2.13 does not, and writes where they end.

    At every call, because the states may fit another number of inputs only.
    """

    def checked(x: Tensor, states: Any, weights: Sequence[Tensor], *rest: Any) -> Any:
        biases, layers, _, _, both, first = rest
        wide = 2 if both else 1
        held = list(states) if gates == 4 else [states]
        units = held[-1].shape[-1]
        rows = gates * units
        inputs = [(units * wide if layer else x.shape[-1]) for layer in range(len(weights)) for _ in range(wide)]
        wanted = [size for n in inputs for size in ((rows, n), (rows, units), *([(rows,), (rows,)] if biases else []))]
        count = layers * wide * (4 if biases else 2)
        state = (layers * wide, x.shape[0 if first else 1], units)
        if (
            x.dim() != 3
            or len(held) != (2 if gates == 4 else 1)
            or any(tuple(each.shape) != state for each in held)
            or len(weights) != count
            or [tuple(weight.shape) for weight in weights] != wanted[:count]
        ):
            raise ValueError(f"a recurrent layer of {units} units: input, states and weights do not fit each other")
        return call(x, states, weights, *rest)

    return checked


def _item(values: Any, place: Any) -> Any:
    if not isinstance(values, (list, tuple)) or type(place) is not int:
        raise TypeError("getitem takes a list and a whole number")
    return values[place]


def _of_numbers(call: Callable[..., Any]) -> Callable[..., Any]:
    """The operator for numbers that are sizes, and for nothing else."""

    def checked(*numbers: Any) -> Any:
        if any(isinstance(each, (Tensor, list, tuple, str)) for each in numbers):
            raise TypeError("arithmetic of sizes takes numbers")
        found = call(*numbers)
        if isinstance(found, int) and abs(found) > LARGEST:
            raise ValueError("a size above 2^62")
        return found

    return checked


def _put(root: nn.Module, name: str, tensor: Tensor, parameter: bool) -> None:
    """Register a tensor under a dotted name, with modules on the way.

    Raises:
        KeyError: something else is there.
    """
    *path, last = name.split(".")
    for part in path:
        inner = root._modules.get(part)
        if inner is None:
            inner = nn.Module()
            root.add_module(part, inner)
        root = inner
    if parameter:
        root.register_parameter(last, nn.Parameter(tensor, requires_grad=False))
    else:
        root.register_buffer(last, tensor)
