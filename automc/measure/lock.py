"""Who computes and who measures on a machine: many may compute at a time, a measurement is alone.

A readers-writer lock across the processes of one user, on two files locked with ``flock``, which the kernel frees when
a process dies, however it dies. Everybody passes a turnstile; who measures stays in it while waiting for the room to
empty, so that no later comer starts computing before the measurement has had its turn.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

_inside = threading.local()


@contextmanager
def computing(device: str = "") -> Iterator[None]:
    """Hold the machine together with others that compute; waits while somebody measures or is about to.

    Args:
        device: the name that this machine goes by; each name has a lock of its own.
    """
    with _inside_once(), _opened(device, "turnstile") as turnstile, _opened(device, "room") as room:
        fcntl.flock(turnstile, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_SH)
        fcntl.flock(turnstile, fcntl.LOCK_UN)
        yield


@contextmanager
def measuring(device: str = "") -> Iterator[None]:
    """Hold the machine alone; waits until everybody has left, and nobody comes in meanwhile."""
    with _inside_once(), _opened(device, "turnstile") as turnstile, _opened(device, "room") as room:
        fcntl.flock(turnstile, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX)
        yield


@contextmanager
def _opened(device: str, part: str) -> Iterator[int]:
    """A lock file, open; closing it frees the lock."""
    name = f"automc-{os.getuid()}-{quote(device, safe='') or 'this'}.{part}"
    file = os.open(Path(tempfile.gettempdir()) / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield file
    finally:
        os.close(file)


@contextmanager
def _inside_once() -> Iterator[None]:
    """A thread that asked again would wait for itself for ever."""
    assert not getattr(_inside, "held", False), "this thread holds the machine already"
    _inside.held = True
    try:
        yield
    finally:
        _inside.held = False
