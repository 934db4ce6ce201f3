"""What surrounds a running search: the lease on its study, Ctrl-C, and the workers."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, TextIO

from automc.core.ports import Evaluator, Executor
from automc.core.store import Control, Owner, Store
from automc.core.study import Rung, Workers
from automc.core.wishes import Wish
from automc.errors import LeaseHeld, StoreError

LISTEN_SECONDS = 0.5
"""How often a driver looks whether it was asked something: the word acts within 2 s, a gathering included."""

RENEWAL_BEATS = 4
"""After so many looks it says that it still lives."""


def talk(line: str) -> None:
    """A line for people: on stderr, because stdout is data."""
    utter(f"automc: {line}", sys.stderr)


def utter(text: str, stream: TextIO) -> None:
    """Print a line. A search does not end because its log has no room or no reader: then stderr falls silent."""
    try:
        print(text, file=stream, flush=True)
    except OSError:
        if stream is not sys.stderr:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Tenure:
    """Owns a study while a search runs: takes the lease, keeps it alive from a thread, gives it back.

    ``word`` is what somebody asked since; STOP, too, when another driver took the lease. ``wishes`` wait to be trials,
    or were made trials since the last look.

    Args:
        cancel: called once, from the thread, when a CANCEL is heard.
    """

    def __init__(self, store: Store, study: str, cancel: Callable[[], None] = lambda: None) -> None:
        self._store, self._study, self._cancel = store, study, cancel
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="automc-lease", daemon=True)
        self.word = Control.GO
        self.wishes: Sequence[Wish] = ()

    def __enter__(self) -> Tenure:
        self._store.take(self._study, Owner(socket.gethostname(), os.getpid()))
        self.wishes = self._store.wishes(self._study)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._end.set()
            self._thread.join()
        finally:
            self._store.release(self._study)

    def _listen(self) -> None:
        beats = 0
        while not self._end.wait(LISTEN_SECONDS):
            beats += 1
            try:
                if beats % RENEWAL_BEATS == 0:
                    self._store.renew(self._study)
                word = self._store.asked(self._study)
                self.wishes = self._store.wishes(self._study)
            except LeaseHeld:
                word = Control.STOP
            except StoreError:
                # A full disk or a long lock: the search itself meets it at its next write and says so there.
                continue
            heard, self.word = self.word, word
            if word is Control.CANCEL and heard is not word:
                self._cancel()


class Interrupts:
    """Ctrl-C in two steps: by the first ``word`` becomes STOP, by the second KeyboardInterrupt is raised.

    SIGTERM is both steps at once, and after the block acts on the process as it would have without us. Outside the main
    thread, where Python allows no handlers, nothing is ever set or raised.
    """

    def __init__(self) -> None:
        self.word = Control.GO
        self._main = threading.current_thread() is threading.main_thread()
        self._before: dict[int, Any] = {}
        self._terminated = False

    def __enter__(self) -> Interrupts:
        for number, handle in ((signal.SIGINT, self._handle), (signal.SIGTERM, self._terminate)):
            ignored = number == signal.SIGTERM and signal.getsignal(number) in (signal.SIG_IGN, None)
            if self._main and not ignored:
                self._before[number] = signal.signal(number, handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handle in self._before.items():
            signal.signal(number, handle)
        if self._terminated:
            signal.raise_signal(signal.SIGTERM)

    def raise_now(self) -> None:
        """The second Ctrl-C, from any thread; it also ends a wait of the main thread's."""
        self.word = Control.STOP
        if self._main:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.word is Control.STOP:
            raise KeyboardInterrupt
        self.word = Control.STOP
        talk("finishing the running trials; Ctrl-C again to quit at once")

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        if not self._terminated:
            self._terminated = True
            talk("terminated: what runs waits again, and the study can be resumed")
            self.raise_now()


@contextmanager
def executor(evaluator: Evaluator, workers: Workers, rungs: Sequence[Rung] = (Rung(),)) -> Iterator[Executor]:
    """Ray workers, or this process when ``workers.count`` is 0; closed at the end."""
    found: Executor
    if workers.count == 0:
        from automc.workers.inline import InlineExecutor

        found = InlineExecutor(evaluator)
    else:
        from automc.workers.ray_pool import RayExecutor

        found = RayExecutor(evaluator, workers, rungs, talk)
    try:
        yield found
    finally:
        found.close()
