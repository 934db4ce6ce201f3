"""Predicted against measured latency over random policies, and promised against written bytes.

    python experiments/benchmarks/evaluator/latency.py [--policies 30] [--bytes 10] [--seed 0]

For ResNet-20 (CIFAR-10) and digits_net: builds the latency table of this machine, predicts random policies (a pruning
ratio for every group; weight and activation bits for every layer), measures them all in turn, and compares. Then ten
random joint policies of ResNet-20 with every operator: the size that the evaluator promises, and the length of the
file that export writes. Prints Markdown, and writes it to ``latency.md`` beside this file with machine and versions.
Needs the shared weights and pictures that experiments/cifar10_resnet20 names.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import nn

from automc.app.config import read_study
from automc.core.layers import LayerTable
from automc.core.metrics import Objective
from automc.core.policy import Policy, Site, Value
from automc.core.study import ModelSpec, Part, Rung, StudySpec
from automc.evaluation.evaluator import NetworkEvaluator, prepare
from automc.evaluation.lookup import Lookup, compressed, device_name
from automc.evaluation.timing import LatencySettings, onnx_bytes, time_networks, tools
from automc.export import packed
from automc.measure.walk import walk
from automc.operators import ORDER

HERE = Path(__file__).resolve().parent
STUDY = HERE.parents[1] / "cifar10_resnet20" / "study.yaml"
ROUNDS = 60
"""Timed runs of each network; the median counts."""

FORMATS = ("symmetric", "asymmetric", "codebook", "ternary", "power_of_two")


def resnet20() -> StudySpec:
    """The study whose network is compressed, with as few pictures as its data needs."""
    changes = ["data.settings.search_limit=100", "data.settings.calibration=64"]
    return read_study(STUDY, changes).spec


def digits() -> StudySpec:
    """Likewise of the bundled network."""
    data = Part("digits", {"search_limit": 100, "calibration": 64})
    return StudySpec("digits", ModelSpec("digits_net"), data, (), ORDER, (Objective("top1"),))


def predicting(spec: StudySpec) -> NetworkEvaluator:
    """Its evaluator, with a latency table measured now."""
    objectives = (Objective("top1"), Objective("latency_predicted_ms"))
    changes = {"order": ("prune", "quantize"), "orders": (), "constraints": (), "rungs": (Rung(0),)}
    return prepare(replace(spec, objectives=objectives, evaluator=Part("network"), **changes))


def pruned_and_rounded(table: LayerTable, rng: np.random.Generator) -> Policy:
    """A ratio for every group, bits for every layer; every policy has its own mean of both."""
    most, share = rng.uniform(0.1, 0.9), rng.uniform(0.0, 1.0)
    values: dict[Site, Value] = {
        Site("prune", group.name, "prune_ratio"): float(rng.uniform(0, most)) for group in table.groups
    }
    for layer in table.layers:
        values[Site("quantize", layer.name, "weight_bits")] = int(rng.choice((32, 8, 4)))
        values[Site("quantize", layer.name, "activation_bits")] = (
            int(rng.choice((8, 4))) if rng.random() < share else 32
        )
    return Policy(values)


def joint(table: LayerTable, rng: np.random.Generator) -> Policy:
    """Every operator somewhere, every format of weights somewhere."""
    values: dict[Site, Value] = {
        Site("prune", group.name, "prune_ratio"): float(rng.uniform(0, 0.7)) for group in table.groups
    }
    values |= {Site("drop", block.name, "dropped"): bool(rng.random() < 0.15) for block in table.blocks}
    for layer in table.layers:
        if rng.random() < 0.3 and layer.kind in ("conv", "linear"):
            values[Site("factorize", layer.name, "rank_ratio")] = float(rng.uniform(0.2, 0.8))
            continue
        if rng.random() < 0.6:
            values[Site("sparsify", layer.name, "sparsity")] = float(rng.uniform(0.2, 0.9))
            values[Site("sparsify", layer.name, "pattern")] = str(rng.choice(("unstructured", "block_1x4", "2:4")))
        form = str(rng.choice(FORMATS))
        bits = 2 if form == "ternary" else int(rng.choice((1, 2, 3, 4, 6, 8, 32) if form == "symmetric" else (3, 4, 6)))
        values[Site("quantize", layer.name, "weight_format")] = form
        values[Site("quantize", layer.name, "weight_bits")] = bits
        values[Site("quantize", layer.name, "activation_bits")] = int(rng.choice((32, 8, 4)))
    return Policy(values)


def compared(evaluator: NetworkEvaluator, policies: list[Policy]) -> np.ndarray:
    """Milliseconds of each policy: predicted, measured at the table's pace, and measured as it is now; the original,
    the empty policy, is the first row.
    """
    lookup, state, example = evaluator.stopwatch.lookup, evaluator.original(), evaluator.example
    assert isinstance(lookup, Lookup)
    networks: list[nn.Module] = [
        compressed(state.model, evaluator._trace, example, policy) for policy in (Policy({}), *policies)
    ]
    predicted = [lookup(walk(network, example)) for network in networks]
    files = [onnx_bytes(network, example) for network in networks]
    shape = tuple(example.shape[1:])
    # Measured as the table was: at its pace, so that a machine that is slower now than then does not count.
    at_pace = tools(example, LatencySettings()).networks(lookup.table.rows, files, 1)
    now = [found.median for found in time_networks(files, shape, ROUNDS, 1)]
    return np.column_stack([predicted, at_pace, now])


def report(name: str, rows: np.ndarray, seconds: float, layers: int) -> list[str]:
    """A row of the table for each way to measure."""
    cells = []
    relative = rows / rows[0]
    ways = {
        "ms at the table's pace": rows[1:, [0, 1]],
        "ms now": rows[1:, [0, 2]],
        "ratio to the original now": relative[1:, [0, 2]],
    }
    for label, (predicted, measured) in ((label, pair.T) for label, pair in ways.items()):
        errors = np.abs(predicted / measured - 1)
        ranks = [np.argsort(np.argsort(column)) for column in (predicted, measured)]
        found = [f"{np.median(errors):.1%}", f"{np.quantile(errors, 0.9):.1%}", f"{np.corrcoef(*ranks)[0, 1]:.3f}"]
        spread = f"{measured.min():.3f} to {measured.max():.3f}"
        cells.append(
            "| " + " | ".join([name, label, str(len(measured)), spread, *found, f"{seconds:.0f}", str(layers)]) + " |"
        )
    return cells


def promised_and_written(spec: StudySpec, count: int, seed: int, folder: Path) -> list[str]:
    """A row for each joint policy."""
    evaluator = prepare(replace(spec, order=ORDER, orders=(), constraints=(), evaluator=Part("network")))
    rng, rows = np.random.default_rng(seed), []
    for i in range(count):
        policy = joint(evaluator.table, rng)
        promised = evaluator.evaluate(policy, 0, lambda step, value: True).metrics["size_bytes"]
        path = folder / "model.safetensors"
        path.write_bytes(packed.dumps(evaluator.build(policy, 0), evaluator.example))
        written = path.stat().st_size
        rows.append(f"| {i} | {promised:,.0f} | {written:,} | {'equal' if promised == written else 'DIFFERENT'} |")
        path.unlink()
    return rows


def machine() -> str:
    """Where this ran."""
    names = ("automc", "torch", "numpy", "onnxruntime")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    return f"{device_name()}; {os.cpu_count()} CPUs, Python {platform.python_version()}, {versions}."


def main(arguments: list[str]) -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policies", type=int, default=30, help="random policies of each network")
    parser.add_argument("--bytes", type=int, default=10, help="joint policies whose files are written; 0 for none")
    parser.add_argument("--seed", type=int, default=1, help="of the policies")
    parser.add_argument("--only", default="", help="a network whose name contains this; nothing is written then")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    head = [
        "network",
        "measured",
        "policies",
        "from, to",
        "median error",
        "90 % error",
        "rank correlation",
        "table s",
        "rows",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    print("\n".join(lines), flush=True)
    for name, spec in (("ResNet-20", resnet20()), ("digits_net", digits())):
        if given.only.lower() not in name.lower():
            continue
        start = time.perf_counter()
        evaluator = predicting(spec)
        seconds = time.perf_counter() - start
        rng = np.random.default_rng(given.seed)
        rows = compared(evaluator, [pruned_and_rounded(evaluator.table, rng) for _ in range(given.policies)])
        lookup = evaluator.stopwatch.lookup
        found = report(name, rows, seconds, len(lookup.table.rows) if lookup else 0)
        print("\n".join(found), flush=True)
        lines += found
    if given.bytes:
        found = ["", "| joint policy | promised bytes | written bytes | |", "|---|---|---|---|"]
        found += promised_and_written(resnet20(), given.bytes, given.seed, HERE)
        print("\n".join(found))
        lines += found
    print(f"\n{machine()}")
    if not given.only:
        (HERE / "latency.md").write_text("\n".join([*lines, "", machine(), ""]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
