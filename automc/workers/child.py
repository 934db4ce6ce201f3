"""What runs in the process of a ward: one evaluation after another, until the parent is gone."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import pickle
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from automc.core.ports import Evaluator, Outcome
from automc.core.trial import Trial
from automc.workers import devices
from automc.workers.outcomes import failed, judged, judged_error, told

REPORT, OUTCOME, DEVICE = "report", "outcome", "device"
"""What the child sends: a report of a running trial, its outcome, a measurement for another node to do."""

_PR_SET_PDEATHSIG = 1
_DEADLY = ("INT", "TERM", "SEGV", "ABRT", "BUS", "FPE", "ILL")


def live(evaluator: Evaluator, pipe: Connection, log: int, parent: int) -> None:
    """Evaluate what the pipe brings; returns when the parent has closed it.

    Args:
        log: file descriptor that takes stdout and stderr. parent: process id.
    """
    _settle(log, parent)
    devices.relay = _asking(pipe)
    while True:
        try:
            data = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        pipe.send((OUTCOME, _answer(evaluator, data, pipe)))


def _answer(evaluator: Evaluator, data: bytes, pipe: Connection) -> bytes:
    """The pickled outcome of a pickled trial."""
    trial, rest = pickle.loads(data)
    try:
        worth, rivals = pickle.loads(rest)
    except Exception as error:
        return pickle.dumps(judged_error(trial, error))

    def monitor(step: int, value: float) -> bool:
        pipe.send((REPORT, (int(step), float(value))))
        return bool(worth(step, value))

    try:
        outcome = judged(evaluator, trial, monitor, rivals)
    except BaseException as error:  # an interrupt of the evaluation's own: nobody at a keyboard reaches this process
        outcome = judged_error(trial, error)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a user's code may have closed or replaced them
            stream.flush()
    return _portable(trial, outcome)


def _portable(trial: Trial, outcome: Outcome) -> bytes:
    """The outcome as bytes that can be read again: what a metric of a user's own returns may not be."""
    try:
        data = pickle.dumps(outcome)
        pickle.loads(data)
    except Exception as error:
        return pickle.dumps(failed(trial, "error", f"its measurement cannot be sent: {told(error)}"))
    return data


def _settle(log: int, parent: int) -> None:
    """Be a process of one's own: die with the parent, die of signals, write into the log."""
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
    faulthandler.disable()  # enabled anew below: it would keep the parent's handlers
    for name in _DEADLY:  # the parent's handlers are not ours
        signal.signal(getattr(signal, f"SIG{name}"), signal.SIG_DFL)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    sys.stdout = open(1, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115 (for good)
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    faulthandler.enable(sys.stderr)


def _asking(pipe: Connection) -> Callable[[str, Callable[..., Any], tuple[Any, ...]], Any]:
    """Measurements on other nodes: the parent does them, because Ray does not survive the fork."""

    def ask(device: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        pipe.send((DEVICE, (device, function, arguments)))
        answer = pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    return ask
