"""Studies searched by drivers that are killed: the studies, a driver's life, and what must hold after every death."""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from automc.app import database, runs
from automc.app.config import study_from
from automc.core.search import Silent
from automc.core.trial import Trial, TrialState
from automc.stores import open_store

RULES = [
    {"operator": "prune", "settings": {"prune_ratio": {"low": 0.0, "high": 0.8, "step": 0.1}}},
    {"operator": "quantize", "settings": {"weight_bits": [2, 4, 8], "activation_bits": 8}},
]
SETTINGS = {"layers": 6, "fail": {"error": 0.1, "nan": 0.05}, "inputs": 1000, "doubt": 0.01}
FAULTS = ("lost", "duplicates", "orphans", "unsound", "differ")
"""What must never be counted: acknowledged results that are gone or changed; trials, results or evaluations there
twice; trials of a dead driver that still run once the next one has begun; databases that ``automc db verify`` or SQLite
find fault with; studies that are not those of a search that nobody killed."""


_PR_SET_PDEATHSIG = 1


def study(name: str, proposer: str, seed: int, storage: str, sleep_s: float, workers: Any) -> dict[str, Any]:
    """A study as a file would say it: failures, early stops and promotions included.

    Args:
        sleep_s: how long an evaluation lasts. workers: as the section of a study file.
    """
    return {
        "name": name,
        "model": "digits_net",
        "data": "digits",
        "space": {"rules": RULES},
        "objectives": {"top1": "maximize", "size_bytes": "minimize"},
        "proposer": proposer,
        "evaluator": {"name": "synthetic", "settings": {**SETTINGS, "sleep_s": sleep_s}},
        "rungs": [{"steps": 0}, {"steps": 10, "share": 0.2}],
        "budget": {"trials": 60},
        "workers": workers,
        "seed": seed,
        "storage": storage,
    }


def facts(trial: Trial) -> tuple[Any, ...]:
    """What must be the same however often a driver died; attempts and times are not."""
    metrics = trial.measurement and tuple(sorted(trial.measurement.metrics.items()))
    told = (trial.policy.fingerprint, trial.memo, trial.rung, trial.state, trial.reason, trial.twin)
    return (trial.number, *told, metrics)


def apart(function: Callable[..., Any], *given: Any) -> Any:
    """What it returns in a process of its own: whoever forks drivers must not have threads of its own (BLAS does)."""
    with ProcessPoolExecutor(1, get_context("fork")) as pool:
        return pool.submit(function, *given).result()


def begin(said: dict[str, Any]) -> None:
    """Make the study, and search nothing yet."""
    runs.start(study_from(said, "kills")).close()


def undisturbed(proposer: str, seed: int) -> list[tuple[Any, ...]]:
    """The trials of the same search without a kill, in memory and in this process."""
    with closing(runs.start(study_from(study("calm", proposer, seed, "memory:", 0.0, {"count": 0}), "kills"))) as calm:
        calm.run()
        return [facts(trial) for trial in calm.store.trials("calm")]


class Saying(Silent):
    """Writes the number of every finished trial to a pipe: from then on its result is *acknowledged*."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def finished(self, trial: Trial) -> None:
        os.write(self._pipe, f"{trial.number}\n".encode())


class Driver:
    """A process that goes on with a study, forked from this one, which has imported all it needs.

    Args:
        log: takes what it prints; None leaves it where this process prints.
    """

    def __init__(self, name: str, storage: str, address: str | None = None, log: Path | None = None) -> None:
        self._pipe, theirs = os.pipe()
        self._heard = b""
        self._said: list[int] = []
        self._pid = os.fork()
        if not self._pid:
            status = 1
            try:
                os.close(self._pipe)
                ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                if log:
                    _print_to(log)
                runs.resume(name, storage, address=address).run(Saying(theirs))
                status = 0
            except Exception:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(theirs)

    def listen(self, seconds: float, news: bool = False) -> bool:
        """Hear what it says for so long, or until it says anything where ``news``; False once it has ended."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not (news and self._said):
            if select.select([self._pipe], [], [], left)[0] and not self._take():
                return False
        return True

    def said(self) -> list[int]:
        """The trials it said since this was last asked."""
        news, self._said = self._said, []
        return news

    def kill(self) -> int:
        """Kill it, if it has not ended by itself, and hear its last words. Returns its wait status."""
        os.kill(self._pid, signal.SIGKILL)
        status = os.waitpid(self._pid, 0)[1]
        while self._take():
            pass
        os.close(self._pipe)
        return status

    def _take(self) -> bool:
        more = os.read(self._pipe, 65536)
        *whole, self._heard = (self._heard + more).split(b"\n")
        self._said += map(int, whole)
        return bool(more)


