"""Does rung 0 rank policies as training does? Random policies at equal MACs on ResNet-20, at three rungs.

    python experiments/benchmarks/evaluator/ranking.py [--policies 24] [--processes 2]

Every policy prunes the inner channels of each block by a share of its own, 50 % of the MACs in all. Each is measured at
rung 0 (batch norm alone, and with the refit), after a short and after a longer distilled repair. Results go to
``ranking.csv`` as they come; correlations and a table to ``ranking.md``.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from scipy.stats import kendalltau, pearsonr

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import Results, cifar, publish, table

from automc.core.layers import LayerTable
from automc.core.policy import Policy, Site, Value
from automc.evaluation.evaluator import NetworkEvaluator, prepare

HERE = Path(__file__).resolve().parent
STEPS = (0, 100, 400)
STAGES = {
    "norms": ("none", 0),
    "refit": ("moments", 0),
    "sequential": ("sequential", 0),
    "rung 1": ("moments", 1),
    "rung 2": ("moments", 2),
}
SHARE, TOLERANCE = 0.5, 0.01
"""Of the original's MACs, and how near a policy must come."""


def policies(table: LayerTable, count: int) -> list[Policy]:
    """Random shares of channels, moved together until the MACs fit; the same for the same count."""
    groups = [group for group in table.groups if len(group.producers) == 1]
    macs = {layer.name: layer.macs for layer in table.layers}
    inner = np.array([sum(macs[name] for name in (*group.producers, *group.consumers)) for group in groups], float)
    generator, found = np.random.default_rng(0), []
    while len(found) < count:
        raw = generator.random(len(groups))
        low, high = -1.0, 1.0
        for _ in range(40):  # the MACs fall as the shift grows
            shift = (low + high) / 2
            ratios = np.clip(raw + shift, 0.0, 0.9)
            low, high = (shift, high) if 1 - (inner @ ratios) / table.macs > SHARE else (low, shift)
        if abs(1 - (inner @ ratios) / table.macs - SHARE) < TOLERANCE:
            values: dict[Site, Value] = {}
            for group, ratio in zip(groups, ratios, strict=True):
                values[Site("prune", group.name, "prune_ratio")] = round(float(ratio), 3)
                values[Site("prune", group.name, "criterion")] = "obs"
            values |= {Site("distill", "*", "kd_temperature"): 4.0, Site("distill", "*", "kd_alpha"): 0.9}
            found.append(Policy(values))
    return found


@cache
def evaluator(reconstruct: str) -> NetworkEvaluator:
    rungs = ", ".join(f"{{steps: {steps}}}" for steps in STEPS)
    return prepare(
        cifar(
            "data.settings.search_limit=5000",
            f"rungs=[{rungs}]",
            f"evaluator.settings.reconstruct={reconstruct}",
            "evaluator.settings.precision=bfloat16",
        )
    )


def run(number: int, count: int, stage: str) -> dict[str, str]:
    torch.set_num_threads(1)
    reconstruct, rung = STAGES[stage]
    found = evaluator(reconstruct)
    policy = policies(found.table, count)[number]
    metrics = found.evaluate(policy, rung, lambda step, value: True).metrics
    return {
        "policy": str(number),
        "stage": stage,
        "macs_ratio": f"{metrics['macs_ratio']:.4f}",
        "top1": f"{metrics['top1']:.4f}",
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policies", type=int, default=24)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args(arguments)
    results = Results(HERE / "ranking.csv", ("policy", "stage"))
    wanted = [(n, stage) for stage in STAGES for n in range(given.policies) if not results.has(policy=n, stage=stage)]
    with ProcessPoolExecutor(given.processes, mp_context=get_context("spawn")) as pool:
        for future in [pool.submit(run, n, given.policies, stage) for n, stage in wanted]:
            results.add(future.result())
            print(future.result(), flush=True)
    top1 = {
        stage: np.array(
            [float(r["top1"]) for r in sorted(results.rows, key=lambda r: int(r["policy"])) if r["stage"] == stage]
        )
        for stage in STAGES
    }
    pairs = [(a, b) for i, a in enumerate(STAGES) for b in list(STAGES)[i + 1 :]]
    rows = [
        [f"{a} to {b}", f"{kendalltau(top1[a], top1[b]).statistic:.2f}", f"{pearsonr(top1[a], top1[b]).statistic:.2f}"]
        for a, b in pairs
    ]
    ranges = ", ".join(f"{stage} {values.min():.3f} to {values.max():.3f}" for stage, values in top1.items())
    publish(
        HERE / "ranking.md",
        f"{given.policies} random policies at {SHARE:.0%} of the MACs; rung 1 trains {STEPS[1]} steps, rung 2 "
        f"{STEPS[2]}; 5,000 inputs of the search split.",
        table(["from ... to", "Kendall", "Pearson"], rows),
        f"top1: {ranges}.",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
