"""What each stage of the evaluator gives back: uniform pruning, uniform bits, and both, on ResNet-20.

    python experiments/benchmarks/evaluator/repair.py [--minutes 60] [--processes 2]

Rung 0 without anything, with batch norm recalibrated, with the consumers' weights refitted (from cached moments, and in
sequence), then after one and three epochs of distilled repair; beside it pruning by l1 norms and plain fine-tuning (no
refit, no teacher) for the same steps, where anything is pruned; training multiplies in bfloat16. Results go to
``repair.csv`` as they come: a run that ends early, or is ended by --minutes, is taken up again by the next. The table
is written to ``repair.md``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import Results, cifar, publish, table

from automc.core.layers import LayerTable
from automc.core.policy import Policy, Site, Value
from automc.evaluation.evaluator import NetworkEvaluator, prepare
from automc.operators.base import compress

HERE = Path(__file__).resolve().parent
EPOCH = 703
"""Steps of 64 inputs: the 45,000 inputs of the train split once."""
KEY = ("config", "stage", "seed")


@dataclass(frozen=True)
class Config:
    """Uniform compression: share of every block's inner channels that goes, and bits of weights (inputs have 8)."""

    prune: float
    bits: int

    @property
    def name(self) -> str:
        parts = [f"{round(100 * (1 - self.prune))} % MACs"] * (self.prune > 0) + [f"{self.bits} bits"] * (
            self.bits < 32
        )
        return " + ".join(parts)

    def policy(self, table: LayerTable, criterion: str, distilled: bool) -> Policy:
        values: dict[Site, Value] = {}
        for group in table.groups:
            if self.prune and len(group.producers) == 1:
                values[Site("prune", group.name, "prune_ratio")] = self.prune
                values[Site("prune", group.name, "criterion")] = criterion
        for layer in table.layers if self.bits < 32 else ():
            first_or_last = layer.index in (0, len(table.layers) - 1)
            values[Site("quantize", layer.name, "weight_bits")] = 8 if first_or_last else self.bits
            values[Site("quantize", layer.name, "activation_bits")] = 8
        if distilled:
            values |= {Site("distill", "*", "kd_temperature"): 4.0, Site("distill", "*", "kd_alpha"): 0.9}
        return Policy(values)


CONFIGS = (
    Config(0.5, 32),
    Config(0.0, 4),
    Config(0.5, 4),
    Config(0.3, 32),
    Config(0.7, 32),
    Config(0.0, 8),
    Config(0.0, 6),
    Config(0.0, 3),
    Config(0.3, 6),
    Config(0.7, 3),
)
STAGES = {
    "plain": ("l1", "none", 0),
    "norms": ("l1", "none", 0),
    "refit": ("obs", "moments", 0),
    "sequential": ("obs", "sequential", 0),
    "distilled 1": ("obs", "moments", 1),
    "distilled 3": ("obs", "moments", 3),
    "fine-tuned 1": ("l1", "none", 1),
    "fine-tuned 3": ("l1", "none", 3),
}
"""Criterion, reconstruction, epochs."""


@dataclass(frozen=True)
class Job:
    config: int
    stage: str
    seed: int

    @property
    def key(self) -> dict[str, str]:
        return {"config": CONFIGS[self.config].name, "stage": self.stage, "seed": str(self.seed)}


def jobs() -> list[Job]:
    """In order of worth: rung 0 first, then one epoch of everything, seeds of the first three, three epochs."""
    early = [Job(c, s, 0) for c in range(len(CONFIGS)) for s in STAGES if not STAGES[s][2]]
    one, three = ([s for s in STAGES if STAGES[s][2] == epochs] for epochs in (1, 3))
    late = [Job(c, s, 0) for c in range(len(CONFIGS)) for s in one]
    late += [Job(c, s, seed) for seed in (1, 2) for c in range(3) for s in one]
    late += [Job(c, s, seed) for seed in (0, 1, 2) for c in range(3) for s in three]
    late += [Job(c, s, seed) for seed in (1, 2) for c in range(3, len(CONFIGS)) for s in one]
    late += [Job(c, s, seed) for seed in (0, 1, 2) for c in range(3, len(CONFIGS)) for s in three]
    return [job for job in early + late if CONFIGS[job.config].prune or not job.stage.startswith("fine-tuned")]


@cache
def evaluator(reconstruct: str, seed: int) -> NetworkEvaluator:
    spec = cifar(
        "data.settings.search_limit=5000",
        f"rungs=[{{steps: 0}}, {{steps: {EPOCH}}}, {{steps: {3 * EPOCH}}}]",
        f"seed={seed}",
        f"evaluator.settings.reconstruct={reconstruct}",
        "evaluator.settings.precision=bfloat16",
    )
    return prepare(spec)


def run(job: Job) -> dict[str, str]:
    """One cell of the table, one thread."""
    torch.set_num_threads(1)
    criterion, reconstruct, epochs = STAGES[job.stage]
    found = evaluator(reconstruct, job.seed)
    distilled = job.stage.startswith("distilled")
    policy = CONFIGS[job.config].policy(found.table, criterion, distilled)
    start = time.perf_counter()
    if job.stage == "plain":
        model = compress(found.original(), policy, ("prune", "quantize")).model
    else:
        model = found.build(policy, (0, 1, 3).index(epochs))
    seconds = time.perf_counter() - start
    search, test = (found.measure(model, split) for split in ("search", "test"))
    return {
        **job.key,
        "macs_ratio": f"{search['macs_ratio']:.4f}",
        "search": f"{search['top1']:.4f}",
        "test": f"{test['top1']:.4f}",
        "seconds": f"{seconds:.1f}",
    }


def cell(results: Results, config: Config, stage: str, split: str) -> str:
    """Mean and, of several seeds, half the range."""
    rows = [row for row in results.rows if row["config"] == config.name and row["stage"] == stage]
    values = [float(row[split]) for row in rows]
    if not values:
        return ""
    spread = f" ± {(max(values) - min(values)) / 2:.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def shown(results: Results) -> list[str]:
    """Both tables: on the search split, and on test."""
    ordered = sorted(CONFIGS, key=lambda c: (c.prune > 0, c.bits < 32, c.prune, -c.bits))
    tables = []
    for split, count in (("search", "5,000 inputs of the search split"), ("test", "10,000 inputs of the test split")):
        rows = [[c.name, *(cell(results, c, stage, split) for stage in STAGES)] for c in ordered]
        tables.append(f"top1 on the {count}:\n\n{table(['uniform', *STAGES], rows)}")
    return tables


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0, help="no new cell is begun after so many; 0: table only")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args(arguments)
    results = Results(HERE / "repair.csv", KEY)
    waiting = [job for job in jobs() if not results.has(**job.key)][::-1]
    end = time.monotonic() + 60 * given.minutes
    running: set[Future[dict[str, str]]] = set()
    with ProcessPoolExecutor(given.processes, mp_context=get_context("spawn")) as pool:
        while True:
            while waiting and len(running) < given.processes and time.monotonic() < end:
                running.add(pool.submit(run, waiting.pop()))
            if not running:
                break
            done = next(as_completed(running))
            running.remove(done)
            results.add(done.result())
            print(done.result(), flush=True)
    left = f"{len(waiting)} cells are not measured yet." if waiting else "Every cell is measured."
    publish(HERE / "repair.md", *shown(results), left)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
