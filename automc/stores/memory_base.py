"""What the store in memory keeps of a study, and its history."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from automc.core.history import Artifact, Attempt, FrontChange
from automc.core.metrics import Measurement
from automc.core.ports import Outcome
from automc.core.trial import Trial, TrialState
from automc.core.wishes import Wish
from automc.stores import steps
from automc.stores.codec import now_text, plain
from automc.stores.owners import Holder, check_writer


@dataclass
class Kept:
    """A study. ``notes`` has the reports of each (number, attempt); ``memories`` are by revision; specs and facts are
    JSON, as a database keeps them; ``order`` has the finished trials in the order in which they finished.
    """

    specs: list[str]
    facts: str
    created: str
    trials: list[Trial] = field(default_factory=list)
    notes: dict[tuple[int, int], dict[int, float]] = field(default_factory=dict)
    memories: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    attempts: dict[tuple[int, int], Attempt] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)
    changes: dict[tuple[int, int], bool] = field(default_factory=dict)
    artifacts: dict[tuple[int, str], Artifact] = field(default_factory=dict)
    wishes: dict[int, Wish] = field(default_factory=dict)
    lease: Holder | None = None


class MemoryHistory:
    """A HistoryStore, and the look-ups that all of the store in memory shares."""

    def __init__(self, other: MemoryHistory | None = None, clock: Callable[[], float] = time.time) -> None:
        self._studies: dict[str, Kept] = other._studies if other else {}
        self._clock = clock
        self._token = uuid.uuid4().hex
        self._fences: dict[str, int] = {}

    def late(self, study: str, outcome: Outcome) -> None:
        self._trial(study, outcome.number)
        known = self._study(study).attempts
        old = known.get((outcome.number, outcome.attempt))
        if old is None or not old.state.finished:
            new = self._ended(old or Attempt(outcome.number, outcome.attempt, outcome.state), outcome)
            known[new.number, new.attempt] = replace(new, late=True, fence=self._fences.get(study))

    def attempts(self, study: str, number: int | None = None) -> Sequence[Attempt]:
        known = self._study(study).attempts
        return [known[key] for key in sorted(known) if number is None or key[0] == number]

    def finishing(self, study: str) -> Sequence[int]:
        return list(self._study(study).order)

    def front_changes(self, study: str) -> Sequence[FrontChange]:
        return [FrontChange(*key, entered) for key, entered in sorted(self._study(study).changes.items())]

    def keep_front(self, study: str, changes: Mapping[int, bool]) -> None:
        found = self._writable(study)
        found.changes.update(((len(found.order), number), entered) for number, entered in changes.items())

    def add_metrics(self, study: str, found: Mapping[int, Measurement]) -> None:
        trials, changed = self._writable(study).trials, {}
        for number, new in found.items():
            old = self._trial(study, number)
            changed[number] = replace(old, measurement=plain(steps.with_added(study, number, old.measurement, new)))
        for number, trial in changed.items():
            trials[number] = trial

    def keep_artifact(self, study: str, artifact: Artifact) -> None:
        self._trial(study, artifact.number)
        kept = replace(artifact, created=now_text())
        self._study(study).artifacts[artifact.number, artifact.sha256] = kept

    def artifacts(self, study: str, number: int | None = None) -> Sequence[Artifact]:
        found = [a for a in self._study(study).artifacts.values() if number is None or a.number == number]
        return sorted(found, key=lambda a: (a.number, a.file, a.created))

    def _record(self, study: str, old: TrialState, trial: Trial, outcome: Outcome | None) -> None:
        """A step of a trial, as its attempt tells it."""
        found = self._study(study)
        key = trial.number, trial.attempts
        if trial.state is TrialState.RUNNING:
            fence = self._fences.get(study)
            found.attempts[key] = Attempt(*key, trial.state, started=now_text(), fence=fence)
        elif old is TrialState.RUNNING and not found.attempts[key].late:
            told = outcome or Outcome(*key, trial.state, reason=trial.reason, message=trial.message)
            found.attempts[key] = self._ended(found.attempts[key], replace(told, state=trial.state))
        if trial.state.finished:
            found.order.append(trial.number)

    @staticmethod
    def _ended(attempt: Attempt, told: Outcome) -> Attempt:
        now = now_text()
        return replace(
            attempt,
            state=told.state,
            finished=now,
            seconds=steps.elapsed(attempt.started, now),
            reason=told.reason,
            message=told.message,
            log=told.log,
            host=told.host,
            pid=told.pid,
        )

    def _study(self, name: str) -> Kept:
        if name not in self._studies:
            raise steps.unknown_study(name, list(self._studies))
        return self._studies[name]

    def _writable(self, name: str) -> Kept:
        study = self._study(name)
        check_writer(name, study.lease, self._fences.get(name), self._clock())
        return study

    def _trial(self, study: str, number: int) -> Trial:
        trials = self._study(study).trials
        if not 0 <= number < len(trials):
            raise steps.unknown_trial(study, number, len(trials))
        return trials[number]
