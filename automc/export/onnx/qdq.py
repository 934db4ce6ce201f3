"""A float graph becomes one that runtimes run in integers, with the searched codes and scales. Loads no torch.

Rounded inputs become QuantizeLinear and DequantizeLinear; weights become int8 codes with a scale a row where their
layer runs in integers, and few-bit initializers that are unpacked at load where it does not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automc.core.integers import Integers, Table, integers, rows, table
from automc.core.stored import Stored
from automc.export.onnx.graph import Graph, attribute
from automc.export.onnx.grids import Rounded, drop_hidden, take_roundings
from automc.export.onnx.sums import Ranges, round_sums

Array = NDArray[Any]

LAYERS = "automc.layers"
"""Key of the file's metadata with the layers: JSON, a list of objects ``layer``, ``node``, ``weight_bits``,
``input_bits`` and ``stored``."""

SUMS = "automc.sums"
"""Key of the file's metadata with what residual sums run in, and why; absent where no integer layer is before one."""

MOST_BIAS = 2.0**30
"""Largest bias in its steps: kernels add it as int32."""


@dataclass
class Layer:
    """A node with a compressed weight.

    Attributes:
        name: tensor name, ``conv1.weight``. turned: the graph has the transposed matrix.
        whole: the weight as integers where the node could run in them, else None.
    """

    node: Any
    name: str
    stored: Stored
    turned: bool
    whole: Integers | None


def lowered(model: Any, stored: Mapping[str, Stored], ranges: Ranges | None = None, *, plain: bool = False) -> Any:
    """The model with roundings as QDQ pairs and compressed weights in few bits; its constants are otherwise the same.

    Args:
        model: a float ModelProto, with the ``dense()`` of each weight as an initializer. Not used afterwards.
        stored: by tensor name, the compressed weights.
        ranges: tells what to round sums on; without it nothing is rounded that the search did not round.
        plain: all integer weights are int8 initializers, whether ONNX Runtime has a kernel there or not.
    """
    if not Graph.plain(model):
        return model
    graph = Graph(model)
    rounded = take_roundings(graph)
    layers = _layers(graph, stored, {each.output: each for each in rounded})
    makers = [layer.node for layer in layers if layer.whole is not None and layer.node.op_type == "Conv"]
    rounded = drop_hidden(graph, rounded) if ranges is None else round_sums(graph, makers, rounded, ranges)
    bits = {each.output: int(each.grid.top).bit_length() for each in rounded}
    scales = {each.output: each.grid.scale for each in rounded}
    told: list[dict[str, object]] = []
    for layer in layers:
        layer.node.name = _unique(layer.name.rpartition(".")[0], [row["node"] for row in told])
        kept = _write(graph, layer, scales, plain)
        named = {"layer": layer.name.rpartition(".")[0], "node": layer.node.name}
        told.append(named | {"weight_bits": layer.stored.bits, "input_bits": bits.get(layer.node.input[0], 32)})
        told[-1]["stored"] = kept
    for name in sorted(set(stored) - {layer.name for layer in layers}):  # a recurrent layer's, say
        whole = {"layer": name.rpartition(".")[0], "node": "", "weight_bits": stored[name].bits}
        told.append(whole | {"input_bits": 32, "stored": "float32"})
    return graph.model({LAYERS: json.dumps(told)} if told else None)


def _unique(name: str, taken: Sequence[object]) -> str:
    """A node's name; a layer that is called again has others."""
    count = sum(str(each).partition("#")[0] == name for each in taken)
    return f"{name}#{count + 1}" if count else name


def _layers(graph: Graph, stored: Mapping[str, Stored], rounded: Mapping[str, Rounded]) -> list[Layer]:
    """The nodes whose weight is one of these, found by its numbers: exporters rename and transpose."""
    found: dict[tuple[Any, ...], list[str]] = {}
    for name, each in stored.items():
        dense = each.dense() + np.float32(0)  # -0 is 0
        found.setdefault((dense.shape, dense.tobytes()), []).append(name)
    layers = []
    for node in graph.walk():
        weight = graph.constants.get(node.input[1]) if node.op_type in _KINDS and len(node.input) > 1 else None
        if weight is None or weight.dtype != np.float32:
            continue
        weight = weight + np.float32(0)
        names, turned = found.get((weight.shape, weight.tobytes()), []), False
        if not names and weight.ndim == 2:
            names, turned = found.get((weight.T.shape, np.ascontiguousarray(weight.T).tobytes()), []), True
        if names:
            name = node.input[1] if node.input[1] in names else names[0]
            whole = _whole(graph, node, stored[name], turned, rounded.get(node.input[0]))
            layers.append(Layer(node, name, stored[name], turned, whole))
    return layers


_KINDS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def _whole(graph: Graph, node: Any, stored: Stored, turned: bool, input: Rounded | None) -> Integers | None:
    """The weight's integers, where kernels can multiply them with this input's codes."""
    if input is None or node.op_type == "ConvTranspose":
        return None
    plain = attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1.0 and not attribute(node, "transA", 0)
    rows_last = node.op_type == "MatMul" or (node.op_type == "Gemm" and not attribute(node, "transB", 0))
    if not plain or rows_last != turned:
        return None
    found = integers(stored)
    if found is None or len(node.input) < 3:
        return found
    bias = graph.constants.get(node.input[2])
    if bias is None or not (np.abs(bias) < MOST_BIAS * found.bias_grid(input.grid.scale)).all():
        return None
    return found


