"""What an evaluation at rung 0 takes beside the network's own arithmetic, and what the kept prefix saves.

    python experiments/benchmarks/evaluator/speed.py [--inputs 2000] [--rounds 3]

ResNet-20 on CIFAR-10. Prints two Markdown tables and writes them to ``speed.md`` beside this file with machine and
versions. Times are the process's CPU seconds, one thread, the least of some rounds: a machine that does other things at
the same time cannot lengthen them much. The bare loop is the fused, channels-last network on normalised inputs that
are in memory already; it and the evaluator take turns. Calibration passes run the network too: they are arithmetic.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import cifar, publish, table

from automc.core.policy import Policy, Site
from automc.evaluation import building, evaluator, restoring
from automc.evaluation.answers import BATCH, Answers
from automc.evaluation.evaluator import NetworkEvaluator, prepare
from automc.evaluation.inference import fast
from automc.operators import recalibrate

PLACES: tuple[tuple[str, Any, str], ...] = (
    ("compress", restoring, "compress"),
    ("reconstruct", restoring, "reconstruct"),
    ("correct", restoring, "correct"),
    ("recalibrate", building, "recalibrate"),
    ("fold", evaluator, "fold"),
    ("lay out", evaluator, "laid_out"),
    ("costs", evaluator.NetworkEvaluator, "_costs"),
    ("pack", evaluator.packed, "dumps"),
)
"""Functions of an evaluation: what they are called here, and where they are looked up."""

PASSES = "calibration passes"
FORWARD = "forward and judge"


class Clock:
    """CPU seconds by part; what runs inside another part is taken off that one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner = [0.0]

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        return wrapper

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._inner.append(0.0)
        start = time.process_time()
        try:
            yield
        finally:
            spent = time.process_time() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + spent - self._inner.pop()
            self._inner[-1] += spent


def measured(judge: NetworkEvaluator, policy: Policy) -> dict[str, float]:
    """CPU seconds of the parts of one evaluation."""
    clock = Clock()
    with ExitStack() as stack:
        for name, module, attribute in PLACES:
            stack.enter_context(mock.patch.object(module, attribute, clock.timed(name, getattr(module, attribute))))
        stack.enter_context(mock.patch.object(recalibrate, "run", clock.timed(PASSES, recalibrate.run)))
        run = Answers._run

        def answers(self: Answers, model: nn.Module, split: str) -> Iterator[Any]:
            found = run(self, model, split)
            while True:
                with clock.part(FORWARD):
                    outputs = next(found, None)
                if outputs is None:
                    return
                yield outputs

        stack.enter_context(mock.patch.object(Answers, "_run", answers))
        with clock.part("rest"):
            judge.evaluate(policy, 0, lambda step, value: True)
    return clock.seconds


def bare(judge: NetworkEvaluator, policy: Policy) -> Callable[[], float]:
    """The bare loop over the search split: CPU seconds of one walk."""
    network = fast(judge.build(policy, 0), judge.example)
    inputs = judge.data.normalise(judge.data.split("search").inputs).contiguous(memory_format=torch.channels_last)

    def walk() -> float:
        start = time.process_time()
        with torch.inference_mode():
            for batch in torch.split(inputs, BATCH):
                network(batch)
        return time.process_time() - start

    return walk


def overhead(judge: NetworkEvaluator, policy: Policy, rounds: int) -> tuple[list[list[str]], str]:
    """Rows of the first table, and a sentence."""
    walk, loops, parts = bare(judge, policy), [], []
    for _ in range(rounds + 1):  # the first warms up
        loops.append(walk())
        parts.append(measured(judge, policy))
    names = list(parts[0])
    least = {name: min(part[name] for part in parts[1:]) for name in names}
    loop, passes = min(loops[1:]), least.get(PASSES, 0.0)
    total = sum(least.values())
    count = len(judge.data.split("search"))
    beside = total - loop - passes
    rows = [[name, f"{1000 * seconds:.0f}", f"{seconds / total:.1%}"] for name, seconds in least.items()]
    rows.append(["all", f"{1000 * total:.0f}", "100.0%"])
    rows.append(["bare loop", f"{1000 * loop:.0f}", f"{loop / total:.1%}"])
    sentence = (
        f"{count:,} inputs: the bare loop does {count / loop:,.0f} images/s, an evaluation {count / total:,.0f}. "
        f"Overhead (all but the bare loop and the calibration passes): {1000 * beside:.0f} ms, {beside / total:.1%}."
    )
    return rows, sentence


def late(judge: NetworkEvaluator, ratio: float, first: int) -> Policy:
    """Prune the inner groups from the ``first`` on."""
    inner = [group.name for group in judge.table.groups if len(group.producers) == 1]
    return Policy({Site("prune", name, "prune_ratio"): ratio for name in inner[first:]})


def saved(inputs: int) -> list[list[str]]:
    """Rows of the second table: policies of late layers, with and without what is kept."""
    rows = []
    settings = f"data.settings.search_limit={inputs}"
    judges = [prepare(cifar(settings, f"evaluator.settings.cache_mb={megabytes}")) for megabytes in (0, 512)]
    for first in (0, 3, 6, 8):
        seconds: list[list[float]] = [[], []]
        metrics: list[dict[str, float]] = [{}, {}]
        judges[1].prefix.counts.clear()
        for ratio in (0.25, 0.375, 0.5):
            for place, judge in enumerate(judges):
                start = time.process_time()
                metrics[place] = dict(judge.evaluate(late(judge, ratio, first), 0, lambda step, value: True).metrics)
                seconds[place].append(time.process_time() - start)
            assert metrics[0] == metrics[1], "the cache changed a metric"
        counts = judges[1].prefix.counts
        without, with_cache = (min(each[1:]) for each in seconds)
        hits = counts["reused"] / max(counts["reused"] + counts["computed"], 1)
        cells = [f"{without:.2f}", f"{with_cache:.2f}", f"{1 - with_cache / without:.0%}", f"{hits:.0%}"]
        rows.append([f"the last {9 - first} of 9 inner groups", *cells, f"{judges[1].prefix.kept.bytes / 2**20:.0f}"])
    return rows


def main(arguments: list[str]) -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=2000, help="inputs of the search split")
    parser.add_argument("--rounds", type=int, default=3, help="timed evaluations of each policy")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    judge = prepare(cifar(f"data.settings.search_limit={given.inputs}", "evaluator.settings.cache_mb=0"))
    bits = {"weight_bits": 4, "activation_bits": 8}
    layers = {Site("quantize", layer.name, key): bits[key] for layer in judge.table.layers[1:-1] for key in bits}
    pruned = late(judge, 0.5, 0)
    parts = []
    for title, policy in (("prune 0.5", pruned), ("prune 0.5, quantize 4/8", Policy({**pruned, **layers}))):
        rows, sentence = overhead(judge, policy, given.rounds)
        parts += [f"ResNet-20, {title}, rung 0.", table(["part", "ms", "share"], rows), sentence]
    head = ["pruned", "s without", "s with", "saved", "batches reused", "MiB kept"]
    parts += [
        "A kept prefix, three ratios one after another, the least of the later two; metrics are equal to the bit.",
        table(head, saved(given.inputs)),
    ]
    publish(Path(__file__).with_suffix(".md"), *parts)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