class Ledger:
    """What was acknowledged of a study so far, compared with its database after every death."""

    def __init__(self, name: str, storage: str) -> None:
        self._name, self._storage = name, storage
        self._acknowledged: dict[int, tuple[Any, ...]] = {}
        self._left: dict[int, int] = {}
        self.count: Counter[str] = Counter()

    def look(self, said: list[int], dead: bool = True) -> None:
        """Count what is wrong, and in the midst of what a driver died that said these trials were finished.

        Looked at is a copy, so that the next driver itself meets what the kill has left.
        """
        with _copied(self._storage, dead) as storage:
            if dead:
                self.count["writing"] += _hot(Path(f"{storage}-journal"))
            self.count["unsound"] += bool(database.verify(storage))
            with closing(open_store(storage, create=False)) as store:
                trials = {trial.number: trial for trial in store.trials(self._name)}
                answers = Counter(a.number for a in store.attempts(self._name) if a.state.finished and not a.late)
        now = {number: facts(trial) for number, trial in trials.items()}
        self.count["lost"] += sum(n not in trials or not trials[n].state.finished for n in said)
        self.count["lost"] += sum(now.get(n) != row for n, row in self._acknowledged.items())
        again = len(said) - len(set(said) - self._acknowledged.keys())
        self.count["duplicates"] += again + sum(n > 1 for n in answers.values())
        if said:
            self.count["orphans"] += sum(_runs_still(trials.get(n), attempt) for n, attempt in self._left.items())
        self._acknowledged |= {number: now[number] for number in said if number in now}
        if dead:
            self._left = {n: t.attempts for n, t in trials.items() if t.state is TrialState.RUNNING}
            self.count["running"] += bool(self._left)

    def close(self, wanted: list[tuple[Any, ...]]) -> Counter[str]:
        """Count the finished study, which should have these trials."""
        with closing(open_store(self._storage, create=False)) as store:
            trials = store.trials(self._name)
        paid = Counter((t.policy, t.rung) for t in trials if t.state is TrialState.COMPLETE and t.twin is None)
        self.count["trials"] += len(trials)
        self.count["attempts"] += sum(trial.attempts for trial in trials)
        self.count["duplicates"] += sum(many > 1 for many in paid.values())
        self.count["orphans"] += sum(not trial.state.finished for trial in trials)
        self.count["differ"] += [facts(trial) for trial in trials] != wanted
        return self.count


def _runs_still(trial: Trial | None, attempt: int) -> bool:
    return trial is not None and trial.state is TrialState.RUNNING and trial.attempts == attempt


def _hot(journal: Path) -> bool:
    """Whether a transaction was under way: the next to open the database takes it back."""
    return journal.exists() and journal.read_bytes()[:8] not in (b"", bytes(8))


@contextmanager
def _copied(storage: str, dead: bool) -> Iterator[str]:
    """A SQLite file somewhere else, with its journal if nobody writes to it; a server, which is no file, as it is."""
    if "://" in storage:
        yield storage
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(storage)
        if dead:
            for path in (file, Path(f"{file}-journal")):
                if path.exists():
                    shutil.copy(path, folder)
        else:
            database.backup(storage, Path(folder) / file.name)
        yield str(Path(folder) / file.name)


def _print_to(log: Path) -> None:
    with log.open("a") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
