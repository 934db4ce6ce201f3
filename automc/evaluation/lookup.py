"""Predicted latency: a table of single layers, and a correction found on a few whole networks of this one's kind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import metadata
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from automc.core.layers import LayerTable
from automc.core.machine import processor
from automc.core.policy import Policy, Site, Value
from automc.measure.forms import Form, forms
from automc.measure.prediction import ARITHMETICS, Correction, sums, unknown
from automc.measure.table import LatencyTable, grid
from automc.measure.walk import Walk, walk
from automc.operators.base import Compression, compress
from automc.operators.layers import Trace

RATIOS = (0.0, 0.45)
"""Of the uniformly pruned networks that the correction is found on."""

MIXED = 8
"""Networks with random ratios and bits in every layer that it is found on besides."""

Rows = Mapping[str, float]


class Tools(NamedTuple):
    """What measures on the device.

    Attributes:
        layers: known rows, forms, batch -> all rows. networks: ONNX files -> milliseconds of each, at the table's pace.
        export: a network -> an ONNX file.
    """

    layers: Callable[[Rows, Sequence[Form], int], dict[str, float]]
    networks: Callable[[Rows, Sequence[bytes], int], list[float]]
    export: Callable[[nn.Module], bytes]


class Lookup:
    """Predicts the latency of compressed forms of one network.

    Attributes:
        table: the layers of the device. correction: of networks of this kind.
    """

    def __init__(self, table: LatencyTable, correction: Correction, original: Walk, tools: Tools) -> None:
        self.table, self.correction, self._tools = table, correction, tools
        self._original = self(original)

    def __call__(self, walked: Walk) -> float:
        """Predicted milliseconds of one run.

        Raises:
            KeyError: a layer is not in the table; ``learn`` first.
        """
        return self.correction(sums(self.table, _layers(walked)))

    def metrics(self, walked: Walk) -> dict[str, float]:
        """``latency_predicted_ms`` and its ratio to the original's."""
        own = self(walked)
        return {"latency_predicted_ms": own, "latency_predicted_ratio": own / self._original if self._original else 1.0}

    def learn(self, walked: Walk) -> None:
        """Measure the layers that the table does not know (those of a factorized layer, say)."""
        missing = unknown(self.table, _layers(walked))
        if missing:
            rows = self._tools.layers(self.table.rows, missing, self.table.batch)
            self.table = LatencyTable(rows, self.table.batch)


def lookup(
    original: nn.Module,
    found: Trace,
    example: Tensor,
    order: Sequence[str],
    known: Rows,
    tools: Tools,
    batch: int = 1,
) -> Lookup:
    """The lookup of a network; what is not known yet is measured: layers on a grid, and a few whole networks.

    Args:
        original: in eval mode. found: its trace. example: normalised inputs, shape (n, ...).
        order: the operators of the study: widths vary where it has prune, inputs are rounded where it has quantize.
        known: rows of the device. batch: inputs of a run.
    """
    walked = walk(original, example)
    rows = tools.layers(known, list(wanted(walked, found.table, order)), batch)
    family = _family(walked, order, batch)
    if f"{family} 0>0" not in rows:
        table = LatencyTable(rows, batch)
        networks = [compressed(original, found, example, policy) for policy in calibration(found.table, order)]
        pairs = [sums(table, _layers(walk(network, example))) for network in networks]
        times = tools.networks(rows, [tools.export(network) for network in networks], batch)
        for i, found_of in enumerate(zip(times, pairs, strict=True)):
            rows |= {f"{family} {i}>{k}": ms for k, ms in enumerate((found_of[0], *found_of[1]))}
    width = 1 + len(ARITHMETICS)
    count = sum(key.startswith(f"{family} ") for key in rows) // width
    table_of = [[rows[f"{family} {i}>{k}"] for k in range(width)] for i in range(count)]
    correction = Correction.fit([tuple(row[1:]) for row in table_of], [row[0] for row in table_of])
    return Lookup(LatencyTable(rows, batch), correction, walked, tools)


def wanted(walked: Walk, table: LayerTable, order: Sequence[str]) -> Iterator[Form]:
    """The layers to measure: every layer on the grid of the widths it can have, in floats and in integers.

    One whose input alone is rounded is measured when it is met.
    """
    prunable = {name for group in table.groups for name in group.producers} if "prune" in order else set()
    fed = {name for group in table.groups for name in group.consumers} if "prune" in order else set()
    for name, form, _ in forms(walked):
        whole = "quantize" in order and form.kind != "transposed"
        for arithmetic in ("float", "int8") if whole else ("float",):
            yield from grid(replace(form, arithmetic=arithmetic), name in fed, name in prunable)


def calibration(table: LayerTable, order: Sequence[str]) -> list[Policy]:
    """Policies of the networks that the correction is found on: uniform ones, and ones drawn under a fixed seed."""
    rng = np.random.default_rng(0)
    most, choices = 0.8 if "prune" in order else 0.0, (8, 32) if "quantize" in order else (32,)
    ratios = RATIOS if most else (0.0,)
    uniform = [_policy(table, partial(float, ratio), partial(int, bits)) for ratio in ratios for bits in choices]
    count = MIXED if len(uniform) > 1 else 0
    return uniform + [
        _policy(table, lambda: float(rng.uniform(0, most)), lambda: int(rng.choice(choices))) for _ in range(count)
    ]


def compressed(original: nn.Module, found: Trace, example: Tensor, policy: Policy) -> nn.Module:
    """A network of a policy's shape; its weights are of no matter, so that two inputs calibrate it."""
    state = Compression(original, original, found, example)
    return compress(state, policy, ("prune", "quantize")).model.eval()


def device_name() -> str:
    """What latencies measured on this machine are kept under: processor and runtime."""
    return f"{processor()}, ONNX Runtime {metadata.version('onnxruntime')}, 1 thread"


def _policy(table: LayerTable, ratio: Callable[[], float], bits: Callable[[], int]) -> Policy:
    values: dict[Site, Value] = {Site("prune", group.name, "prune_ratio"): ratio() for group in table.groups}
    kinds = ("conv", "depthwise", "linear")
    for layer in (layer for layer in table.layers if layer.kind in kinds):
        both = bits()
        values |= {Site("quantize", layer.name, f"{what}_bits"): both for what in ("weight", "activation")}
    return Policy(values)


def _layers(walked: Walk) -> list[tuple[Form, int]]:
    return [(form, calls) for _, form, calls in forms(walked)]


def _family(walked: Walk, order: Sequence[str], batch: int) -> str:
    """The name of this kind of network in the table."""
    layers = [(form.family(batch), form.inputs, form.outputs, calls) for form, calls in _layers(walked)]
    said = json.dumps([layers, sorted({"prune", "quantize"}.intersection(order)), RATIOS, MIXED, ARITHMETICS])
    return f"network:{hashlib.sha256(said.encode()).hexdigest()[:16]} n{batch}"
