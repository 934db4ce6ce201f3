"""A process for evaluations, which may crash, hang or eat memory, and who watches over it.

It is forked from the process that holds model and data, so that it shares their memory and a new one is there at
once. The parent only watches: it computes nothing, and starts no threads of torch, which do not survive a fork.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import pickle
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from automc.core.hopeless import Rival
from automc.core.ports import Evaluator, Outcome, Worth
from automc.core.study import Workers
from automc.core.trial import Trial
from automc.errors import AutomcError, WorkerError, one_line
from automc.workers.child import DEVICE, OUTCOME, REPORT, live
from automc.workers.devices import on_device
from automc.workers.outcomes import MESSAGE_CHARACTERS, failed, gone, storable

WATCH_SECONDS = 0.1
"""How often time and memory of the process are looked at."""

_MEGABYTE = 2**20
_LOG_BYTES = 2**16  # a crash of Python alone writes some ten thousand

Report = Callable[[int, float], None]


class _Child(NamedTuple):
    pid: int
    pipe: Connection
    log: int


class Ward:
    """Evaluates one trial at a time in a process of its own, within the limits of ``workers``.

    Raises:
        WorkerError: model and data alone hold more than ``memory_mb``.
    """

    def __init__(self, evaluator: Evaluator, workers: Workers) -> None:
        self._evaluator, self._limits = evaluator, workers
        self._child: _Child | None = None
        self._log = b""
        held = resident_mb(os.getpid())
        if workers.memory_mb is not None and held >= workers.memory_mb:
            raise WorkerError(
                f"workers.memory_mb: {workers.memory_mb} is used up before the first trial: Python, model and data "
                f"hold {held:.0f} MB; give more"
            )

    @property
    def pid(self) -> int | None:
        """Of the process, where there is one."""
        return self._child.pid if self._child else None

    def evaluate(self, trial: Trial, worth: Worth, rivals: Sequence[Rival] | None, report: Report) -> Outcome:
        """The trial's outcome, whatever happens to the process; ``report`` hears every (step, value) meanwhile."""
        from ray import cloudpickle

        child, self._log = self._living(), b""
        self._listen(child)
        self._log = b""  # what was written between two trials is of neither
        began = time.monotonic()
        with contextlib.suppress(BrokenPipeError):  # the look below says what killed it
            child.pipe.send_bytes(pickle.dumps((trial, cloudpickle.dumps((worth, rivals)))))
        while True:
            wait([child.pipe, child.log], WATCH_SECONDS)
            self._listen(child)
            outcome = self._heard(child, trial, report) or self._ended(child, trial)
            outcome = outcome or self._limited(child, trial, time.monotonic() - began)
            if outcome is not None:
                return replace(outcome, host=socket.gethostname(), pid=child.pid)

    def close(self) -> None:
        """End the process. Harmless when repeated."""
        if self._child is not None:
            self._kill(self._child)

    def _living(self) -> _Child:
        """The process, a new one where the last one is gone."""
        if self._child is not None and os.waitpid(self._child.pid, os.WNOHANG)[0]:
            self._forget(self._child)
        if self._child is None:
            self._child = self._forked()
        return self._child

    def _forked(self) -> _Child:
        ours, theirs = multiprocessing.Pipe()
        read, write = os.pipe()
        os.set_blocking(read, False)
        parent = os.getpid()
        gc.freeze()  # the child must not collect what belongs to the parent, whose threads it lacks
        pid = os.fork()
        if pid == 0:
            try:
                ours.close()
                os.close(read)
                live(self._evaluator, theirs, write, parent)
            finally:
                os._exit(1)
        gc.unfreeze()
        theirs.close()
        os.close(write)
        return _Child(pid, ours, read)

    def _heard(self, child: _Child, trial: Trial, report: Report) -> Outcome | None:
        """Read what the process has sent; its outcome, if that is among it."""
        try:
            while child.pipe.poll():
                kind, content = child.pipe.recv()
                if kind == REPORT:
                    report(*content)
                elif kind == DEVICE:
                    threading.Thread(target=_measure, args=(child.pipe, *content), daemon=True).start()
                elif kind == OUTCOME:
                    self._listen(child)
                    outcome: Outcome = pickle.loads(content)
                    return outcome if not outcome.reason else self._logged(outcome)
        except (EOFError, OSError):
            pass  # the process is gone, which _ended finds
        return None

    def _ended(self, child: _Child, trial: Trial) -> Outcome | None:
        """What became of a trial whose process is no more."""
        pid, status = os.waitpid(child.pid, os.WNOHANG)
        if not pid:
            return None
        self._listen(child)
        self._forget(child)
        code = os.waitstatus_to_exitcode(status)
        dead = f"the worker died during attempt {trial.attempts}"
        if code >= 0:
            return gone(trial, "lost", f"{dead}: its process ended with exit code {code}", self._tail())
        name = signal.Signals(-code).name
        hint = " (by hand, or by the system for want of memory)" if -code == signal.SIGKILL else ""
        return gone(trial, "signal", f"{dead}: {name} killed its process{hint}", self._tail())

    def _limited(self, child: _Child, trial: Trial, lasted: float) -> Outcome | None:
        """Kill the process where it is past a limit."""
        seconds, most = self._limits.timeout_s, self._limits.memory_mb
        if seconds is not None and lasted > seconds:
            reason, message = "timeout", f"ended after {lasted:.1f} s; the limit is timeout_s = {seconds:g}"
        elif most is not None and (held := resident_mb(child.pid)) > most:
            reason, message = "oom", f"ended when it held {held:.0f} MB; the limit is memory_mb = {most}"
        else:
            return None
        self._kill(child)
        return failed(trial, reason, message, self._tail())

    def _kill(self, child: _Child) -> None:
        for end in (os.kill, os.killpg):  # its own children are of its group
            with contextlib.suppress(ProcessLookupError, PermissionError):
                end(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)
        self._listen(child)
        self._forget(child)

    def _forget(self, child: _Child) -> None:
        child.pipe.close()
        os.close(child.log)
        self._child = None

    def _listen(self, child: _Child) -> None:
        """Take what lies in the log's pipe, so that the process can write on; only the end is kept."""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(child.log, 65536):
                self._log = (self._log + piece)[-_LOG_BYTES:]

    def _logged(self, outcome: Outcome) -> Outcome:
        return replace(outcome, log=self._tail())

    def _tail(self) -> str:
        """The end of the log, without the list of all extension modules with which Python ends its tale of a crash."""
        lines = storable(self._log.decode("utf-8", "replace")).splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith("Extension modules:"))[-MESSAGE_CHARACTERS:]


def resident_mb(pid: int) -> float:
    """Megabytes of memory that a process holds, those it shares included; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize() / _MEGABYTE
    except (OSError, IndexError):
        return 0.0


def _measure(pipe: Connection, device: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Measure on another node what the process asked for, and answer it, if it still lives."""
    answer: Any
    try:
        answer = on_device(device, function, *arguments)
    except AutomcError as error:
        answer = error
    except Exception as error:
        answer = WorkerError(f"device {device!r}: {one_line(error)}")
    with contextlib.suppress(OSError):
        pipe.send(answer)
