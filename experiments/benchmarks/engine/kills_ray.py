"""SIGKILLs with real Ray: of the driver, a worker and a node's raylet in turn, and of all there is at once.

    python experiments/benchmarks/engine/kills_ray.py [--kills 50]

As kills.py, with two Ray workers on a node of their own, beside a head without processors, all processes of this
machine. Evaluations last 0.3 s. A worker is the process that evaluates or the actor that watches over it; a node that
lost its raylet ends, and another one joins. The finished study must equal the one that was searched in one process,
without workers and without a kill. Every study is a row of ``kills_ray.csv``, and is not repeated; ``kills_ray.md`` is
the sum.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from itertools import count, cycle
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import ray_nodes
from common import Results, publish, table
from lives import FAULTS, Driver, Ledger, apart, begin, study, undisturbed

HERE = Path(__file__).resolve().parent
VICTIMS = ("driver", "worker", "raylet", "all at once")
TURN = (*VICTIMS[:3] * 3, VICTIMS[3])
COUNTED = ("trials", *VICTIMS, "attempts", *FAULTS)
PATIENCE = 120.0
"""Seconds in which a driver must bring a result."""


class Cluster:
    """A head and a node with two workers, which may be killed and come again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = count()
        self.start()

    def start(self) -> None:
        self._head, self.address = ray_nodes.head(self._log())
        self._node = ray_nodes.worker(self._log(), self.address)

    def kill(self) -> None:
        self._node.kill()
        self._head.kill()

    def kill_worker(self, chance: random.Random) -> bool:
        found = self._node.processes("ray::Keeper")
        return bool(found) and ray_nodes.strike(chance.choice(found))

    def kill_raylet(self) -> bool:
        """And start another node."""
        done = [ray_nodes.strike(pid) for pid in self._node.processes("raylet/raylet")]
        self._node.wait()
        self._node = ray_nodes.worker(self._log(), self.address)
        return all(done)

    def _log(self) -> Path:
        return self._folder / f"node-{next(self._count)}.log"


class Torture:
    """A study from begin to end, with kills in turn."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name, self._storage = name, str(folder / "kills.db")
        self._log = folder / "driver.log"
        self._chance, self._turn = random.Random(name), cycle(TURN)
        self._ledger = Ledger(name, self._storage)
        self._cluster = Cluster(folder)

    def searched(self, proposer: str, seed: int, wanted: list[Any]) -> Counter[str]:
        workers = {"count": 2, "address": self._cluster.address, "retries": 50}
        apart(begin, study(self._name, proposer, seed, self._storage, 0.3, workers))
        driver = self._driver()
        try:
            while self._strike(driver, victim := next(self._turn)):
                if victim in ("driver", "all at once"):
                    driver = self._driver()
        finally:
            self._cluster.kill()
        status = driver.kill()
        if not os.WIFEXITED(status) or os.WEXITSTATUS(status):
            raise SystemExit(f"kills: a driver of {self._name} failed by itself; it said:\n{self._log.read_text()}")
        self._ledger.look(driver.said())
        return self._ledger.close(wanted)

    def _driver(self) -> Driver:
        return Driver(self._name, self._storage, self._cluster.address, self._log)

    def _strike(self, driver: Driver, victim: str) -> bool:
        """Kill at a random moment: a driver also while it starts, others once it has brought a result since.

        False when the driver has ended before.
        """
        if victim == "driver":
            alive = driver.listen(self._chance.uniform(0.0, 15.0))
        else:
            alive = driver.listen(PATIENCE, news=True) and driver.listen(self._chance.uniform(0.0, 2.0))
        if not alive:
            return False
        if victim == "all at once":
            self._cluster.kill()
        if victim in ("driver", "all at once"):
            struck = os.WIFSIGNALED(driver.kill())
        else:
            struck = self._cluster.kill_worker(self._chance) if victim == "worker" else self._cluster.kill_raylet()
        if victim == "all at once":
            self._cluster.start()
        self._ledger.count[victim] += struck
        self._ledger.look(driver.said(), dead=victim in ("driver", "all at once"))
        return True


def report(results: Results) -> Counter[str]:
    """Write the sum; returns it."""
    found: Counter[str] = Counter()
    for row in results.rows:
        found.update({"studies": 1} | {key: int(row[key]) for key in COUNTED})
    names = {"differ": "studies that differ"}
    head = ("studies", *COUNTED)
    lines = [[f"{found[key]:,}" for key in head]]
    publish(HERE / "kills_ray.md", table([names.get(key, key) for key in head], lines), f"Ray {ray_version()}.")
    return found


def ray_version() -> str:
    from importlib import metadata

    return metadata.version("ray")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="in all, those of earlier runs included")
    given = parser.parse_args()
    os.environ |= ray_nodes.TOKEN
    results = Results(HERE / "kills_ray.csv", ("proposer", "seed"))
    for seed in count():
        if sum(int(row[victim]) for row in results.rows for victim in VICTIMS) >= given.kills:
            found = report(results)
            return 1 if any(found[key] for key in FAULTS) else 0
        if results.has(proposer="tpe", seed=seed):
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            found = Torture(f"ray-{seed}", Path(folder)).searched("tpe", seed, apart(undisturbed, "tpe", seed))
        counted = {key: found[key] for key in COUNTED}
        results.add({"proposer": "tpe", "seed": seed, **counted, "seconds": round(time.monotonic() - began)})
        print(" ".join(results.rows[-1].values()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
