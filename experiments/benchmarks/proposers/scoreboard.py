"""What the contests share: the command line, running methods and seeds in processes, curves, bands and pictures."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from contest import Contest, Method, Setup, trials_of

from automc.core.regret import Curve, band
from automc.core.trial import Trial

Runner = Callable[[Setup, Method, int, int], None]
COLOURS = 10
"""Of a picture, before they come again with dashes."""


def arguments(doc: str, methods: Sequence[Method], trials: int) -> argparse.Namespace:
    """What every contest's command line takes."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--trials", type=int, default=trials, help="evaluations of each method; 0 reports only")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=[m.name for m in methods], choices=[m.name for m in methods])
    parser.add_argument("--processes", type=int, default=2)
    return parser.parse_args()


def run(setup: Setup, method: Method, seed: int, trials: int) -> None:
    """One method under one seed, in a process of its own."""
    torch.set_num_threads(1)
    Contest(setup).run(method, seed, trials)


def compete(setup: Setup, methods: Sequence[Method], given: argparse.Namespace, runner: Runner = run) -> None:
    """Run what is asked for, seed by seed, so that a run that is ended early has all methods under some seeds."""
    if not given.trials:
        return
    Contest(setup)  # measures the sensitivities, once
    chosen = [method for method in methods if method.name in given.methods]
    jobs = [(method, seed) for seed in given.seeds for method in chosen]
    with ProcessPoolExecutor(given.processes, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        running = {pool.submit(runner, setup, *job, given.trials): job for job in jobs}
        for future, (method, seed) in running.items():
            future.result()
            print(f"{method.name}, seed {seed}: done", flush=True)


def curves(setup: Setup, methods: Sequence[Method], of: Callable[[list[Trial]], Curve]) -> dict[str, list[Curve]]:
    """By method that has results, a curve for each seed there is."""
    paths = {m.name: sorted(setup.folder.glob(f"{m.name}-[0-9]*.csv")) for m in methods}
    return {name: [of(trials_of(path)) for path in own] for name, own in paths.items() if own}


def rows(found: Mapping[str, Sequence[Curve]], efforts: Sequence[int], by: str = "evaluations") -> list[list[str]]:
    """A row of the table a method: median and range of the seeds that got so far, and how many these are."""
    return [[name, *(_cell(lines, effort, by) for effort in efforts)] for name, lines in found.items()]


def _cell(found: Sequence[Curve], effort: int, by: str) -> str:
    """A method that proposes what it knows spends fewer evaluations than trials: then its last value stands."""
    spent = [curve.seconds[-1] if by == "seconds" else len(curve.values) for curve in found]
    values = [curve.at([effort], by)[0] for curve, own in zip(found, spent, strict=True) if own >= effort]
    if not values or np.isnan(values).any():
        return ""
    spread = f" ({min(values):.3f} to {max(values):.3f}; {len(values)})" if len(values) > 1 else " (1)"
    return f"{np.median(values):.3f}{spread}"


def picture(path: Path, found: Mapping[str, Sequence[Curve]], label: str, scale: str = "linear") -> None:
    """Median and band over seeds, by method; written as PNG. Args: scale: of the values, as matplotlib names it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), dpi=120)
    for i, (name, lines) in enumerate(found.items()):
        steps = np.arange(1, min(len(curve.values) for curve in lines) + 1)  # as far as the table
        middle = band(lines, steps)
        (line,) = axes.plot(steps, middle.median, "-" if i < COLOURS else "--", label=name, linewidth=1.6)
        axes.fill_between(steps, middle.low, middle.high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    axes.set_yscale(scale)
    axes.set_xlabel("evaluations")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, ncols=2)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
