"""Proposers on an imaginary network whose true front is known: what they are short of it, over evaluations.

    python experiments/benchmarks/proposers/landscape.py [--trials 200] [--seeds 0 1 2] [--methods ddpg random]

The landscape (evaluation/synthetic.py) has 12 layers; channels, weight bits and input bits are searched, top1 against
stored bytes. Damage is a sum over layers, so the front follows from dynamic programming (evaluation/known_front.py).
Regret is the share of the box below the original that the true front covers and the search does not. Every method has
the sensitivity table that it asks for, and starts from nothing else. Rows go to ``landscape/`` as they come; the table
and the picture are written to ``landscape.md`` and ``landscape.png``.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from asking import landscape
from common import publish, table
from contest import HERE, Method, Setup
from scoreboard import arguments, compete, curves, picture, rows

from automc.core.metrics import Measurement
from automc.core.pareto import covered
from automc.core.policy import Policy
from automc.core.regret import Curve, covered_curve
from automc.core.trial import Trial, TrialState
from automc.evaluation.known_front import known_front

SETUP = Setup("landscape", "landscape.yaml")
NAMES = "portfolio allocate evolve ddpg nsga2 nsga3 tpe gp greedy cluster filter qmc random"
METHODS = tuple(map(Method.of, NAMES.split()))
LAYERS, PRECISION = 12, 1e-3
SHOWN = (10, 20, 40, 100, 200)


def main() -> int:
    given = arguments(__doc__, METHODS, 200)
    compete(SETUP, METHODS, given)
    evaluator, space = landscape(LAYERS)
    objectives, baseline = SETUP.spec().objectives, dict(evaluator.baseline)
    ideal = [
        Trial(n, Policy({}), state=TrialState.COMPLETE, measurement=Measurement({"top1": top1, "size_ratio": cost}))
        for n, (top1, cost) in enumerate(known_front(evaluator, space, "size_ratio", PRECISION).tolist())
    ]
    best = covered(ideal, objectives, (), baseline)

    def regret(trials: list[Trial]) -> Curve:
        return covered_curve(trials, objectives, (), baseline).regret(best)

    found = curves(SETUP, METHODS, regret)
    picture(HERE / "landscape.png", found, "share of the box that is missed", "log")
    note = f"The true front covers {best:.4f} of the box."
    publish(HERE / "landscape.md", table(["regret after", *map(str, SHOWN)], rows(found, SHOWN)), note)
    return 0


if __name__ == "__main__":
    sys.exit(main())
