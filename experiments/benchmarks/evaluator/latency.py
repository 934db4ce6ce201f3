"""Predicted against measured latency over random policies.

    python experiments/benchmarks/evaluator/latency.py [--policies 30] [--seeds 1 2 3]

For ResNet-20 (CIFAR-10) and digits_net: builds the latency table of this machine, predicts random policies (a pruning
ratio for every group; weight and activation bits for every layer), measures them all in turn, and compares, for each
seed with a table measured anew. Prints Markdown, and writes it to ``latency.md`` beside this file with machine and
versions. Needs the shared weights and pictures that experiments/cifar10_resnet20 names.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import STUDY, publish

from automc.app.config import read_study
from automc.core.layers import LayerTable
from automc.core.metrics import Objective
from automc.core.policy import Policy, Site, Value
from automc.core.study import ModelSpec, Part, Rung, StudySpec
from automc.evaluation.evaluator import NetworkEvaluator, prepare
from automc.evaluation.lookup import Lookup, compressed, device_name
from automc.evaluation.timing import LatencySettings, onnx_bytes, time_networks, tools
from automc.measure.walk import walk
from automc.operators import ORDER

HERE = Path(__file__).resolve().parent
ROUNDS = 60
"""Timed runs of each network; the median counts."""


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


def report(name: tuple[str, str], rows: np.ndarray, seconds: float, layers: int) -> list[str]:
    """A row of the table for each way to measure.

    Args:
        name: the network and the seed.
    """
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
            "| " + " | ".join([*name, label, str(len(measured)), spread, *found, f"{seconds:.0f}", str(layers)]) + " |"
        )
    return cells


def main(arguments: list[str]) -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policies", type=int, default=30, help="random policies of each network")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the policies; each its own table")
    parser.add_argument("--only", default="", help="a network whose name contains this; nothing is written then")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    head = [
        "network",
        "seed",
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
        for seed in given.seeds if given.only.lower() in name.lower() else ():
            start = time.perf_counter()
            evaluator = predicting(spec)
            seconds = time.perf_counter() - start
            rng = np.random.default_rng(seed)
            rows = compared(evaluator, [pruned_and_rounded(evaluator.table, rng) for _ in range(given.policies)])
            lookup = evaluator.stopwatch.lookup
            found = report((name, str(seed)), rows, seconds, len(lookup.table.rows) if lookup else 0)
            print("\n".join(found), flush=True)
            lines += found
    if not given.only:
        publish(HERE / "latency.md", "\n".join(lines), f"Device: {device_name()}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
