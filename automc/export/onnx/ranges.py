"""What the tensors of an ONNX graph are on some inputs. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

Array = NDArray[Any]

_BATCH = 32

MOST, CHANGED = 0.05, 0.01
"""What rounded sums may do on the examples: distance of the outputs from those without, over their size, and expected
share of the answers (largest of the outputs) that become others; a proof allows twice that share. On ResNet-20 with
8-bit inputs 0.02 and 0.006; with inputs of 6 and 8 bits and a quarter of the channels gone, not repaired, 0.03 and
0.015 (0.011 to 0.020 of 3,000 inputs did change); with 4-bit inputs, where any last bit moves whole steps, 0.12 and
0.04.
"""


def ranges(model: bytes, inputs: Array, names: Sequence[str]) -> Mapping[str, tuple[float, float]]:
    """The least and the greatest value of float tensors; (0, 0) of those that are not finite.

    Args:
        inputs: normalised, shape (n, ...), n >= 1.
    """
    watched = onnx.load_model_from_string(model)
    watched.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    session = _session(watched.SerializeToString())
    found: dict[str, tuple[float, float]] = dict.fromkeys(names, (0.0, 0.0))
    for batch in _batches(inputs):
        for name, tensor in zip(names, session.run(list(names), {session.get_inputs()[0].name: batch}), strict=True):
            low, high = found[name]
            ends = (min(low, float(tensor.min())), max(high, float(tensor.max()))) if tensor.size else (low, high)
            found[name] = ends if np.isfinite(ends).all() else (low, high)
    return found


def difference(model: Any, other: Any, inputs: Array) -> tuple[float, float]:
    """How far the other model's float outputs are from the first one's, see ``apart``; (0, 0) without float outputs."""
    sessions = [_session(each.SerializeToString()) for each in (model, other)]
    names = [output.name for output in sessions[0].get_outputs() if output.type == "tensor(float)"]
    if not names:
        return 0.0, 0.0
    answers = ([run.run(names, {run.get_inputs()[0].name: batch}) for batch in _batches(inputs)] for run in sessions)
    one, two = ([np.concatenate(parts) for parts in zip(*each, strict=True)] for each in answers)
    return apart(one, two)


def apart(one: Sequence[Array], two: Sequence[Array]) -> tuple[float, float]:
    """How far outputs are from others: the size of the difference over their size, and the share of answers, largest
    along axis 1, that are expected to be others (``flips``; the most of any output).
    """
    pairs = [(a.astype(np.float64), b.astype(np.float64)) for a, b in zip(one, two, strict=True)]
    off = sum(float(np.square(a - b).sum()) for a, b in pairs)
    size = sum(float(np.square(a).sum()) for a, _ in pairs)
    changed = [flips(a, b) for a, b in pairs if a.ndim > 1 and a.shape[1] > 1]
    return float((off / size) ** 0.5) if size else float(off > 0), max(changed, default=0.0)


def stay(moved: float, changed: float) -> bool:
    """Whether outputs that are so far ``apart`` still give the answers."""
    return moved <= MOST and changed <= CHANGED


def flips(one: Array, two: Array) -> float:
    """The share of answers, largest along axis 1, that are expected to differ, from few of them.

    An answer changes where its lead over the second largest is lost. Leads and changes of leads are taken for
    independent, so that every lead meets every change: n outputs tell as much as n x n pairs, and one of a hundred
    can be told where the count alone would be none or one.

    Args:
        one, two: outputs of both networks, shape (n, classes, ...), at least two classes.
    """
    one, two = (np.moveaxis(each, 1, -1).reshape(-1, each.shape[1]) for each in (one, two))
    rows, second, first = np.arange(len(one)), *np.argsort(one, axis=1)[:, -2:].T
    leads = one[rows, first] - one[rows, second]
    changes = two[rows, first] - two[rows, second] - leads
    return float(np.searchsorted(np.sort(leads), -changes, side="left").mean() / len(leads)) if len(leads) else 0.0


def _batches(inputs: Array) -> Sequence[Array]:
    return [inputs[start : start + _BATCH] for start in range(0, len(inputs), _BATCH)]


def _session(model: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
