"""Are the numbers of the packed file the numbers of the ONNX file? Compared bit by bit. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from automc.errors import ProofError
from automc.export import packed
from automc.export.formats import MODEL, PACKED, Comparison
from automc.export.onnx.check import checked
from automc.export.proof.folding import computed

Array = NDArray[Any]


_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
"""Where torch's gates (LSTM: i f g o, GRU: r z n) are among ONNX's (i o f c, z r h)."""


def compare(folder: Path) -> Comparison:
    """The packed file's arrays beside the ONNX file's.

    Raises:
        ProofError: one of them cannot be read.
    """
    arrays = packed.tensors(folder / PACKED)
    others = tuple(unmatched(arrays, constants(folder / MODEL)))
    return Comparison(len(arrays) - len(others), others)


def constants(path: Path) -> dict[str, Array]:
    """Every initializer, every tensor of a Constant node and what nodes make of constants alone, by name.

    So integer and few-bit weights are there as the floats that a runtime makes of them, and the zero points of rounded
    inputs as float numbers. Those of a recurrent node are there a second time as torch keeps them: a direction at a
    time, gates in torch's order, the two biases apart.

    Raises:
        ProofError: the file cannot be read.
    """
    try:
        graph = onnx.load_model_from_string(checked(path)).graph
        found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                found[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
        for node in graph.node:
            found |= computed(node, found)
            if node.op_type in _GATES:
                found |= _as_torch(node, found)
    except ProofError:
        raise
    except Exception as error:  # protobuf, onnx and numpy each raise their own
        raise ProofError(f"{path}: not a readable ONNX file: {type(error).__name__}") from error
    return found


def _as_torch(node: Any, known: Mapping[str, Array]) -> dict[str, Array]:
    """A recurrent node's weights: ONNX has (directions, gates * hidden, ...), and both biases in one row."""
    order = _GATES[node.op_type]
    found = {}
    for name in (name for name in node.input[1:4] if name in known):
        for direction, array in enumerate(known[name]):
            halves = np.split(array, 2) if array.ndim == 1 else [array]
            for half, part in enumerate(halves):
                gates = np.split(part, len(order))
                found[f"{name}/{direction}/{half}"] = np.concatenate([gates[i] for i in order])
    return found


def unmatched(arrays: Mapping[str, Array], graph: Mapping[str, Array]) -> list[str]:
    """Names of packed arrays that are no constant of the graph, bit by bit.

    Exporters keep an array under its name, merge equal ones under one name, store a matrix transposed, take a scalar
    into a node or reorder a recurrent layer's gates; so the graph is searched by content. Zeros are in every graph: a
    bias of zeros is left out.
    """
    contents = {content for array in graph.values() for content in _contents(array)}
    return sorted(name for name, array in arrays.items() if array.any() and next(_contents(array)) not in contents)


def _contents(array: Array) -> Iterator[tuple[str, tuple[int, ...], bytes]]:
    """The array's type, shape and bytes; of a matrix also those of its transpose. Axes of length 1 and the sign of
    zeros do not count.
    """
    plain = np.squeeze(array)
    plain = plain + np.zeros((), plain.dtype) if plain.dtype.kind == "f" else plain
    yield plain.dtype.str, plain.shape, plain.tobytes()
    if plain.ndim == 2:
        turned = np.ascontiguousarray(plain.T)
        yield turned.dtype.str, turned.shape, turned.tobytes()
