"""SIGKILLs of a driver at random moments, and resumes: what is lost, what is counted twice, what comes out differently.

    python experiments/benchmarks/engine/kills.py [--kills 1000] [--proposers random tpe] [--storage URL]

Studies of an imaginary network (evaluation/synthetic.py; failures, early stops and promotions included) are searched
by drivers that are killed, half of them within --life seconds from their start, the others from their first result,
until the study is done; then comes the next one, with the next proposer and another seed. A driver says which trial is
finished as soon as the store has told it so: an *acknowledged* result. After every kill the database must be whole and
hold all of these as they were, and the next driver must take up what the dead one left running; at the end the study
must equal the one that was searched without a kill, trial by trial. Every study is a row of ``kills.csv``, and is not
repeated; ``kills.md`` is the sum.
"""

from __future__ import annotations

import argparse
import os
import random
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import Results, publish, table
from lives import FAULTS, Driver, Ledger, apart, begin, study, undisturbed

import automc.evaluation.synthetic
import automc.proposers.ddpg.proposer
import automc.proposers.evolve.evolve
import automc.proposers.optuna
import automc.proposers.portfolio
import automc.stores.sql
import automc.workers.inline  # noqa: F401  (imported ahead: no kill should meet an import)
from automc.stores.engine import journal

HERE = Path(__file__).resolve().parent
PROPOSERS = ("random", "tpe", "nsga2", "evolve", "portfolio", "ddpg")
PATIENCE = 60.0
"""Seconds in which a driver must bring its first result."""

COUNTED = ("trials", "kills", "attempts", "running", "writing", *FAULTS)


def tortured(name: str, storage: str, wanted: list[Any], life: float) -> Counter[str]:
    """Search a study with drivers that are killed; what was counted."""
    chance, ledger = random.Random(name), Ledger(name, storage)
    while True:
        driver = Driver(name, storage)
        if chance.random() < 0.5:
            driver.listen(PATIENCE, news=True)
        driver.listen(chance.uniform(0.0, life))
        status = driver.kill()
        if os.WIFEXITED(status):
            if os.WEXITSTATUS(status):
                raise SystemExit(f"kills: a driver of {name} failed by itself")
            ledger.look(driver.said())
            return ledger.close(wanted)
        ledger.count["kills"] += 1
        ledger.look(driver.said())


def searched(proposer: str, seed: int, storage: str, life: float) -> dict[str, Any]:
    """One study from begin to end, as a row of the results."""
    name, began = f"{proposer}-{seed}", time.monotonic()
    wanted = apart(undisturbed, proposer, seed)
    with tempfile.TemporaryDirectory() as folder:
        where = storage or f"{folder}/kills.db"
        apart(begin, study(name, proposer, seed, where, 0.005, {"count": 0}))
        found = tortured(name, where, wanted, life)
    counted = {key: found[key] for key in COUNTED}
    return {"proposer": proposer, "seed": seed, **counted, "seconds": round(time.monotonic() - began)}


def report(results: Results, file: Path, storage: str) -> Counter[str]:
    """Write the sums by proposer; returns that of all."""
    sums: dict[str, Counter[str]] = {}
    for row in results.rows:
        for name in (row["proposer"], "all"):
            sums.setdefault(name, Counter()).update({"studies": 1} | {key: int(row[key]) for key in COUNTED})
    sums["all"] = sums.pop("all", Counter())
    head = ("studies", *COUNTED)
    names = {"running": "in a trial", "writing": "in a commit", "differ": "studies that differ"}
    lines = [[name, *(f"{found[key]:,}" for key in head)] for name, found in sums.items()]
    on = storage.partition("://")[0] if storage else f"SQLite {sqlite3.sqlite_version}, journal {journal()}"
    publish(file, table(["proposer", *(names.get(key, key) for key in head)], lines), f"Database: {on}.")
    return sums["all"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000, help="in all, those of earlier runs included")
    parser.add_argument("--life", type=float, default=0.6, help="seconds that a driver lives, at most")
    parser.add_argument("--proposers", nargs="+", default=list(PROPOSERS), choices=PROPOSERS)
    parser.add_argument("--storage", default="", help="database; SQLite in a temporary folder when left out")
    parser.add_argument("--output", type=Path, default=HERE / "kills.csv")
    given = parser.parse_args()
    results = Results(given.output, ("proposer", "seed"))
    for seed in count():
        for proposer in given.proposers:
            if sum(int(row["kills"]) for row in results.rows) >= given.kills:
                found = report(results, given.output.with_suffix(".md"), given.storage)
                return 1 if any(found[key] for key in FAULTS) else 0
            if not results.has(proposer=proposer, seed=seed):
                results.add(searched(proposer, seed, given.storage, given.life))
                print(" ".join(results.rows[-1].values()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
