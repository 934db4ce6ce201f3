"""What every operator does to ResNet-20 without training: quality, cost, bytes, and the time it takes to apply.

    python experiments/benchmarks/operators.py [--inputs 2000] [--only TEXT]

Prints a Markdown table, writes it to ``operators.md`` beside this file with machine and versions, and ends with the
time that a whole policy (prune and quantize every layer) takes on ResNet-56. Needs the shared weights and pictures that
experiments/cifar10_resnet20 names.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from common import cifar, publish, table

from automc.core.layers import LayerTable
from automc.core.policy import Policy, Site, Value
from automc.core.study import ModelSpec
from automc.errors import CompressionError
from automc.evaluation.evaluator import NetworkEvaluator, prepare
from automc.evaluation.zoo import load_model
from automc.operators import OPERATORS, ORDER
from automc.operators.base import Compression, compress
from automc.operators.layers import trace

HERE = Path(__file__).resolve().parent
ROUNDS = 5
"""Timed applications; the median is printed."""

Part = tuple[str, Mapping[str, Value]]
"""An operator and its settings, the same everywhere."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    label: str
    parts: tuple[Part, ...]
    order: tuple[str, ...] = ORDER


def rows() -> Iterable[Row]:
    """The settings to compare."""
    yield Row("original", ())
    yield Row("drop every third block", (("drop", {"dropped": True}),))
    for criterion in OPERATORS["prune"].settings["criterion"].legal.values(0):
        yield Row(f"prune 0.5, {criterion}", (("prune", {"prune_ratio": 0.5, "criterion": criterion}),))
    for sparsity in (0.5, 0.7, 0.9):
        for method in ("magnitude", "obs"):
            yield Row(f"sparsify {sparsity}, {method}", (("sparsify", {"sparsity": sparsity, "method": method}),))
    for pattern in ("2:4", "1:4"):
        for method in ("magnitude", "obs"):
            settings = {"sparsity": 0.5, "pattern": pattern, "method": method}
            yield Row(f"sparsify {pattern}, {method}", (("sparsify", settings),))
    for method in ("svd", "spatial", "tucker2", "cp"):
        for ratio in (0.5, 0.25):
            yield Row(f"factorize {ratio}, {method}", (("factorize", {"rank_ratio": ratio, "method": method}),))
    for bits, activation_bits in ((8, 8), (6, 8), (4, 8), (3, 8), (2, 8), (1, 32), (32, 4)):
        settings = {"weight_bits": bits, "activation_bits": activation_bits}
        yield Row(f"quantize {bits}/{activation_bits}", (("quantize", settings),))
    for weight_format in ("asymmetric", "codebook", "power_of_two"):
        for bits in (4, 3):
            settings = {"weight_bits": bits, "weight_format": weight_format}
            yield Row(f"quantize {bits}, {weight_format}", (("quantize", settings),))
    yield Row("quantize 2, ternary", (("quantize", {"weight_bits": 2, "weight_format": "ternary"}),))
    yield Row("quantize 4, tensor", (("quantize", {"weight_bits": 4, "granularity": "tensor"}),))
    for bits in (4, 3):
        yield Row(f"quantize {bits}, adaptive rounding", (("quantize", {"weight_bits": bits, "rounding": "adaptive"}),))
    yield Row("prune 0.3 + sparsify 0.5 + quantize 4/8", joint(0.3, 0.5, 4))


def joint(ratio: float, sparsity: float, bits: int) -> tuple[Part, ...]:
    """Three operators at once."""
    return (
        ("prune", {"prune_ratio": ratio}),
        ("sparsify", {"sparsity": sparsity}),
        ("quantize", {"weight_bits": bits, "activation_bits": 8}),
    )


def policy(table: LayerTable, parts: Iterable[Part]) -> Policy:
    """These settings on all inner groups (with one producer, so no residual stream) and on all layers of the right
    kind but the first and the last.
    """
    values: dict[Site, Value] = {}
    for name, settings in parts:
        info = OPERATORS[name]
        inner = [layer for layer in table.layers[1:-1] if not info.kinds or layer.kind in info.kinds]
        scopes = {
            "group": [group.name for group in table.groups if len(group.producers) == 1],
            "block": [block.name for block in table.blocks][::3],
            "layer": [layer.name for layer in inner],
        }
        targets = scopes[info.scope]
        values |= {Site(name, target, key): value for target in targets for key, value in settings.items()}
    return Policy(values)


def seconds_to_apply(state: Compression, chosen: Policy, order: tuple[str, ...], rounds: int = ROUNDS) -> float:
    """Median time of ``compress``, one thread, without the first, which may compute facts of the original."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        compress(state, chosen, order)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def measured(evaluator: NetworkEvaluator, row: Row) -> list[str]:
    """The cells of a row."""
    chosen = policy(evaluator.table, row.parts)
    start = time.perf_counter()
    try:
        compress(evaluator.original(), chosen, row.order)
    except CompressionError as error:  # a peer that is not installed
        return [row.label, str(error), *[""] * 5]
    first = time.perf_counter() - start
    metrics = evaluator.evaluate(chosen, 0, lambda step, value: True).metrics
    shown = [f"{metrics['top1']:.4f}", f"{metrics['macs']:,.0f}", f"{metrics['params']:,.0f}"]
    shown.append(f"{metrics['size_bytes']:,.0f}")
    again = seconds_to_apply(evaluator.original(), chosen, row.order, rounds=3)
    return [row.label, *shown, f"{first:.2f}", f"{again:.3f}"]


def resnet56() -> str:
    """The time of a whole policy on ResNet-56."""
    model = load_model(ModelSpec("resnet56", {"shortcut": "A"}))
    inputs = torch.randn(256, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = trace(model, inputs[:2])
    state = Compression(model, model, found, inputs)
    cells = []
    for activation_bits in (32, 8):
        bits = {"weight_bits": 4, "activation_bits": activation_bits}
        chosen = policy(found.table, (("quantize", bits),))
        chosen = Policy({**chosen, **{Site("prune", g.name, "prune_ratio"): 0.5 for g in found.table.groups}})
        cells.append(f"{1000 * seconds_to_apply(state, chosen, ORDER):.0f} ms")
    groups, layers = len(found.table.groups), len(found.table.layers) - 2
    return (
        f"ResNet-56, prune 0.5 on all {groups} groups and 4-bit weights on {layers} layers: {cells[0]} a policy. With "
        f"8-bit inputs, whose ranges come from what the original reads on {len(inputs)} inputs (found once): "
        f"{cells[1]}. Medians of {ROUNDS}, one thread."
    )


def main(arguments: list[str]) -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=2000, help="inputs of the search split")
    parser.add_argument("--only", default="", help="rows whose label contains this; nothing is written then")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    # What the operators do by themselves: no refit of the layers that read pruned channels.
    evaluator = prepare(cifar(f"data.settings.search_limit={given.inputs}", "evaluator.settings.reconstruct=none"))
    found = []
    for row in rows():
        if given.only in row.label:
            found.append(measured(evaluator, row))
            print(*found[-1], sep="  ", flush=True)
    if not given.only:
        head = ["setting", "top1", "MACs", "params", "size_bytes", "first s", "apply s"]
        publish(HERE / "operators.md", table(head, found), resnet56())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
