"""Proposers on an imaginary network whose true front is known: what they are short of it, over evaluations.

    python experiments/benchmarks/proposers/landscape.py [--trials 200] [--seeds 0 1 2 3 4] [--methods ddpg random]

The landscape (evaluation/synthetic.py) has 12 layers; channels, weight bits and input bits are searched, top1 against
stored bytes. Damage is a sum over layers, so the front follows from dynamic programming (evaluation/known_front.py).
Regret is the share of the box below the original that the true front covers and the search does not. Every method has
the sensitivity table that it asks for, and starts from nothing else. Takes minutes; written to ``landscape.md`` and
``landscape.png``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from asking import OBJECTIVES, landscape
from common import publish, table
from contest import HERE
from scoreboard import picture, rows

from automc.app.study import built
from automc.core.metrics import Measurement
from automc.core.pareto import covered
from automc.core.policy import Policy
from automc.core.regret import Curve, covered_curve
from automc.core.search import Search
from automc.core.study import Budget, ModelSpec, Part, StudySpec, Workers
from automc.core.trial import Trial, TrialState
from automc.evaluation.known_front import known_front
from automc.stores.memory import MemoryStore
from automc.workers.inline import InlineExecutor

METHODS = (
    "portfolio",
    "allocate",
    "evolve",
    "ddpg",
    "nsga2",
    "nsga3",
    "tpe",
    "gp",
    "greedy",
    "cluster",
    "qmc",
    "random",
)
LAYERS, PRECISION = 12, 1e-3
SHOWN = (10, 20, 40, 100, 200)


def searched(method: str, seed: int, trials: int) -> list[Trial]:
    """One search of the landscape."""
    evaluator, space = landscape(LAYERS)
    model, data = ModelSpec("synthetic"), Part("synthetic")
    spec = StudySpec(
        "landscape", model, data, (), space.order, OBJECTIVES, proposer=Part(method), seed=seed, budget=Budget(trials),
        workers=Workers(0, window=1),
    )  # fmt: skip
    store = MemoryStore()
    store.create(spec, {})
    Search(spec, space, built(spec, space), InlineExecutor(evaluator), store).run()
    return list(store.trials(spec.name))


def optimum() -> float:
    """The share of the box that the true front covers."""
    evaluator, space = landscape(LAYERS)
    pairs = known_front(evaluator, space, "size_ratio", PRECISION)
    ideal = [
        Trial(n, Policy({}), state=TrialState.COMPLETE, measurement=Measurement({"top1": top1, "size_ratio": cost}))
        for n, (top1, cost) in enumerate(pairs.tolist())
    ]
    return covered(ideal, OBJECTIVES, (), dict(evaluator.baseline))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    best, found = optimum(), dict[str, list[Curve]]()
    baseline = landscape(LAYERS)[0].baseline
    for method in given.methods:
        found[method] = [
            covered_curve(searched(method, seed, given.trials), OBJECTIVES, (), baseline).regret(best)
            for seed in given.seeds
        ]
        print(method, " | ".join(rows({method: found[method]}, SHOWN)[0][1:]), flush=True)
    picture(HERE / "landscape.png", found, "share of the box that is missed")
    note = f"The true front covers {best:.4f} of the box."
    publish(HERE / "landscape.md", table(["regret after", *map(str, SHOWN)], rows(found, SHOWN)), note)
    return 0


if __name__ == "__main__":
    sys.exit(main())
