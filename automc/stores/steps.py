"""What every store checks before it writes, and the sentences it refuses with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from automc.core.metrics import Measurement
from automc.core.ports import Outcome
from automc.core.rules import nearest
from automc.core.study import StudySpec
from automc.core.trial import LEGAL, Trial, TrialState
from automc.errors import IllegalTransition, StoreError, StudyExists, UnknownStudy, UnknownTrial


class Standing(NamedTuple):
    """Of a stored trial, what decides whether a step is legal; ``policy`` is the fingerprint."""

    state: TrialState
    attempts: int
    policy: str
    rung: int
    memo: str


def standing(trial: Trial) -> Standing:
    return Standing(trial.state, trial.attempts, trial.policy.fingerprint, trial.rung, trial.memo)


def check_step(study: str, stored: Standing, trial: Trial) -> None:
    """Refuse a trial that is not one legal step ahead of what is stored.

    Starting counts one attempt, every other step none; so the outcome of an older attempt is refused.

    Raises:
        IllegalTransition: with what is stored and what was asked.
    """
    where, new = f"trial {study}/{trial.number}", standing(trial)
    if new.state not in LEGAL.get(stored.state, frozenset()):
        raise IllegalTransition(f"{where} is {stored.state.value} and cannot become {new.state.value}")
    expected = stored.attempts + (new.state is TrialState.RUNNING)
    if new.attempts != expected:
        raise IllegalTransition(
            f"{where} cannot become {new.state.value} as attempt {new.attempts}: that would be attempt {expected}"
        )
    for field in ("policy", "rung", "memo"):
        if getattr(new, field) != getattr(stored, field):
            raise IllegalTransition(f"{where}: a step never changes the {field}")
    if trial.measurement is not None and not trial.state.finished:
        raise IllegalTransition(f"{where} is to be {new.state.value}, and only a finished trial has a measurement")


def with_added(study: str, number: int, known: Measurement | None, new: Measurement) -> Measurement:
    """A measurement with more metrics and their errors.

    Raises:
        StoreError: nothing was measured, or one of the metrics is known already.
    """
    if known is None:
        raise StoreError(f"trial {study}/{number} was not measured, so no metric can be added to it")
    twice = [name for name in new.metrics if name in known.metrics]
    if twice:
        raise StoreError(f"trial {study}/{number} has {twice[0]} already; what was measured once stays as it is")
    return replace(known, metrics={**known.metrics, **new.metrics}, errors={**known.errors, **new.errors})


def added(new: Measurement) -> str:
    """Metrics that are added, as the event log tells it."""
    return ", ".join(f"{name} {value:.10g}" for name, value in sorted(new.metrics.items()))


def check_latencies(device: str, rows: Mapping[str, float], rounds: int) -> None:
    """Raises StoreError for a time that is no finite number of milliseconds from 0 on, or for less than one round."""
    if rounds < 1:
        raise StoreError(f"latencies of {device!r}: rounds must be at least 1, not {rounds}")
    for key, milliseconds in rows.items():
        if not (math.isfinite(milliseconds) and milliseconds >= 0):
            raise StoreError(f"latency of {key!r} on {device!r}: must be a finite time, at least 0, not {milliseconds}")


def check_revision(stored: int, spec: StudySpec) -> None:
    """Raises StoreError unless the revision follows the stored one."""
    if spec.revision != stored + 1:
        raise StoreError(
            f"study {spec.name!r}: revision {spec.revision} cannot follow revision {stored}; "
            "somebody else revised it, read it again"
        )


def told(old: TrialState, trial: Trial) -> str:
    """A step as the event log tells it."""
    details = [f"{old.value} -> {trial.state.value}", f"attempt {trial.attempts}"]
    details += [f"as trial {trial.twin}"] if trial.twin is not None else []
    details += [": ".join(filter(None, (trial.reason, trial.message)))] if trial.reason or trial.message else []
    return ", ".join(details)


def elapsed(started: str | None, finished: str) -> float | None:
    """Seconds between two texts of ``now_text``; at least 0, whatever the clock did meanwhile."""
    if started is None:
        return None
    return max((datetime.fromisoformat(finished) - datetime.fromisoformat(started)).total_seconds(), 0.0)


def told_late(outcome: Outcome) -> str:
    """An answer that came too late, as the event log tells it."""
    said = f"attempt {outcome.attempt} answered late: {outcome.state.value}"
    return f"{said}, {outcome.reason}" if outcome.reason else said


def check_granted(study: str, wish: int, granted: bool) -> None:
    """Raises IllegalTransition where a wish did not wait."""
    if not granted:
        raise IllegalTransition(f"study {study!r}: wish {wish} is no wish of it, or a trial already")


def unknown_study(name: str, names: Sequence[str]) -> UnknownStudy:
    known = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "none yet"
    return UnknownStudy(f"no study {name!r}{nearest(name, names)} (studies: {known})")


def unknown_trial(study: str, number: int, count: int) -> UnknownTrial:
    has = f"it has 0 to {count - 1}" if count else "it has none"
    return UnknownTrial(f"study {study!r} has no trial {number} ({has})")


def study_exists(name: str) -> StudyExists:
    return StudyExists(f"a study {name!r} exists already; give another name, or go on with 'automc resume {name}'")
