"""Drivers to be killed: ``python remembering_children.py STORAGE`` forks one for each line it reads.

The study ``killed`` is searched with a Stateful proposer that keeps its memory often. Lines that it writes: ``up PID``,
``finished NUMBER`` of every trial, ``recalled COUNT`` (trials that need not be told again), how the search ended,
``ended STATUS``.
"""

import hashlib
import json
import os
import sys

import numpy as np

from automc.app import catalog, runs
from automc.core import memory
from automc.core.ports import Proposal
from automc.core.search import Silent
from automc.errors import StoreError
from automc.proposers.random import RandomProposer


class Diary(RandomProposer):
    """What it asks depends on every trial that it was told, in order, and so on nothing forgotten or told twice."""

    def __init__(self, space, objectives, constraints, seed):
        super().__init__(space, objectives, constraints, seed)
        self._space, self._lines = space, []

    def ask(self, numbers):
        digest = hashlib.sha256(json.dumps(self._lines).encode()).digest()
        draws = [np.random.default_rng([*digest, n]).random(len(self._space)) for n in numbers]
        return [Proposal(self._space.decode(draw.tolist())) for draw in draws]

    def tell(self, trials):
        self._lines += [[t.number, t.policy.fingerprint, t.state.value] for t in trials]

    def state(self):
        return json.dumps(self._lines).encode()

    def restore(self, state):
        try:
            self._lines = json.loads(state)
        except ValueError as error:
            raise StoreError(f"no diary: {error}") from error


class Loud(Silent):
    def finished(self, trial):
        print("finished", trial.number, flush=True)


def register():
    """The proposer's name in the catalogue, and memories that are kept often."""
    sys.modules["remembering_children"] = sys.modules[__name__]
    catalog.PROPOSERS["diary"] = "remembering_children:Diary"
    memory.KEEP_EVERY = 5


def drive(storage):
    study = runs.resume("killed", storage)
    kept = study.store.memory("killed")
    print("up", os.getpid(), flush=True)
    ending = study.run(Loud())
    print("recalled", kept[0] if kept else 0, flush=True)
    print(ending.value, flush=True)


if __name__ == "__main__":
    import automc.evaluation.synthetic
    import automc.stores.sql
    import automc.workers.inline  # noqa: F401  (imported before the forks, so that no driver does it anew)

    register()
    for _ in sys.stdin:
        driver = os.fork()
        if not driver:
            drive(sys.argv[1])
            os._exit(0)
        print("ended", os.waitpid(driver, 0)[1], flush=True)
