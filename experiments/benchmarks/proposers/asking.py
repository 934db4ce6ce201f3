"""Milliseconds of the processor that a proposer takes for a proposal, by decisions of the space and trials told.

    python experiments/benchmarks/proposers/asking.py [--methods portfolio tpe]

The spaces are those of imaginary networks (evaluation/synthetic.py) with 60 and 200 decisions: channels and bits of
weights and inputs, two objectives. Random policies are told; then every proposer is asked a few times, told one more
trial between two proposals, as a search does it. *told* is what learning all of them took before. One thread,
so that processor time is what a proposal takes on an idle machine. Written to ``asking.md``.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import publish, table
from contest import HERE

from automc.core.metrics import Constraint, Objective
from automc.core.probing import probed
from automc.core.rules import Rule, resolve
from automc.core.space import Choice, Real, SearchSpace
from automc.core.trial import Trial, TrialState
from automc.errors import SpecError
from automc.evaluation.synthetic import SyntheticEvaluator, SyntheticSettings
from automc.operators import OPERATORS, ORDER
from automc.proposers.members import PROPOSERS, member

LAYERS = {60: 20, 200: 67}
"""Of the imaginary network, by decisions: three a layer, of the last layer two."""

TOLD = (100, 1000, 5000)
ASKS = 10
PATIENCE = 120.0
"""Seconds of learning after which a proposer is not asked how it does with more trials."""

OBJECTIVES = (Objective("top1"), Objective("size_ratio"))
CONSTRAINTS = (Constraint.parse("macs_ratio <= 0.7"),)


def landscape(layers: int) -> tuple[SyntheticEvaluator, SearchSpace]:
    """An imaginary network and the space of its joint search, with sensitivities."""
    evaluator = SyntheticEvaluator(SyntheticSettings(layers=layers))
    rules = (
        Rule("prune", {"prune_ratio": Real(0.0, 0.8, step=0.1)}),
        Rule("quantize", {"weight_bits": Choice((2, 3, 4, 6, 8)), "activation_bits": Choice((4, 6, 8))}),
    )
    space = resolve(rules, ORDER, evaluator.table, OPERATORS)
    known = probed(space, evaluator, ("loss", "error", "trace"))
    return evaluator, replace(space, layers=replace(space.layers, sensitivity=known))


def trials(evaluator: SyntheticEvaluator, space: SearchSpace, count: int) -> list[Trial]:
    """Random policies and what they measure."""
    found = []
    for number in range(count):
        policy = space.decode(np.random.default_rng([7, number]).random(len(space)).tolist())
        measurement = evaluator.evaluate(policy, 0, lambda step, value: True)
        found.append(Trial(number, policy, "", TrialState.COMPLETE, 0, measurement, attempts=1))
    return found


def asked(name: str, space: SearchSpace, known: list[Trial]) -> list[str]:
    """A cell for each number of trials told: median milliseconds of an ask and of a tell, and seconds of learning."""
    proposer = member(name, space, OBJECTIVES, CONSTRAINTS, 0)
    cells, told, learning = [], 0, 0.0
    for count in TOLD:
        if learning > PATIENCE:
            cells.append("")
            continue
        start = time.process_time()
        proposer.tell(known[told:count])
        learning += time.process_time() - start
        times = []
        for number in range(count, count + ASKS):
            start = time.process_time()
            proposer.ask(range(number, number + 1))
            answered = time.process_time()
            proposer.tell(known[number : number + 1])
            times.append((1000 * (answered - start), 1000 * (time.process_time() - answered)))
        told = count + ASKS
        (ask, tell), most = np.median(times, axis=0), max(map(sum, times))
        cells.append(f"{ask:.1f} + {tell:.1f} (at most {most:.0f}; told {learning:.1f} s)")
    return cells


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=list(PROPOSERS), choices=list(PROPOSERS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    paragraphs = []
    for decisions, layers in LAYERS.items():
        evaluator, space = landscape(layers)
        known, rows = trials(evaluator, space, max(TOLD) + ASKS), []
        for name in given.methods:
            try:
                rows.append([name, *asked(name, space, known)])
            except SpecError as error:
                print(f"{name}: left out, {error}", flush=True)
                continue
            print(" | ".join(rows[-1]), flush=True)
        head = [f"{len(space)} decisions, ms an ask + a tell, after", *map(str, TOLD)]
        paragraphs.append(table(head, rows))
        assert abs(len(space) - decisions) < decisions / 20
    publish(HERE / "asking.md", *paragraphs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
