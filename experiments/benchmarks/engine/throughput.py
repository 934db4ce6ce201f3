"""How many trials a second the engines carry, side by side in one run, and what automc loses against a bare loop.

    python experiments/benchmarks/engine/throughput.py [--trials 200] [--long 60] [--only NAME ...] [--output FILE]

All engines evaluate the same landscape (the synthetic network, 24 decisions, random sampling), which sleeps 10 ms a
trial, two trials at a time where they can: 200 a second would be all there is, and 100 in one process. The rate is that
of the second half of the trials, as the driver hears of their ends: starting workers does not count. Long trials sleep
0.5 s; the bare loop is two processes that do nothing but evaluate. Written to ``throughput.md``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import publish, table

from automc.app import runs
from automc.app.config import study_from
from automc.core.search import Silent
from automc.core.space import SearchSpace
from automc.evaluation.synthetic import SyntheticEvaluator, SyntheticSettings

HERE = Path(__file__).resolve().parent
LAYERS, SHORT, LONG, WORKERS = 13, 0.01, 0.5, 2
METRICS = ("top1", "size_bytes")


class Clock(Silent):
    """When trials ended, as the driver hears of it."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def finished(self, trial: Any) -> None:
        self.times.append(time.perf_counter())

    @property
    def rate(self) -> float:
        """Trials a second in the second half, when all workers are there."""
        half = len(self.times) // 2
        return half / (self.times[-1] - self.times[-1 - half])


class Landscape:
    """What all engines evaluate: numbers in [0, 1), one a decision."""

    def __init__(self, sleep_s: float) -> None:
        self.evaluator = SyntheticEvaluator(SyntheticSettings(layers=LAYERS, sleep_s=sleep_s))
        with tempfile.TemporaryDirectory() as folder:
            study = runs.start(study_from(said(folder, 1, 0, sleep_s), "throughput"))
            self.space: SearchSpace = study.space
            study.close()
        self.names = [f"x{n:02d}" for n in range(len(self.space))]

    def measure(self, values: Mapping[str, float]) -> tuple[float, float]:
        policy = self.space.decode([values[name] for name in self.names])
        metrics = self.evaluator.evaluate(policy, 0, lambda step, value: True).metrics
        return metrics["top1"], metrics["size_bytes"]


def said(folder: str, trials: int, workers: int, sleep_s: float) -> dict[str, Any]:
    return {
        "name": "throughput",
        "model": "digits_net",
        "data": "digits",
        "space": {"order": ["prune", "quantize"], "rules": [{"operator": "prune"}, {"operator": "quantize"}]},
        "objectives": dict(zip(METRICS, ("maximize", "minimize"), strict=True)),
        "proposer": "random",
        "evaluator": {"name": "synthetic", "settings": {"layers": LAYERS, "sleep_s": sleep_s}},
        "budget": {"trials": trials},
        "workers": {"count": workers, "window": 2 * WORKERS},
        "storage": f"{folder}/studies.db",
    }


def automc(workers: int, sleep_s: float = SHORT) -> Callable[[int], float]:
    """Trials a second of a whole study in a SQLite file, every result durable."""

    def rate(trials: int) -> float:
        clock = Clock()
        with tempfile.TemporaryDirectory() as folder:
            study = runs.start(study_from(said(folder, trials, workers, sleep_s), "throughput"))
            study.run(clock)
            study.close()
        return clock.rate

    return rate


def optuna_engine(storage: bool) -> Callable[[int], float]:
    """Optuna's own loop with two threads, in memory or in a SQLite file."""

    def rate(trials: int) -> float:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        land, clock = Landscape(SHORT), Clock()

        def objective(trial: optuna.Trial) -> tuple[float, float]:
            return land.measure({name: trial.suggest_float(name, 0.0, 0.999) for name in land.names})

        with tempfile.TemporaryDirectory() as folder:
            study = optuna.create_study(
                storage=f"sqlite:///{folder}/optuna.db" if storage else None,
                sampler=optuna.samplers.RandomSampler(seed=0),
                directions=["maximize", "minimize"],
            )
            study.optimize(objective, trials, n_jobs=WORKERS, callbacks=[lambda _, trial: clock.finished(trial)])
        return clock.rate

    return rate


