"""Temperature and weight of the distillation: searched, against fixed ones, against none. ResNet-20, 30 % of the MACs.

    python experiments/benchmarks/proposers/distillation.py [--trials 20] [--seeds 0 1 2] [--methods searched fixed]

Each repair has 150 steps. *searched* asks TPE for so many pairs, each repaired and measured on the search split, and
takes the best; *fixed* is temperature 4 and weight 0.9, *none* no distillation. What each ends with is then repaired
anew under another seed and measured on the test split, so that the luck of the best of many does not count. Rows go to
``distillation.csv`` as they come; the table is written to ``distillation.md``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import Results, publish, table
from contest import HERE, Setup

from automc.app.study import built, prepared
from automc.core.policy import Policy, Site
from automc.core.rules import resolve
from automc.core.search import Search
from automc.core.space import SearchSpace
from automc.core.study import Budget, StudySpec
from automc.evaluation.evaluator import NetworkEvaluator
from automc.operators import OPERATORS
from automc.stores.memory import MemoryStore
from automc.workers.inline import InlineExecutor

SETUP = Setup("distillation", "distillation.yaml")
METHODS = ("none", "fixed", "searched")
TEMPERATURE, ALPHA = (Site("distill", "*", name) for name in ("kd_temperature", "kd_alpha"))
FIXED = {"none": (1.0, 0.0), "fixed": (4.0, 0.9)}
ANEW = 1000
"""Added to a seed for the last repair."""


def parts(spec: StudySpec) -> tuple[NetworkEvaluator, SearchSpace]:
    """The evaluator under the study's seed, and the space."""
    evaluator = prepared(spec, {}, lambda device: {})
    return evaluator, resolve(spec.rules, spec.order, evaluator.table, OPERATORS, spec.orders)


def chosen(method: str, spec: StudySpec) -> Policy:
    """What a method ends with."""
    evaluator, space = parts(spec)
    if method in FIXED:
        return space.policy(dict(zip((TEMPERATURE, ALPHA), FIXED[method], strict=True)))
    store = MemoryStore()
    store.create(spec, {})
    Search(spec, space, built(spec, space), InlineExecutor(evaluator), store).run()
    done = [t for t in store.trials(spec.name) if t.measurement]
    return max(done, key=lambda t: t.measurement.metrics["top1"] if t.measurement else 0.0).policy


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    results = Results(HERE / "distillation.csv", ("method", "seed", "trials"))
    for seed in given.seeds:
        for method in given.methods:
            trials = given.trials if method == "searched" else 0
            if results.has(method=method, seed=seed, trials=trials):
                continue
            spec = replace(SETUP.spec(), seed=seed, budget=Budget(given.trials))
            policy = chosen(method, spec)
            evaluator, _ = parts(replace(spec, seed=seed + ANEW))
            model = evaluator.build(policy, 0)
            found = {split: evaluator.measure(model, split)["top1"] for split in ("search", "test")}
            pair = {"kd_temperature": f"{policy[TEMPERATURE]:.3g}", "kd_alpha": f"{policy[ALPHA]:.3g}"}
            scores = {name: f"{value:.4f}" for name, value in found.items()}
            results.add({"method": method, "seed": seed, "trials": trials, **pair, **scores})
            print(results.rows[-1], flush=True)
    rows = []
    for method in METHODS:
        own = [row for row in results.rows if row["method"] == method]
        tests, searches = ([float(row[split]) for row in own] for split in ("test", "search"))
        if own:
            pairs = "; ".join(f"{row['kd_temperature']}, {row['kd_alpha']}" for row in own)
            spread = f"{statistics.mean(tests):.4f} ({min(tests):.4f} to {max(tests):.4f})"
            rows.append([method, str(len(own)), pairs, f"{statistics.mean(searches):.4f}", spread])
    head = ["distillation", "seeds", "temperature, weight", "top1, search split", "top1, test split"]
    publish(HERE / "distillation.md", table(head, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
