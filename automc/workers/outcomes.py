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


def judged(evaluator: Evaluator, trial: Trial, monitor: Monitor, rivals: Sequence[Rival] | None = None) -> Outcome:
    """Evaluate the trial; every exception but an interrupt becomes a FAILED outcome with its reason.

    The trial is STOPPED when the monitor asked for its end, or, with a reason, when the evaluator found it hopeless. A
    trial that the monitor ended has no reason: it might have become better.
    """
    stopped = False

    def reporting(step: int, value: float) -> bool:
        nonlocal stopped
        stopped = not monitor(step, value) or stopped
        return not stopped

    try:
        measurement = evaluator.evaluate(trial.policy, trial.rung, reporting, rivals)
    except NotFinite as error:
        return failed(trial, "nan", str(error))
    except MemoryError as error:
        return failed(trial, "oom", str(error) or "out of memory")
    except AutomcError as error:
        return failed(trial, "error", str(error))
    except Exception as error:
        message = _told(error)
        return failed(trial, "oom" if _is_oom(error, message) else "error", message)
    ended, measurement = measurement.ended, replace(measurement, ended=None)
    state = TrialState.STOPPED if stopped or ended else TrialState.COMPLETE
    reason, message = ("", "") if stopped or ended is None else (ended.reason, ended.message)
    return Outcome(trial.number, trial.attempts, state, measurement, reason, message)


def failed(trial: Trial, reason: str, message: str) -> Outcome:
    """A FAILED outcome; a long message is cut, its beginning and end kept."""
    if len(message) > MESSAGE_CHARACTERS:
        half = MESSAGE_CHARACTERS // 2
        message = f"{message[:half]} ... {message[-half:]}"
    return Outcome(trial.number, trial.attempts, TrialState.FAILED, reason=reason, message=message)


def _is_oom(error: Exception, message: str) -> bool:
    """Torch reports a failed allocation as a RuntimeError (on the CPU) or as torch.OutOfMemoryError."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = message.lower()
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)


def _told(error: Exception) -> str:
    """Type, message and the place where it was raised: a bug in a user's model is found from this line."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name})" if frames else ""
    try:
        text = str(error)
    except Exception:
        text = "its message cannot be shown"
    return f"{type(error).__name__}: {text}{where}"