def ray_tune(trials: int) -> float:
    """Ray Tune with OptunaSearch, random sampling, and actors that are used again."""
    os.environ |= {"RAY_AIR_NEW_OUTPUT": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    import optuna
    import ray
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    land, clock = Landscape(SHORT), Clock()

    class Evaluation(tune.Trainable):
        def setup(self, config: dict[str, float]) -> None:
            self.config = config

        def reset_config(self, new_config: dict[str, float]) -> bool:
            self.config = new_config
            return True

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            """Nothing: the policy and its metrics are all there is."""

        def step(self) -> dict[str, Any]:
            return {**dict(zip(METRICS, land.measure(self.config), strict=True)), "done": True}

    class Heard(tune.Callback):
        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            clock.finished(trial)

    memory = 200 * 2**20
    ray.init("local", num_cpus=WORKERS, include_dashboard=False, object_store_memory=memory, log_to_driver=False)
    try:
        search = OptunaSearch(
            {name: optuna.distributions.FloatDistribution(0.0, 0.999) for name in land.names},
            metric=list(METRICS),
            mode=["max", "min"],
            sampler=optuna.samplers.RandomSampler(seed=0),
        )
        with tempfile.TemporaryDirectory() as folder:
            settings = tune.TuneConfig(
                search_alg=search, num_samples=trials, max_concurrent_trials=WORKERS, reuse_actors=True
            )
            kept = tune.RunConfig(storage_path=folder, verbose=0, callbacks=[Heard()])
            tune.Tuner(Evaluation, tune_config=settings, run_config=kept).fit()
    finally:
        ray.shutdown()
    return clock.rate


ENGINES: Mapping[str, Callable[[int], float]] = {
    "automc, in this process": automc(0),
    "automc, 2 Ray workers": automc(WORKERS),
    "Optuna, n_jobs=2": optuna_engine(storage=False),
    "Optuna, n_jobs=2, RDB storage": optuna_engine(storage=True),
    "Ray Tune, OptunaSearch": ray_tune,
}


def bare_rate(trials: int) -> float:
    """Trials a second of two processes that only evaluate."""
    context = multiprocessing.get_context("spawn")
    begin = context.Barrier(WORKERS + 1)
    processes = [context.Process(target=evaluate_only, args=(trials // WORKERS, begin)) for _ in range(WORKERS)]
    for process in processes:
        process.start()
    begin.wait()
    began = time.perf_counter()
    begin.wait()
    lasted = time.perf_counter() - began
    for process in processes:
        process.join()
    return (trials // WORKERS) * WORKERS / lasted


def evaluate_only(count: int, begin: Any) -> None:
    land, draw = Landscape(LONG), np.random.default_rng(0)
    points = draw.random((count, len(land.names)))
    begin.wait()
    for point in points:
        land.measure(dict(zip(land.names, point.tolist(), strict=True)))
    begin.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--long", type=int, default=60, help="trials of 0.5 s; 0 leaves this part out")
    parser.add_argument("--only", nargs="*", default=list(ENGINES), choices=list(ENGINES))
    parser.add_argument("--output", type=Path, default=HERE / "throughput.md")
    given = parser.parse_args()
    rows = []
    for name in given.only:
        rows.append((name, f"{ENGINES[name](given.trials):.1f}"))
        print(*rows[-1], file=sys.stderr)
    paragraphs = [
        "# Throughput of the engine",
        f"Trials of 10 ms, {given.trials} of them by each engine, 24 decisions, random sampling: the second half. "
        f"The load of the machine was {os.getloadavg()[1]:.0f} for {os.cpu_count()} CPUs.",
        table(("engine", "trials a second"), rows),
    ]
    if given.long:
        bare, own = bare_rate(given.long), automc(WORKERS, LONG)(given.long)
        text = f"{given.long} trials of 0.5 s on two workers: a bare loop {bare:.3f} a second, automc {own:.3f}"
        paragraphs.append(f"{text}: {100 * (1 - own / bare):.1f} % of the time is lost.")
    publish(given.output, *paragraphs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
