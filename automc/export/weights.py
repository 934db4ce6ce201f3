"""Are the numbers of the packed file the numbers of the ONNX file? Compared bit by bit. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from automc.errors import ProofError

Array = NDArray[Any]


def constants(path: Path) -> dict[str, Array]:
    """Every initializer and every tensor of a Constant node, by name.

    Raises:
        ProofError: the file cannot be read.
    """
    try:
        graph = onnx.load(str(path)).graph
        found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                found[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
    except Exception as error:  # protobuf, onnx and numpy each raise their own
        raise ProofError(f"{path}: not a readable ONNX file: {type(error).__name__}") from error
    return found


def unmatched(packed: Mapping[str, Array], graph: Mapping[str, Array]) -> list[str]:
    """Names of packed arrays that are no constant of the graph, bit by bit.

    Exporters keep an array under its name, merge equal ones under one name, store a matrix transposed, or take a
    scalar into a node; so the graph is searched by content. Zeros are in every graph: a bias of zeros is left out.
    """
    contents = {content for array in graph.values() for content in _contents(array)}
    return sorted(name for name, array in packed.items() if array.any() and next(_contents(array)) not in contents)


def _contents(array: Array) -> Iterator[tuple[str, tuple[int, ...], bytes]]:
    """The array's type, shape and bytes; of a matrix also those of its transpose. Axes of length 1 do not count."""
    plain = np.squeeze(array)
    yield plain.dtype.str, plain.shape, plain.tobytes()
    if plain.ndim == 2:
        turned = np.ascontiguousarray(plain.T)
        yield turned.dtype.str, turned.shape, turned.tobytes()
