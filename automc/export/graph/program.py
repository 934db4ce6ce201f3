"""graph.json: what a baked network does with its tensors, as plain data.

torch.export's training graph (Wu et al. 2024, PyTorch 2): operators of aten with plain arguments, the batch axis free.
The layout is documented in README.md beside this file.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from automc.errors import ModelError, one_line
from automc.export.formats import GRAPH
from automc.export.graph.operators import CHECKS, allowed

FORMAT, VERSION = "automc-graph", 1

CONSTANT_VALUES = 4096
"""Most numbers of a tensor that the forward makes itself; larger ones belong in buffers."""

Data = dict[str, Any]


def program_of(model: nn.Module, example: Tensor) -> Any:
    """torch's ExportedProgram of a baked network, for any batch.

    Args:
        example: normalised inputs, shape (n, ...), n >= 1.

    Raises:
        ModelError: torch cannot export it.
    """
    inputs = torch.cat([example[:1], example[:1]])  # a batch of one would be taken for a constant
    return _exported(model, inputs, ({0: torch.export.Dim("batch")},))


def lone_program(model: nn.Module, example: Tensor) -> Any:
    """The same for one input at a time. Raises ModelError."""
    return _exported(model, example[:1], None)


def _exported(model: nn.Module, inputs: Tensor, shapes: Any) -> Any:
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return torch.export.export(model, (inputs,), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch raises whatever it meets
        raise ModelError(
            f"model {type(model).__name__}: torch.export cannot follow it: {one_line(error)}; export --format onnx"
        ) from error


def describe(program: Any, model: nn.Module) -> Data:
    """The graph of a program as plain data.

    Args:
        model: what the program was made from.

    Raises:
        ModelError: it calls something that a graph may not, or its forward changes its tensors.
    """
    signature, graph = program.graph_signature, program.graph
    kinds = {spec.arg.name: spec for spec in signature.input_specs}
    if changed := [spec for spec in signature.output_specs if spec.kind.name != "USER_OUTPUT"]:
        raise ModelError(f"model {type(model).__name__}: its forward changes {changed[0].target or 'its tensors'}")
    needed, names = _needed(graph), _first_names(model)
    tensors: Data = {}
    places: dict[str, Data] = {}
    inputs: list[Data] = []
    for node in graph.nodes:
        if node.op == "placeholder":
            spec = kinds[node.name]
            if spec.kind.name == "USER_INPUT":
                places[node.name] = {"node": node.name}
                inputs.append({"name": node.name, "dtype": _name(node.meta["val"].dtype), "shape": _free(node)})
            elif node in needed:
                name = names.get(spec.target, spec.target)
                tensors[name] = _tensor(program, model, spec, name)
                places[node.name] = {"tensor": name}
    nodes = [_node(node, places) for node in graph.nodes if node.op == "call_function" and node in needed]
    return {
        "format": FORMAT,
        "version": VERSION,
        "inputs": inputs,
        "tensors": tensors,
        "nodes": nodes,
        "outputs": _outputs(program, places),
    }


SUM = "sha256"
"""Key of a graph with its digest, which tells what is damaged, not what is forged."""


def digest(data: Mapping[str, Any]) -> str:
    """SHA-256 of a graph but for its SUM."""
    text = json.dumps({key: value for key, value in data.items() if key != SUM}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def write_graph(folder: Path, data: Data) -> None:
    """Write the file, a line a node."""
    head = {key: value for key, value in data.items() if key not in ("nodes", "outputs")} | {SUM: digest(data)}
    lines = [json.dumps(head, allow_nan=False)[:-1] + ', "nodes": [']
    lines += [",\n".join(json.dumps(node, allow_nan=False) for node in data["nodes"])]
    lines += ['], "outputs": ' + json.dumps(data["outputs"], allow_nan=False) + "}"]
    (folder / GRAPH).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _needed(graph: Any) -> set[Any]:
    """Nodes that an output depends on, or that change a tensor in place."""
    needed: set[Any] = set()
    for node in reversed(graph.nodes):
        called = str(node.target).split(".")
        in_place = node.op == "call_function" and called[0] == "aten" and called[1].endswith("_")
        read = node.op == "output" or any(user in needed for user in node.users)
        if (read or in_place) and not (called[0] == "aten" and called[1] in CHECKS):
            needed.add(node)
    return needed


def _first_names(model: nn.Module) -> dict[str, str]:
    """By every name of a tensor the first one, under which a file holds tied ones."""
    first: dict[int, str] = {}
    both = (model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False))
    return {name: first.setdefault(id(tensor), name) for each in both for name, tensor in each}


def _tensor(program: Any, model: nn.Module, spec: Any, name: str) -> Data:
    """What is said of a tensor; of a constant that the forward makes, also its numbers."""
    kind = spec.kind.name
    value = program.state_dict.get(spec.target, program.constants.get(spec.target))
    if not isinstance(value, Tensor) or kind not in ("PARAMETER", "BUFFER", "CONSTANT_TENSOR"):
        raise ModelError(f"model {type(model).__name__}: {name} is no tensor ({kind.lower()})")
    said: Data = {"kind": kind.lower(), "dtype": _name(value.dtype), "shape": list(value.shape)}
    if kind == "CONSTANT_TENSOR":
        if value.numel() > CONSTANT_VALUES:
            raise ModelError(f"model {type(model).__name__}: {name} has {value.numel()} numbers: make it a buffer")
        said |= {"kind": "constant", "values": [_plain(each, {}) for each in value.flatten().tolist()]}
    return said


def _node(node: Any, places: Mapping[str, Data]) -> Data:
    name = str(node.target) if isinstance(node.target, torch._ops.OpOverload) else f"operator.{node.target.__name__}"
    if not allowed(name):
        raise ModelError(f"packed: a graph cannot call {name} (at {node.name}); export --format onnx")
    data: Data = {"name": node.name, "op": name, "args": [_plain(arg, places) for arg in node.args]}
    if node.kwargs:
        data["kwargs"] = {key: _plain(value, places) for key, value in node.kwargs.items()}
    return data


def _plain(value: Any, places: Mapping[str, Data]) -> Any:
    """An argument as JSON."""
    if isinstance(value, torch.fx.Node):
        return dict(places.get(value.name, {"node": value.name}))
    if isinstance(value, (list, tuple)):
        return [_plain(each, places) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    for kind in (torch.dtype, torch.memory_format, torch.layout):
        if isinstance(value, kind):
            return {kind.__name__: _name(value)}
    if isinstance(value, torch.device):
        return {"device": "input"}
    raise ModelError(f"packed: a graph cannot hold a {type(value).__name__}; export --format onnx")


def _outputs(program: Any, places: Mapping[str, Data]) -> Any:
    """The outputs as the network returns them: nodes in lists, tuples and dicts, or None."""
    (node,) = (node for node in program.graph.nodes if node.op == "output")
    leaves = [_plain(each, places) for each in node.args[0]]
    numbers = torch.utils._pytree.tree_unflatten(range(len(leaves)), program.call_spec.out_spec)
    return _shaped(numbers, leaves)


def _shaped(outputs: Any, leaves: list[Any]) -> Any:
    if isinstance(outputs, Mapping):
        return {"dict": [[str(key), _shaped(value, leaves)] for key, value in outputs.items()]}
    if isinstance(outputs, (list, tuple)):
        kind = "list" if isinstance(outputs, list) else "tuple"
        return {kind: [_shaped(value, leaves) for value in outputs]}
    return None if outputs is None else leaves[outputs]


def _free(node: Any) -> list[int | None]:
    return [None, *(int(size) for size in node.meta["val"].shape[1:])]


def _name(value: Any) -> str:
    return str(value).removeprefix("torch.")
