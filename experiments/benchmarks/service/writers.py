"""Drivers without a search: results as fast as wanted, or as fast as the database takes them. What came of it, as JSON.

    python writers.py automc STORAGE STUDY --rate 300 --seconds 60
    python writers.py optuna STORAGE STUDY --rate 300 --seconds 60

Sixty-four workers answer, at this rate together: each has 0.2 s for a trial. As in a search, what has answered since
the last look is one durable transaction, and what begins in its place another. Of Optuna a result is one of its own,
``Study.add_trial``, though a search of Optuna's has more; it has none for several.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))
import filled

from automc.core.metrics import Measurement
from automc.core.ports import Proposal
from automc.core.store import Owner
from automc.core.trial import Trial, TrialState
from automc.errors import AutomcError
from automc.stores import open_store

WORKERS = 64


def ours(storage: str, name: str) -> Callable[[int], None]:
    """Writes so many results into a study of ``filled``."""
    store, space, draw = open_store(storage, create=False), filled.space(), np.random.default_rng(1)
    held: list[Owner] = []
    running: list[Trial] = []

    def begin(count: int) -> None:
        with store.together():
            for _ in range(count):
                policy = space.decode(draw.random(len(space)).tolist())
                running.append(store.add(name, Proposal(policy), 0, start=True))

    def end(trial: Trial) -> None:
        size = float(draw.uniform(0.5, 1.0))
        metrics = {"top1": 0.2, "macs_ratio": 0.8, "size_bytes": round(1.1e6 * size), "size_ratio": size}
        store.move(name, trial.to(TrialState.COMPLETE, measurement=Measurement(metrics, seconds=0.1, samples=5000)))

    def write(count: int) -> None:
        if not held:
            owner = Owner(socket.gethostname(), os.getpid())
            store.take(name, owner)
            held.append(owner)
            begin(WORKERS)
        with store.together():
            for trial in running[:count]:
                end(trial)
        del running[:count]
        begin(count)

    return write


def theirs(storage: str, name: str) -> Callable[[int], None]:
    """Writes so many results into a study of Optuna's, one by one."""
    import optuna
    from optuna.distributions import CategoricalDistribution

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study, draw = optuna.load_study(study_name=name, storage=storage), np.random.default_rng(1)
    space = filled.space()
    kinds = {"/".join(d.site): CategoricalDistribution(d.domain.options) for d in space.decisions}

    def write(count: int) -> None:
        for _ in range(count):
            policy = space.decode(draw.random(len(space)).tolist())
            params = {"/".join(site): value for site, value in policy.items() if "/".join(site) in kinds}
            values = [0.2, round(1.1e6 * float(draw.uniform(0.5, 1.0)))]
            study.add_trial(optuna.trial.create_trial(params=params, distributions=kinds, values=values))

    return write


def main() -> int:
    parser = argparse.ArgumentParser(description="Write results into a study.")
    parser.add_argument("kind", choices=("automc", "optuna"))
    parser.add_argument("storage")
    parser.add_argument("study")
    parser.add_argument("--rate", type=float, default=300)
    parser.add_argument("--seconds", type=float, default=60)
    said = parser.parse_args()
    write = (ours if said.kind == "automc" else theirs)(said.storage, said.study)
    faults: Counter[str] = Counter()
    began, written = time.perf_counter(), 0
    while (now := time.perf_counter() - began) < said.seconds:
        due = min(int(now * said.rate) - written, WORKERS)
        if due <= 0:
            time.sleep(max((written + 1) / said.rate - now, 0))
            continue
        try:
            write(due)
            written += due
        except (AutomcError, OSError) as error:
            faults[str(error)[:120]] += 1
        except Exception as error:  # Optuna's and SQLAlchemy's
            faults[f"{type(error).__name__} {str(error)[:100]}"] += 1
    json.dump({"written": written, "seconds": time.perf_counter() - began, "faults": faults}, sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
