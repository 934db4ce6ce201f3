"""The search loop: ask, record, run, tell.

The loop is the only writer of its study's trials. It keeps a mirror of them, loaded once, because asking the
store for all trials before every proposal would make a long study quadratic.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import Enum
from functools import partial
from typing import Protocol

from automc.core.metrics import Measurement
from automc.core.ports import Executor, Outcome, Proposal, Proposer, Stopper, TrialStore
from automc.core.rivals import Rivals
from automc.core.rungs import promotion
from automc.core.space import SearchSpace
from automc.core.study import StudySpec
from automc.core.trial import MAX_ATTEMPTS, Trial, TrialState


class Ending(Enum):
    """Why ``run`` returned. Every ending leaves a study that can be resumed and extended.

    DONE: the budget is spent. DRAINED: it was asked to halt and the running trials were finished.
    INTERRUPTED: it was told to quit at once; what ran waits again.
    """

    DONE = "done"
    DRAINED = "drained"
    INTERRUPTED = "interrupted"


class Listener(Protocol):
    """Watches a search. Called in the driver's thread, between two steps of the loop; must not block."""

    def added(self, trial: Trial) -> None:
        """A trial was recorded and waits."""
        ...

    def finished(self, trial: Trial) -> None:
        """A trial is complete, stopped or failed."""
        ...

    def noted(self, number: int, step: int, value: float) -> None:
        """A running trial reported."""
        ...


class Silent:
    """The listener that ignores everything."""

    def added(self, trial: Trial) -> None:
        pass

    def finished(self, trial: Trial) -> None:
        pass

    def noted(self, number: int, step: int, value: float) -> None:
        pass