def _write(graph: Graph, layer: Layer, scales: Mapping[str, float], plain: bool) -> str:
    """Give the node its weight as integers or as few-bit numbers; how it is stored, in words."""
    made = f"{layer.name}.dense" if layer.node.name.count("#") == 0 else f"{layer.node.name}.dense"
    if layer.whole is not None and (plain or _in_integers(graph, layer.node)):
        codes, told = _codes(graph, layer, layer.whole.codes, plain)
        scale = graph.constant(f"{made}.scale", layer.whole.scale)
        zero = graph.constant(f"{made}.zero", np.zeros(len(layer.whole.scale), np.int8))
        graph.add("DequantizeLinear", [codes, scale, zero], made, axis=1 if layer.turned else 0)
        graph.feed(layer.node, 1, made)
        _write_bias(graph, layer, layer.whole.bias_grid(scales[layer.node.input[0]]))
        return told
    found = rows(layer.stored)
    if found is None:
        return "float32"
    numbers, scale_of = found
    codes, told = _codes(graph, layer, numbers)
    if (scale_of != 1).any():
        one = bool((scale_of == scale_of[0]).all())
        along = (1, -1) if layer.turned else (-1, *[1] * (numbers.ndim - 1))
        scale = graph.constant(f"{made}.scale", scale_of[0].reshape(()) if one else scale_of.reshape(along))
        codes = graph.add("Mul", [codes, scale], made)
    graph.feed(layer.node, 1, codes)
    return told


def _write_bias(graph: Graph, layer: Layer, steps: Array) -> None:
    """The bias as the int32 codes that kernels add, where it lies on their grid, as baking sees to."""
    bias = graph.constants.get(layer.node.input[2]) if len(layer.node.input) > 2 else None
    if bias is None or bias.shape != steps.shape:
        return
    codes = np.round(bias.astype(np.float64) / steps).astype(np.int32)
    if not np.array_equal(codes.astype(np.float32) * steps, bias):
        return
    name = f"{layer.node.name}.bias"
    ends = [
        graph.constant(f"{name}.{part}", array)
        for part, array in (("codes", codes), ("scale", steps), ("zero", np.zeros(len(codes), np.int32)))
    ]
    graph.feed(layer.node, 2, graph.add("DequantizeLinear", ends, f"{name}.dense", axis=0))


def _in_integers(graph: Graph, node: Any) -> bool:
    """Whether ONNX Runtime has a kernel: matrix products give floats, a convolution only codes."""
    reader = graph.only_reader(node.output[0])
    return node.op_type != "Conv" or (reader is not None and reader.op_type == "QuantizeLinear")


def _codes(graph: Graph, layer: Layer, numbers: Array, plain: bool = False) -> tuple[str, str]:
    """Numbers (int8, or float32 that are multiplied by a scale) as an initializer, and what makes them of it.

    All of it is of constants, so a runtime does it once, at load.
    """
    name = f"{layer.name}.codes" if layer.node.name.count("#") == 0 else f"{layer.node.name}.codes"
    given = numbers.T if layer.turned else numbers
    found = None if plain else table(given)
    if found is not None and found.lane < 8:
        return _unpacked(graph, name, found), f"{found.lane}-bit places in a table"
    if numbers.dtype == np.int8:
        return graph.constant(name, np.ascontiguousarray(given)), "int8"
    if (np.abs(given) <= 127).all() and (given == np.round(given)).all():
        whole = graph.constant(name, np.ascontiguousarray(given).astype(np.int8))
        return graph.add("Cast", [whole], f"{name}.numbers", to=1), "int8"
    if found is not None:
        return _unpacked(graph, name, found), "8-bit places in a table"
    return graph.constant(name, np.ascontiguousarray(given)), "float32"


def _unpacked(graph: Graph, name: str, found: Table) -> str:
    """``values[places]`` of a table."""
    last = graph.constant(name, found.packed)
    if found.lane < 8:
        shifts = np.arange(8 - found.lane, -1, -found.lane, dtype=np.uint8)
        last = graph.add("BitShift", [last, graph.constant(f"{name}.shifts", shifts)], f"{name}.s", direction="RIGHT")
        ones = graph.constant(f"{name}.ones", np.array(2**found.lane - 1, np.uint8))
        last = graph.add("BitwiseAnd", [last, ones], f"{name}.places")
    last = graph.add("Cast", [last], f"{name}.whole", to=6)
    size = int(np.prod(found.shape))
    if found.packed.shape[0] * (8 // found.lane) != size:
        last = graph.add("Reshape", [last, graph.constant(f"{name}.flat", np.array([-1], np.int64))], f"{name}.row")
        ends = [graph.constant(f"{name}.{n}", np.array([v], np.int64)) for n, v in (("start", 0), ("end", size))]
        last = graph.add("Slice", [last, *ends], f"{name}.cut")
    shape = graph.constant(f"{name}.shape", np.array(found.shape, np.int64))
    last = graph.add("Reshape", [last, shape], f"{name}.shaped")
    return graph.add("Gather", [graph.constant(f"{name}.table", found.values), last], f"{name}.numbers")
