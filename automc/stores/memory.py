"""The trial database in memory: for tests, dry runs and studies nobody wants to keep."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from automc.core.ports import Owner, Proposal, StudySummary
from automc.core.study import StudySpec
from automc.core.trial import Trial, TrialState
from automc.stores import steps
from automc.stores.codec import dumps, loads, now_text, plain, read_spec
from automc.stores.filters import check_limit, matches, parse, sort_keys, value_of
from automc.stores.owners import Holder, check_writer, still_mine, taken


@dataclass
class _Study:
    """``notes`` has the reports of each (number, attempt); ``memories`` are by revision; specs and facts are JSON, as a
    database keeps them.
    """

    specs: list[str]
    facts: str
    created: str
    trials: list[Trial] = field(default_factory=list)
    notes: dict[tuple[int, int], dict[int, float]] = field(default_factory=dict)
    memories: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    lease: Holder | None = None


class MemoryStore:
    """A Store (core/ports.py) and its ``query`` (stores/__init__.py). Not for several threads.

    Args:
        other: another store whose studies this one shares, as two processes share a file; each has its own leases.
        clock: seconds since 1970; for tests.
    """

    def __init__(self, other: MemoryStore | None = None, clock: Callable[[], float] = time.time) -> None:
        self._studies: dict[str, _Study] = other._studies if other else {}
        self._latencies: dict[str, dict[str, float]] = other._latencies if other else {}
        self._clock = clock
        self._token = uuid.uuid4().hex
        self._fences: dict[str, int] = {}

    def close(self) -> None:
        """Nothing is held."""

    # Studies

    def create(self, spec: StudySpec, facts: Mapping[str, Any]) -> None:
        if spec.name in self._studies:
            raise steps.study_exists(spec.name)
        self._studies[spec.name] = _Study([dumps(spec.to_data())], dumps(facts), now_text())

    def revise(self, spec: StudySpec, facts: Mapping[str, Any] | None = None) -> None:
        study = self._writable(spec.name)
        steps.check_revision(read_spec(spec.name, study.specs[-1]).revision, spec)
        kept = study.facts if facts is None else dumps(facts)
        study.specs.append(dumps(spec.to_data()))
        study.facts = kept

    def spec(self, study: str) -> StudySpec:
        return read_spec(study, self._study(study).specs[-1])

    def facts(self, study: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = loads(self._study(study).facts)
        return found

    def studies(self) -> Sequence[StudySummary]:
        return [
            StudySummary(
                self.spec(name),
                {state: sum(trial.state is state for trial in study.trials) for state in TrialState},
                study.created,
            )
            for name, study in self._studies.items()
        ]

    # Trials

    def add(self, study: str, proposal: Proposal, rung: int) -> Trial:
        trials = self._writable(study).trials
        trials.append(Trial(len(trials), proposal.policy, proposal.memo, rung=rung))
        return trials[-1]

    def move(self, study: str, trial: Trial) -> Trial:
        trials = self._writable(study).trials
        steps.check_step(study, steps.standing(self._trial(study, trial.number)), trial)
        trials[trial.number] = replace(trial, measurement=plain(trial.measurement))
        return trials[trial.number]

    def note(self, study: str, number: int, step: int, value: float) -> None:
        notes, trial = self._writable(study).notes, self._trial(study, number)
        if trial.state is TrialState.RUNNING:
            notes.setdefault((number, trial.attempts), {})[step] = float(value)

    def notes(self, study: str, number: int) -> Sequence[tuple[int, float]]:
        attempt = self._trial(study, number).attempts
        return sorted(self._study(study).notes.get((number, attempt), {}).items())

    def trials(self, study: str, states: Sequence[TrialState] = ()) -> Sequence[Trial]:
        return [trial for trial in self._study(study).trials if not states or trial.state in states]

    def query(self, study: str, where: str = "", sort: Sequence[str] = (), limit: int | None = None) -> Sequence[Trial]:
        check_limit(limit)
        keys = sort_keys(sort)
        tree = parse(where) if where.strip() else None
        found = [trial for trial in self._study(study).trials if tree is None or matches(tree, trial)]
        for name, descending in reversed(keys):
            found = _sorted(found, name, descending)
        return found[:limit]

    # Memories

    def keep_memory(self, study: str, told: int, state: bytes) -> None:
        self._writable(study).memories[self.spec(study).revision] = (told, bytes(state))

    def memory(self, study: str) -> tuple[int, bytes] | None:
        return self._study(study).memories.get(self.spec(study).revision)

    # Latencies

    def latencies(self, device: str) -> Mapping[str, float]:
        return dict(sorted(self._latencies.get(device, {}).items()))

    def keep_latencies(self, device: str, rows: Mapping[str, float], rounds: int = 1) -> None:
        steps.check_latencies(device, rows, rounds)
        self._latencies.setdefault(device, {}).update((key, float(value)) for key, value in rows.items())

    # Leases

    def take(self, study: str, owner: Owner) -> None:
        found = self._study(study)
        found.lease = taken(study, found.lease, owner, self._token, self._clock())
        self._fences[study] = found.lease.fence

    def renew(self, study: str) -> None:
        found = self._study(study)
        held = still_mine(study, found.lease, self._fences.get(study))
        found.lease = replace(held, renewed=self._clock())

    def release(self, study: str) -> None:
        fence, found = self._fences.pop(study, None), self._studies.get(study)
        if found is not None and found.lease is not None and found.lease.fence == fence:
            found.lease = replace(found.lease, token=None, stop_asked=False)

    def ask_stop(self, study: str) -> bool:
        found = self._study(study)
        if found.lease is None or not found.lease.alive(self._clock()):
            return False
        found.lease = replace(found.lease, stop_asked=True)
        return True

    def stop_asked(self, study: str) -> bool:
        lease = self._study(study).lease
        return lease is not None and lease.stop_asked

    def _study(self, name: str) -> _Study:
        if name not in self._studies:
            raise steps.unknown_study(name, list(self._studies))
        return self._studies[name]

    def _writable(self, name: str) -> _Study:
        study = self._study(name)
        check_writer(name, study.lease, self._fences.get(name), self._clock())
        return study

    def _trial(self, study: str, number: int) -> Trial:
        trials = self._study(study).trials
        if not 0 <= number < len(trials):
            raise steps.unknown_trial(study, number, len(trials))
        return trials[number]


def _sorted(trials: list[Trial], name: str, descending: bool) -> list[Trial]:
    """Stable; trials without the value, or with NaN (which is not equal to itself), come last."""
    values = [(value_of(name, trial), trial) for trial in trials]
    known: list[tuple[Any, Trial]] = [(value, trial) for value, trial in values if value is not None and value == value]
    known.sort(key=lambda pair: pair[0], reverse=descending)
    return [trial for _, trial in known] + [trial for value, trial in values if value is None or value != value]
