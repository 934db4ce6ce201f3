"""Channels, weight bits and input bits at once, or one after the other: ResNet-20, rung 0, fronts over evaluations.

    python experiments/benchmarks/proposers/joint.py [--trials 40] [--seeds 0 1 2] [--methods portfolio sequential]

Two studies: top1 against stored bytes (up to a tenth of the original's), and against BOPs (up to a twentieth).
Reported: the share of the box under each front, after evaluations and after seconds, and the best top1 at 5 % of the
bytes and at 2 % of the BOPs. *sequential* is AMC to half of the MACs with half of 40 evaluations, then HAQ, whatever
--trials; *sequential_200* the same of 200. Rows go to ``joint_bytes/`` and ``joint_bops/`` as they come; the tables are
written to ``joint.md``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import publish, table
from contest import HERE, Contest, Method, Setup
from scoreboard import arguments, compete, curves, picture, rows
from sequential import Sequential

from automc.core.metrics import Constraint, Objective
from automc.core.regret import Curve, best_curve, covered_curve
from automc.core.trial import Trial

BOX = {"size_ratio": 0.1, "bops_ratio": 0.05}
"""Where it ends: every policy costs at most so much."""

POINT = {"size_ratio": 0.05, "bops_ratio": 0.02}
NAMES = {"size_ratio": "joint_bytes", "bops_ratio": "joint_bops"}
PIPELINES = {"sequential": 40, "sequential_200": 200}
"""Evaluations of both halves."""

METHODS = tuple(map(Method.of, ("portfolio", *PIPELINES, "ddpg", "allocate", "evolve", "nsga2", "tpe", "random")))
SHOWN = (10, 20, 40, 100, 200)
SECONDS = (10, 20, 30, 40)


def setup_of(cost: str) -> Setup:
    """The study of one cost."""
    changes = (f"objectives={{top1: maximize, {cost}: minimize}}", f"constraints=[{cost} <= {BOX[cost]}]")
    return Setup(NAMES[cost], "joint.yaml", changes)


def run(setup: Setup, method: Method, seed: int, trials: int) -> None:
    """As scoreboard.run; the pipeline is no proposer of the catalogue."""
    torch.set_num_threads(1)
    contest = Contest(setup)
    own = None
    if method.name in PIPELINES:
        trials = PIPELINES[method.name]
        own = Sequential(replace(contest.spec, seed=seed), contest.space, trials)
        method = Method(method.name, contest.spec.proposer)
    contest.run(method, seed, trials, own)


def _covered(
    objectives: Sequence[Objective], constraints: Sequence[Constraint], box: dict[str, float], trials: list[Trial]
) -> Curve:
    return covered_curve(trials, objectives, constraints, box)


def main() -> int:
    given = arguments(__doc__, METHODS, 40)
    paragraphs = []
    for cost in BOX:
        setup = setup_of(cost)
        compete(setup, METHODS, given, run)
        objectives, constraints = setup.spec().objectives, setup.spec().constraints
        fronts = curves(setup, METHODS, partial(_covered, objectives, constraints, {cost: BOX[cost]}))
        point = (Constraint(cost, "<=", POINT[cost]),)
        points = curves(setup, METHODS, partial(best_curve, objective=objectives[0], constraints=point))
        picture(HERE / f"{setup.name}.png", fronts, f"share of the box covered, {cost} up to {BOX[cost]:g}")
        paragraphs += [
            table([f"share of the box, {cost}, after evaluations", *map(str, SHOWN)], rows(fronts, SHOWN)),
            table(["the same, after seconds", *map(str, SECONDS)], rows(fronts, SECONDS, "seconds")),
            table([f"best top1 at {cost} {POINT[cost]:g}, after", *map(str, SHOWN)], rows(points, SHOWN)),
        ]
    publish(HERE / "joint.md", *paragraphs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
