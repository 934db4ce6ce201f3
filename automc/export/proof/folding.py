"""What a runtime makes of a graph's constants at load, computed again with numpy alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

Array = NDArray[Any]

_TYPES = {1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64}


def computed(node: Any, known: Mapping[str, Array]) -> dict[str, Array]:
    """What a node makes of constants alone, where it is one that unpacks or scales weights; else nothing.

    Of a QuantizeLinear the zero point, as float32: its other inputs are no constants.

    Args:
        known: by name, all constants in the graph before it.
    """
    if node.op_type == "QuantizeLinear" and len(node.input) == 3 and node.input[2] in known:
        return {f"{node.output[0]}.zero": known[node.input[2]].astype(np.float32)}
    if node.op_type not in _NODES or not all(name in known for name in node.input):
        return {}
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return {node.output[0]: _NODES[node.op_type](attributes, *(known[name] for name in node.input))}


def _dequantized(attributes: Mapping[str, Any], codes: Array, scale: Array, zero: Array | None = None) -> Array:
    axis = attributes.get("axis", 1)
    shape = [-1 if i == axis else 1 for i in range(codes.ndim)] if scale.ndim else []
    whole = codes.astype(np.int32) - (0 if zero is None else zero.astype(np.int32).reshape(shape))
    return whole.astype(np.float32) * scale.reshape(shape)


def _shifted(attributes: Mapping[str, Any], numbers: Array, by: Array) -> Array:
    made = numbers >> by if attributes["direction"] == b"RIGHT" else numbers << by
    return np.asarray(made)


_NODES: dict[str, Callable[..., Array]] = {
    "BitShift": _shifted,
    "BitwiseAnd": lambda _, a, b: a & b,
    "Cast": lambda attributes, a: a.astype(_TYPES[attributes["to"]]),
    "DequantizeLinear": _dequantized,
    "Gather": lambda attributes, values, places: np.take(values, places, axis=attributes.get("axis", 0)),
    "Mul": lambda _, a, b: a * b,
    "Reshape": lambda _, a, shape: a.reshape(shape),
    "Slice": lambda _, a, start, end: a[int(start[0]) : int(end[0])],
}