class Search:
    """One run of a study over its parts.

    Determinism: the proposal for trial n is asked when exactly the trials up to n - window have been told
    (and, after an extension, all trials before it), in order of number. So neither the number of workers, nor
    their speed, nor a crash changes which policies are evaluated.

    Args:
        parts: proposer and stopper, freshly built: they are told everything from the store.
    """

    def __init__(
        self,
        spec: StudySpec,
        space: SearchSpace,
        parts: tuple[Proposer, Stopper],
        executor: Executor,
        store: TrialStore,
        listener: Listener | None = None,
    ) -> None:
        self._spec, self._space = spec, space
        self._proposer, self._stopper = parts
        self._executor, self._store = executor, store
        self._listener: Listener = listener or Silent()
        self._trials: list[Trial] = []
        self._told = 0
        self._running: set[int] = set()
        self._losses: Counter[int] = Counter()
        self._notes: dict[int, dict[int, float]] = {}
        self._alike: dict[tuple[str, int], list[int]] = {}
        self._unfinished: set[int] = set()
        self._rivals = Rivals(spec)

    def run(self, halt: Callable[[], bool] = lambda: False) -> Ending:
        """Search until the budget is spent or ``halt()`` becomes true (asked at least once per gathering).

        A KeyboardInterrupt puts what runs back to waiting and ends with INTERRUPTED.
        """
        started = time.monotonic()
        seconds = self._spec.budget.seconds
        try:
            self._recover()
            while True:
                draining = halt()
                late = seconds is not None and time.monotonic() - started >= seconds
                if not draining:
                    self._launch(new=not late)
                if not self._running:
                    return Ending.DRAINED if draining else Ending.DONE
                for outcome in self._executor.gather(self._watch):
                    self._settle(outcome)
        except KeyboardInterrupt:
            self._requeue()
            return Ending.INTERRUPTED

    def _recover(self) -> None:
        """Load the study; what a dead driver left running waits again."""
        self._requeue()
        for trial in self._store.trials(self._spec.name):
            self._trials.append(trial)
            self._index(trial)

    def _index(self, trial: Trial) -> None:
        """Keep the look-ups in step with one trial's newest state."""
        alike = self._alike.setdefault(self._key(trial), [])
        if not alike or alike[-1] < trial.number:
            alike.append(trial.number)
        if trial.state.finished:
            self._unfinished.discard(trial.number)
        else:
            self._unfinished.add(trial.number)

    def _key(self, trial: Trial) -> tuple[str, int]:
        """Trials with equal keys measure the same thing."""
        trains = self._spec.rungs[trial.rung].steps > 0
        return self._space.effective(trial.policy, trains).fingerprint, trial.rung

    def _put(self, trial: Trial) -> Trial:
        stored = self._store.move(self._spec.name, trial)
        self._trials[stored.number] = stored
        self._index(stored)
        if stored.state.finished:
            self._listener.finished(stored)
        return stored

    def _launch(self, new: bool) -> None:
        """Fill the free slots: waiting trials first, then, if ``new``, fresh ones."""
        while self._executor.free > 0:
            trial = self._waiting() or (self._next() if new else None)
            if trial is None:
                return
            if trial.number in self._unfinished and self._twin(trial) is None:
                running = self._put(trial.to(TrialState.RUNNING))
                self._running.add(trial.number)
                self._notes.pop(trial.number, None)
                known = max(trial.number - self._spec.workers.window + 1, 0)
                rivals = self._rivals.of(trial.rung, self._trials, known)
                self._executor.submit(running, self._worth(running, known), rivals)

    def _waiting(self) -> Trial | None:
        """The first waiting trial that can start now; those whose twin is measured already are answered on the way."""
        for number in sorted(self._unfinished - self._running):
            trial = self._trials[number]
            twin = self._twin(trial)
            if twin is None:
                return trial
            if twin.state.finished and twin.measurement:
                # What was realized for the whole network (its distillation) is the other policy's own.
                realized = {name: facts for name, facts in twin.measurement.realized.items() if name != "*"}
                measurement = replace(twin.measurement, realized=realized)
                told = {"reason": twin.reason, "message": twin.message}
                self._put(trial.to(twin.state, measurement=measurement, twin=twin.number, **told))
        return None

    def _twin(self, trial: Trial) -> Trial | None:
        """The first earlier trial that has measured (or found hopeless), or is about to, what this one asks."""
        for number in self._alike[self._key(trial)]:
            earlier = self._trials[number]
            if number >= trial.number:
                break
            if earlier.state is TrialState.COMPLETE or earlier.hopeless or not earlier.state.finished:
                return earlier
        return None

    def _next(self) -> Trial | None:
        """Record the next trial, or None when the budget is spent or what it must know is not measured yet."""
        number = len(self._trials)
        if number >= self._spec.budget.trials:
            return None
        known = max(self._spec.first_trial, number - self._spec.workers.window + 1, 0)
        if any(n < known for n in self._unfinished):
            return None
        if known > self._told:
            self._proposer.tell(self._trials[self._told : known])
            self._told = known
        proposal, rung = self._propose(number, known)
        trial = self._store.add(self._spec.name, proposal, rung)
        self._trials.append(trial)
        self._index(trial)
        self._listener.added(trial)
        return trial

    def _propose(self, number: int, known: int) -> tuple[Proposal, int]:
        """A promotion where one is due, else what the proposer says; both know the first ``known`` trials only."""
        spec = self._spec
        if len(spec.rungs) > 1:
            up = promotion(self._trials[:known], self._trials, spec.rungs, spec.objectives, spec.constraints)
            if up is not None:
                return Proposal(up.policy, up.memo), up.rung + 1
        proposal = self._proposer.ask(range(number, number + 1))[0]
        return Proposal(self._space.policy(proposal.policy), proposal.memo), 0

    def _worth(self, trial: Trial, known: int) -> Callable[[int, float], bool]:
        """The stopper's verdict on this trial's reports, against those of the first ``known`` trials."""
        peers: list[list[tuple[int, float]]] = []
        if self._spec.rungs[trial.rung].steps > 0:
            peers = [self._reports(t.number) for t in self._trials[:known] if t.rung == trial.rung]
        return partial(self._stopper.worth, peers=[reports for reports in peers if reports])

    def _watch(self, number: int, step: int, value: float) -> None:
        self._store.note(self._spec.name, number, step, value)
        self._notes.setdefault(number, {})[step] = value
        self._listener.noted(number, step, value)

    def _reports(self, number: int) -> list[tuple[int, float]]:
        if number not in self._notes:
            self._notes[number] = dict(self._store.notes(self._spec.name, number))
        return sorted(self._notes[number].items())

    def _settle(self, outcome: Outcome) -> None:
        """Record what a worker answered; a late answer of an older attempt changes nothing."""
        trial = self._trials[outcome.number]
        if outcome.number not in self._running or outcome.attempt != trial.attempts:
            return
        self._running.discard(outcome.number)
        if outcome.state is TrialState.WAITING:
            self._losses[outcome.number] += 1
            if self._losses[outcome.number] >= MAX_ATTEMPTS:
                self._put(trial.to(TrialState.FAILED, reason="lost", message=outcome.message))
                return
            self._put(trial.to(TrialState.WAITING))
            return
        changes: Mapping[str, Measurement | str | None] = {
            "measurement": outcome.measurement,
            "reason": outcome.reason,
            "message": outcome.message,
        }
        self._put(trial.to(outcome.state, **changes))

    def _requeue(self) -> None:
        """What the store calls running waits again: whose it was, this object may not know, being new or interrupted
        between a write and its note of it.
        """
        for trial in self._store.trials(self._spec.name, states=[TrialState.RUNNING]):
            self._store.move(self._spec.name, trial.to(TrialState.WAITING))
