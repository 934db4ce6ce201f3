"""A task for tests: classification that goes wrong in the way that the next file of a folder says.

The folder is in the environment variable MOODS. Each evaluation on a worker takes one file of it, in order of name;
without files, and in the driver, it is classification.
"""

from __future__ import annotations

import math
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

from automc.evaluation.tasks.classification import Classification
from automc.workers import devices


class Unspeakable(Exception):
    """Can be neither shown nor pickled."""

    def __str__(self):
        raise ValueError("no text")

    def __reduce__(self):
        raise TypeError("no pickle")


def raised(error):
    raise error


def eat():
    held = []
    while True:
        held.append(bytearray(b"x" * 2**25))
        time.sleep(0.01)


MOODS = {
    "nan": lambda: math.nan,
    "inf": lambda: math.inf,
    "minus-inf": lambda: -math.inf,
    "huge": lambda: raised(KeyError("x" * 10_000_000)),
    "unspeakable": lambda: raised(Unspeakable()),
    "memory": lambda: raised(MemoryError()),
    "eat": eat,
    "hang": lambda: time.sleep(600),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: os._exit(3),
}


def mood() -> str:
    """The next file, taken by one process only."""
    on_worker = devices.relay is not None
    for path in sorted(Path(os.environ["MOODS"]).glob("[0-9]*")) if on_worker else ():
        try:
            path.rename(path.with_name(f"taken.{path.name}"))
        except FileNotFoundError:
            continue
        return path.name.partition("-")[2]
    return ""


class Moody(Classification):
    def summarise(self, judged):
        found = super().summarise(judged)
        if name := mood():
            return {**found, "top1": replace(found["top1"], value=MOODS[name]())}
        return found
