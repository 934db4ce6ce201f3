"""From an evaluation, or the error that ended it, to an Outcome."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Sequence
from dataclasses import replace

from automc.core.hopeless import Rival
from automc.core.ports import Evaluator, Monitor, Outcome
from automc.core.trial import Trial, TrialState
from automc.errors import AutomcError, NotFinite

MESSAGE_CHARACTERS = 2000
"""Of a message, and of the end of a log."""


def judged(evaluator: Evaluator, trial: Trial, monitor: Monitor, rivals: Sequence[Rival] | None = None) -> Outcome:
    """Evaluate the trial; every exception but an interrupt becomes a FAILED outcome with its reason.

    The trial is STOPPED when the monitor asked for its end, or when the evaluator found it hopeless.
    """
    behind = ""

    def reporting(step: int, value: float) -> bool:
        nonlocal behind
        if not behind and not monitor(step, value):
            behind = f"at step {step}, where it reported {value:.4g}"
        return not behind

    try:
        measurement = evaluator.evaluate(trial.policy, trial.rung, reporting, rivals)
        ended, measurement = measurement.ended, replace(measurement, ended=None)
    except (Exception, SystemExit) as error:
        return judged_error(trial, error)
    if behind:
        return Outcome(trial.number, trial.attempts, TrialState.STOPPED, measurement, "behind", behind)
    if ended:
        return Outcome(trial.number, trial.attempts, TrialState.STOPPED, measurement, ended.reason, ended.message)
    return Outcome(trial.number, trial.attempts, TrialState.COMPLETE, measurement)


def judged_error(trial: Trial, error: BaseException) -> Outcome:
    """A FAILED outcome with the reason that the error stands for."""
    if isinstance(error, AutomcError):
        return failed(trial, "nan" if isinstance(error, NotFinite) else "error", _text(error))
    if isinstance(error, MemoryError):
        return failed(trial, "oom", _text(error) or "out of memory")
    message = told(error)
    return failed(trial, "oom" if _is_oom(error, message) else "error", message)


def failed(trial: Trial, reason: str, message: str, log: str = "") -> Outcome:
    """A FAILED outcome; a long message is cut, its beginning and end kept."""
    state, short = TrialState.FAILED, storable(shortened(message))
    return Outcome(trial.number, trial.attempts, state, reason=reason, message=short, log=log)


def gone(trial: Trial, reason: str, message: str, log: str = "") -> Outcome:
    """A WAITING outcome: the process or the worker is gone, so the trial may be started again."""
    state, short = TrialState.WAITING, storable(shortened(message))
    return Outcome(trial.number, trial.attempts, state, reason=reason, message=short, log=log)


def shortened(message: str) -> str:
    """At most about MESSAGE_CHARACTERS of a message."""
    if len(message) <= MESSAGE_CHARACTERS:
        return message
    half = MESSAGE_CHARACTERS // 2
    return f"{message[:half]} ... {message[-half:]}"


def storable(text: str) -> str:
    """The text as every database takes it: without NUL, and without halves of characters."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")


def told(error: BaseException) -> str:
    """Type, message and the place where it was raised: a bug in a user's model is found from this line."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name})" if frames else ""
    return f"{type(error).__name__}: {_text(error)}{where}"


def _text(error: BaseException) -> str:
    """The message; errors of a user's own may have none that can be shown."""
    try:
        return str(error)
    except Exception:
        return "its message cannot be shown"


def _is_oom(error: BaseException, message: str) -> bool:
    """Torch reports a failed allocation as a RuntimeError (on the CPU) or as torch.OutOfMemoryError."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = message.lower()
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)
