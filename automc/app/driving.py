"""What surrounds a running search: the lease on its study, Ctrl-C, and the workers."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from automc.core.ports import Evaluator, Executor, LeaseStore, Owner
from automc.core.study import Workers
from automc.errors import LeaseHeld, StoreError

HEARTBEAT_SECONDS = 1.0


def talk(line: str) -> None:
    """A line for people: on stderr, because stdout is data."""
    print(f"automc: {line}", file=sys.stderr)


class Tenure:
    """Owns a study while a search runs: takes the lease, keeps it alive from a thread, gives it back.

    ``over`` is set when somebody asked the study to stop, or when another driver took the lease.
    """

    def __init__(self, store: LeaseStore, study: str) -> None:
        self._store, self._study = store, study
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="automc-lease", daemon=True)
        self.over = False

    def __enter__(self) -> Tenure:
        self._store.take(self._study, Owner(socket.gethostname(), os.getpid()))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._store.release(self._study)

    def _beat(self) -> None:
        while not self._end.wait(HEARTBEAT_SECONDS):
            try:
                self._store.renew(self._study)
                self.over = self.over or self._store.stop_asked(self._study)
            except LeaseHeld:
                self.over = True
            except StoreError:
                # A full disk or a long lock: the search itself meets it at its next write and says so there.
                continue


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """Ctrl-C in two steps: the first sets the event (finish what runs), the second raises KeyboardInterrupt.

    Outside the main thread, where Python allows no handlers, the event is simply never set.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        talk("finishing the running trials; Ctrl-C again to quit at once")

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def executor(evaluator: Evaluator, workers: Workers) -> Iterator[Executor]:
    """Ray workers, or this process when ``workers.count`` is 0; closed at the end."""
    found: Executor
    if workers.count == 0:
        from automc.workers.inline import InlineExecutor

        found = InlineExecutor(evaluator)
    else:
        from automc.workers.ray_pool import RayExecutor

        found = RayExecutor(evaluator, workers)
    try:
        yield found
    finally:
        found.close()
