"""Half of ResNet-20's MACs, channels only, rung 0: best top1 against evaluations, for every proposer.

    python experiments/benchmarks/proposers/pruning.py [--trials 40] [--seeds 0 1 2] [--methods allocate amc]

Rows go to ``pruning/METHOD-SEED.csv`` as they come, and a run that ended is taken up again; the table is written to
``pruning.md``, the curves to ``pruning.png``. With ``--trials 0`` table and picture only.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import publish, table
from contest import HERE, Method, Setup
from scoreboard import arguments, compete, curves, picture, rows

from automc.core.regret import best_curve

SETUP = Setup("pruning", "pruning.yaml")
METHODS = (
    Method.of("portfolio"),
    Method.of("amc"),
    Method.of("allocate"),
    Method.of("evolve"),
    Method.of("ddpg"),
    Method.of("greedy"),
    Method.of("cluster"),
    Method.of("tpe"),
    Method.of("nsga2"),
    Method.of("gp"),
    Method.of("random"),
    Method.of("uniform"),
)
SHOWN = (10, 20, 40, 100, 200, 400)


def main() -> int:
    given = arguments(__doc__, METHODS, 40)
    compete(SETUP, METHODS, given)
    spec = SETUP.spec()
    found = curves(SETUP, METHODS, lambda trials: best_curve(trials, spec.objectives[0], spec.constraints))
    picture(HERE / "pruning.png", found, "best top1, 1,000 search inputs")
    publish(HERE / "pruning.md", table(["best top1 after", *map(str, SHOWN)], rows(found, SHOWN)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
