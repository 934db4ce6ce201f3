"""An ONNX file of somebody else, looked at before a runtime sees it. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

from automc.errors import ProofError

MOST_BYTES = 2**31 - 1
"""What protobuf can read at all."""

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Whose operators a file may have: ONNX's and those that ONNX Runtime brings along."""


def checked(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """The content of an ONNX file that needs no other file and no code of anybody's; only protobuf has read it.

    Give these bytes to the runtime, and not the path: what was checked is then what is loaded.

    Args:
        most_bytes: the longest file that is read.

    Raises:
        ProofError: it cannot be read, is too long or no ONNX file, keeps tensors outside (external data, which may be
            any path), or has operators of an unknown domain.
    """
    try:
        if path.stat().st_size > most_bytes:
            raise ProofError(f"{path}: {path.stat().st_size:,} bytes, at most {most_bytes:,} are read")
        content = path.read_bytes()
    except OSError as error:
        raise ProofError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        model = onnx.load_model_from_string(content)  # reads no other file
    except Exception as error:  # protobuf's errors share no public base class
        raise ProofError(f"{path}: not a readable ONNX file: {type(error).__name__}") from error
    if not model.graph.node:
        raise ProofError(f"{path}: not a readable ONNX file: it has no graph")
    own = {function.domain for function in model.functions}
    strange = sorted({entry.domain for entry in model.opset_import} - DOMAINS - own)
    if strange:
        raise ProofError(f"{path}: operators of the domain {strange[0]!r}; allowed are ONNX's and com.microsoft")
    for tensor in _tensors([model.graph, *model.functions]):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise ProofError(f"{path}: tensor {tensor.name!r} lies in another file; all must be inside")
    return content


def _tensors(parts: list[Any]) -> Iterator[Any]:
    """All tensors of graphs and functions, and of the graphs inside their nodes."""
    while parts:
        part = parts.pop()
        yield from getattr(part, "initializer", ())
        for sparse in getattr(part, "sparse_initializer", ()):
            yield from (sparse.values, sparse.indices)
        attributes = [attribute for node in part.node for attribute in node.attribute]
        for attribute in [*attributes, *getattr(part, "attribute_proto", ())]:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            parts += [attribute.g, *attribute.graphs]
