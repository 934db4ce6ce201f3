"""Transactions that Ctrl-C and SIGTERM do not cut in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def undisturbed() -> Iterator[None]:
    """They act after the block. Raised between two statements of a driver, they would leave the write lock held.

    Outside the main thread, which alone gets signals, there is nothing to do.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # A signal that has no handler in Python ends or spares the process as a whole, now as later.
    before = {number: handler for number in SIGNALS if callable(handler := signal.getsignal(number))}
    missed: list[int] = []
    for number in before:
        signal.signal(number, lambda number, frame: missed.append(number))
    try:
        yield
    finally:
        for number, handler in reversed(before.items()):
            signal.signal(number, handler)
        for late in missed:
            signal.raise_signal(late)
