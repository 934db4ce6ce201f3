"""Bits of weights within two budgets of bytes, ResNet-20, rung 0: best top1 against evaluations.

    python experiments/benchmarks/proposers/bits.py [--trials 30] [--seeds 0 1 2] [--methods allocate haq]

A bound is the size of the packed file of uniform bits (first and last layer 8 bits). Rows go to ``bits4/`` and
``bits3/`` as they come; the tables are written to ``bits.md``.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import publish, table
from contest import HERE, Method, Setup
from scoreboard import arguments, compete, curves, rows

from automc.core.regret import best_curve

BYTES = {"4": 121_519, "3": 91_595}
SETUPS = {bits: Setup(f"bits{bits}", "bits.yaml", (f"constraints=[size_bytes <= {BYTES[bits]}]",)) for bits in BYTES}
METHODS = (
    Method.of("portfolio"),
    Method.of("haq"),
    Method.of("allocate"),
    Method("hawq", Method.of("allocate", measure="trace").proposer),
    Method.of("evolve"),
    Method.of("tpe"),
    Method.of("random"),
    Method.of("uniform"),
)
SHOWN = (1, 5, 10, 20, 30)


def main() -> int:
    given = arguments(__doc__, METHODS, 30)
    paragraphs = []
    for bits, setup in SETUPS.items():
        compete(setup, METHODS, given)
        best = partial(best_curve, objective=setup.spec().objectives[0], constraints=setup.spec().constraints)
        found = curves(setup, METHODS, best)
        title = f"At most {BYTES[bits]:,} bytes, those of uniform {bits} bits:"
        paragraphs += [title, table(["best top1 after", *map(str, SHOWN)], rows(found, SHOWN))]
    publish(HERE / "bits.md", *paragraphs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
