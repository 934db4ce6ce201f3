"""Run as a script: forks processes that use one database at the same time, and kills some of them.

Forked rather than started, because importing SQLAlchemy takes longer than all else together.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial

from automc.core.metrics import METRICS, Measurement
from automc.core.policy import Policy, Site
from automc.core.ports import Proposal
from automc.core.store import Owner
from automc.core.trial import TrialState
from automc.errors import LeaseHeld
from automc.stores.sql import SqlStore


def fork(work: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException as error:
        print(f"error {type(error).__name__}: {error}", flush=True)
        os._exit(1)
    os._exit(0)


def write_for_ever(url: str, heard: int) -> None:
    """Add, start and finish trials; say each only when the store has returned."""
    store = SqlStore(url)
    store.take("s", Owner(socket.gethostname(), os.getpid()))
    while True:
        policy = Policy({Site("prune", f"layer{i}", "prune_ratio"): random.random() for i in range(20)})
        trial = store.add("s", Proposal(policy), 0)
        os.write(heard, f"{trial.number} waiting\n".encode())
        trial = store.move("s", trial.to(TrialState.RUNNING))
        os.write(heard, f"{trial.number} running\n".encode())
        found = Measurement(dict.fromkeys(METRICS, float(trial.number)), {"layer0": {"kept": 3}})
        store.move("s", trial.to(TrialState.COMPLETE, measurement=found))
        os.write(heard, f"{trial.number} complete\n".encode())


def kills(url: str, count: int) -> None:
    draw = random.Random(count)
    for _ in range(count):
        source, target = os.pipe()
        child = fork(partial(write_for_ever, url, target))
        os.close(target)
        heard, enough = b"", draw.randrange(3, 20)
        while heard.count(b"\n") < enough and (more := os.read(source, 4096)):
            heard += more
        time.sleep(draw.uniform(0, 0.006))
        os.kill(child, signal.SIGKILL)
        while more := os.read(source, 4096):
            heard += more
        os.close(source)
        os.waitpid(child, 0)
        os.write(1, heard)


def crowd(url: str, writers: int, trials: int) -> None:
    def add() -> None:
        store = SqlStore(url)
        for _ in range(trials):
            number = store.add("s", Proposal(Policy({Site("prune", "a", "prune_ratio"): 0.5})), 0).number
            os.write(1, f"{number}\n".encode())

    for child in [fork(add) for _ in range(writers)]:
        os.waitpid(child, 0)


def openers(url: str, count: int) -> None:
    def make() -> None:
        os.write(1, f"{len(SqlStore(url).studies())}\n".encode())

    for child in [fork(make) for _ in range(count)]:
        os.waitpid(child, 0)


def takers(url: str, count: int) -> None:
    """Processes that all want one lease; each lives until all have had their answer."""
    source, target = os.pipe()

    def take() -> None:
        try:
            SqlStore(url).take("s", Owner(socket.gethostname(), os.getpid()))
            os.write(target, b"taken\n")
        except LeaseHeld:
            os.write(target, b"refused\n")
        time.sleep(30)

    children = [fork(take) for _ in range(count)]
    heard = b""
    while heard.count(b"\n") < count:
        heard += os.read(source, 4096)
    os.write(1, heard)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    what, url, *numbers = sys.argv[1:]
    {"kills": kills, "crowd": crowd, "openers": openers, "takers": takers}[what](url, *map(int, numbers))
