"""Which layers of an ONNX file run in integer arithmetic and which are only stored small. Loads no torch.

Read off the graph that ONNX Runtime made of the file when it loaded it, not off the file.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from automc.errors import ProofError
from automc.export.onnx.check import checked
from automc.export.onnx.qdq import LAYERS, SUMS

INTEGER = frozenset(
    {"QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat", "MatMulInteger", "ConvInteger"}
    | {"QLinearConvTranspose", "DynamicQuantizeMatMul"}
)
"""Kernels that multiply int8 codes."""


@dataclass(frozen=True)
class LayerRow:
    """One compressed layer.

    Attributes:
        layer: its path. weight_bits, input_bits: 32 for untouched. stored: how the file holds its weight: ``int8``,
            ``4-bit places in a table`` or ``float32``.
        kernel: what ONNX Runtime runs, such as ``QLinearConv``; "" where it left nothing of the layer.
        runs: ``int8`` where that multiplies integers, else ``float``.
    """

    layer: str
    weight_bits: int
    input_bits: int
    stored: str
    kernel: str
    runs: str


def layer_table(path: Path) -> list[LayerRow]:
    """The compressed layers of a file that automc wrote, in order of execution; none of another file.

    Raises:
        ProofError: the file is none, or ONNX Runtime cannot load it.
    """
    content = checked(path)
    told = _metadata(content).get(LAYERS, "[]")
    try:
        rows = [dict(row) for row in json.loads(told)]
        kernels = _kernels(path, content, [str(row["node"]) for row in rows if row["node"]])
        return [_row(row, kernels.get(row["node"], "")) for row in rows]
    except (ValueError, TypeError, KeyError) as error:
        raise ProofError(f"{path}: its list of layers ({LAYERS}) is broken: {type(error).__name__}") from error


def sums(path: Path) -> str:
    """What residual sums of a file that automc wrote run in, and why; "" where none is behind an integer layer.

    Raises:
        ProofError: the file is no ONNX file.
    """
    return _metadata(checked(path)).get(SUMS, "")


def _metadata(content: bytes) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load_model_from_string(content).metadata_props}


def _row(told: dict[str, Any], kernel: str) -> LayerRow:
    bits = int(told["weight_bits"]), int(told["input_bits"])
    return LayerRow(str(told["layer"]), *bits, str(told["stored"]), kernel, "int8" if kernel in INTEGER else "float")


def _kernels(path: Path, content: bytes, names: list[str]) -> dict[str, str]:
    """By node of the file, the operator that runs in its place."""
    if not names:
        return {}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory(prefix="automc-") as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        try:
            onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            optimized = onnx.load(options.optimized_model_filepath).graph
        except Exception as error:  # ONNX Runtime's errors share no public base class
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ProofError(f"{path}: ONNX Runtime cannot load it: {line}") from error
    found: dict[str, str] = {}
    for node in optimized.node:
        # A node that took another's place has its name with something behind it: conv1_token_3.
        own = [name for name in names if node.name == name or node.name.startswith(f"{name}_")]
        if own and node.op_type not in ("Transpose", "ReorderInput", "ReorderOutput"):
            found.setdefault(max(own, key=len), node.op_type)
    return found
