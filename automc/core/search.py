"""The search loop: ask, record, run, tell.

The loop is the only writer of its study's trials. It keeps a mirror of them, loaded once, because asking the
store for all trials before every proposal would make a long study quadratic.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum
from functools import partial
from typing import Protocol

from automc.core.front import GrowingFront
from automc.core.history import corrections
from automc.core.metrics import Measurement
from automc.core.ports import Executor, Outcome, Proposal, Proposer, Stopper
from automc.core.rivals import Rivals
from automc.core.rungs import promotion
from automc.core.space import SearchSpace
from automc.core.store import Control, Store
from automc.core.study import StudySpec
from automc.core.trial import EXCLUDED, Trial, TrialState
from automc.core.twins import Twins
from automc.core.wishes import Wish
from automc.errors import LeaseHeld, OutOfSpace, WorkerError

PAUSE_SECONDS = 0.1
"""How often a paused search asks whether it may go on."""

BATCH_SECONDS = 0.1
"""A transaction that waited so long for proposals ends: others wait for its lock."""


class Ending(Enum):
    """Why ``run`` returned. Every ending leaves a study that can be resumed and extended.

    DONE: the budget is spent. DRAINED: it was asked to stop and the running trials were finished.
    INTERRUPTED: it was cancelled; what ran waits again.
    """

    DONE = "done"
    DRAINED = "drained"
    INTERRUPTED = "interrupted"


class Listener(Protocol):
    """Watches a search. Called in the driver's thread, between two steps of the loop, about what is durable by then;
    must not block.
    """

    def added(self, trial: Trial) -> None:
        """A trial was recorded; it waits or runs."""
        ...

    def finished(self, trial: Trial) -> None:
        """A trial is complete, stopped or failed."""
        ...

    def noted(self, number: int, step: int, value: float) -> None:
        """A running trial reported."""
        ...

    def paused(self, now: bool) -> None:
        """A pause was asked, or has ended. Running trials still finish."""
        ...


class Silent:
    """The listener that ignores everything."""

    def added(self, trial: Trial) -> None:
        pass

    def finished(self, trial: Trial) -> None:
        pass

    def noted(self, number: int, step: int, value: float) -> None:
        pass

    def paused(self, now: bool) -> None:
        pass


class Search:
    """One run of a study over its parts.

    Determinism: the proposal for trial n is asked when exactly the trials up to n - window have been told
    (and, after an extension, all trials before it), in order of number. So neither the number of workers, nor
    their speed, nor a crash changes which policies are evaluated.

    Args:
        parts: proposer and stopper, freshly built: they are told everything from the store.
        read: a stored trial as this revision sees it, see revision.Reading. Excluded ones are told to nobody, never
            promoted and nobody's twin; those that still wait fail with that reason.
    """

    def __init__(
        self,
        spec: StudySpec,
        space: SearchSpace,
        parts: tuple[Proposer, Stopper],
        executor: Executor,
        store: Store,
        listener: Listener | None = None,
        read: Callable[[Trial], Trial] = lambda trial: trial,
    ) -> None:
        self._spec, self._space = spec, space
        self._proposer, self._stopper = parts
        self._executor, self._store = executor, store
        self._listener: Listener = listener or Silent()
        self._read = read
        self._trials: list[Trial] = []  # as they are stored: these take the steps
        self._seen: list[Trial] = []  # as this revision reads them: these decide
        self._told = 0
        self._running: set[int] = set()
        self._losses: Counter[int] = Counter()
        self._notes: dict[int, dict[int, float]] = {}
        self._twins = Twins(space, spec.rungs)
        self._unfinished: set[int] = set()
        self._rivals = Rivals(spec)
        self._front = GrowingFront(spec.objectives, spec.constraints)
        self._paused = False
        self._wished: Callable[[], Sequence[Wish]] = tuple
        self._granted: set[int] = set()
        self._untold: list[Callable[[], None]] = []

    def run(
        self, asked: Callable[[], Control] = lambda: Control.GO, wished: Callable[[], Sequence[Wish]] = lambda: ()
    ) -> Ending:
        """Search until the budget is spent or ``asked()`` (called at least once per gathering) says to end.

        A KeyboardInterrupt is a CANCEL that does not wait for the next gathering.

        Args:
            wished: policies that people asked for, those that became trials meanwhile included. They go first, also
                beyond the budget; one that is not in the space waits for a revision.
        """
        self._wished = wished
        started = time.monotonic()
        seconds = self._spec.budget.seconds
        try:
            self._recover()
            while (word := asked()) is not Control.CANCEL:
                self._tell_pause(word is Control.PAUSE)
                late = seconds is not None and time.monotonic() - started >= seconds
                if word is Control.GO:
                    self._launch(new=not late)
                if self._running:
                    self._settle(self._executor.gather(self._watch))
                elif word is Control.PAUSE:
                    time.sleep(PAUSE_SECONDS)
                    started += PAUSE_SECONDS  # a pause is no time of searching
                else:
                    return Ending.DRAINED if word is Control.STOP else Ending.DONE
        except KeyboardInterrupt:
            pass
        except WorkerError:
            self._requeue()
            raise
        self._requeue()
        return Ending.INTERRUPTED

    def _tell_pause(self, now: bool) -> None:
        if now != self._paused:
            self._paused = now
            self._listener.paused(now)

    def _recover(self) -> None:
        """Load the study; what a dead driver left running waits again."""
        self._requeue()
        for trial in self._store.trials(self._spec.name):
            self._append(trial)
        self._front = GrowingFront(self._spec.objectives, self._spec.constraints, self._seen)
        # Other objectives or constraints than before, and killed before the front followed.
        if changes := corrections(self._store.front_changes(self._spec.name), self._front.numbers):
            self._store.keep_front(self._spec.name, changes)
        with self._at_once():
            for trial in [self._seen[number] for number in sorted(self._unfinished)]:
                if trial.reason == EXCLUDED:
                    why = {"reason": EXCLUDED, "message": trial.message}
                    self._put(self._trials[trial.number].to(TrialState.FAILED, **why))

    @contextmanager
    def _at_once(self) -> Iterator[None]:
        """What is written inside is one commit, slower than all else here; the listener hears of it afterwards."""
        with self._store.together():
            yield
        told, self._untold = self._untold, []
        for tell in told:
            tell()

    def _append(self, trial: Trial) -> None:
        self._trials.append(trial)
        self._seen.append(self._read(trial))
        self._twins.add(self._seen[-1])
        if not trial.state.finished:
            self._unfinished.add(trial.number)

    def _put(self, trial: Trial, outcome: Outcome | None = None) -> Trial:
        """One step of a trial, and with it what it changes on the front."""
        stored = self._store.move(self._spec.name, trial, outcome, self._front.add(self._read(trial)))
        self._trials[stored.number], self._seen[stored.number] = stored, self._read(stored)
        if stored.state.finished:
            self._unfinished.discard(stored.number)
            self._untold.append(partial(self._listener.finished, stored))
        return stored

    def _launch(self, new: bool) -> None:
        """Fill the free slots: waiting trials first, then, if ``new``, fresh ones."""
        more = True
        while more and (free := self._executor.free) > 0:
            beginning: list[Trial] = []
            with self._at_once():
                began = time.monotonic()
                while more and len(beginning) < free and time.monotonic() - began < BATCH_SECONDS:
                    trial = self._waiting() or self._grant() or (self._next() if new else None)
                    more = trial is not None
                    if trial is None or (trial.state is TrialState.WAITING and self._twin(trial.number) is not None):
                        continue
                    self._running.add(trial.number)
                    waits = trial.state is TrialState.WAITING
                    beginning.append(self._put(trial.to(TrialState.RUNNING)) if waits else trial)
            for trial in beginning:
                self._submit(trial)

    def _submit(self, running: Trial) -> None:
        self._notes.pop(running.number, None)
        known = max(running.number - self._spec.workers.window + 1, 0)
        rivals = self._rivals.of(running.rung, self._seen, known)
        self._executor.submit(running, self._worth(running, known), rivals)

    def _waiting(self) -> Trial | None:
        """The first waiting trial that can start now; those whose twin is measured already are answered on the way."""
        for number in sorted(self._unfinished - self._running):
            trial, twin = self._trials[number], self._twin(number)
            if twin is None:
                return trial
            if twin.state.finished and twin.measurement:
                # What was realized for the whole network (its distillation) is the other policy's own.
                realized = {name: facts for name, facts in twin.measurement.realized.items() if name != "*"}
                measurement = replace(twin.measurement, realized=realized)
                told = {"reason": twin.reason, "message": twin.message}
                self._put(trial.to(twin.state, measurement=measurement, twin=twin.number, **told))
        return None

    def _grant(self) -> Trial | None:
        """The trial of the first wish that can be one."""
        for wish in self._wished():
            if wish.id in self._granted or wish.rung >= len(self._spec.rungs):
                continue
            try:
                self._space.policy(wish.policy)
            except OutOfSpace:
                continue
            trial = self._store.grant(self._spec.name, wish)
            self._granted.add(wish.id)
            self._append(trial)
            self._untold.append(partial(self._listener.added, trial))
            return trial
        return None

    def _twin(self, number: int) -> Trial | None:
        """The earlier trial whose result is this one's too."""
        trial = self._seen[number]
        return self._twins.of(trial.policy, trial.rung, self._seen, number)

    def _next(self) -> Trial | None:
        """Record the next trial, running if it is to be run. None when the budget is spent or what it must
        know is not measured yet.
        """
        number = len(self._trials)
        if number >= self._spec.budget.trials:
            return None
        known = max(self._spec.first_trial, number - self._spec.workers.window + 1, 0)
        if any(n < known for n in self._unfinished):
            return None
        if known > self._told:
            self._proposer.tell(_counted(self._seen[self._told : known]))
            self._told = known
        proposal, rung = self._propose(number, known)
        first = self._twins.of(proposal.policy, rung, self._seen, number) is None
        trial = self._store.add(self._spec.name, proposal, rung, start=first)
        self._append(trial)
        self._untold.append(partial(self._listener.added, trial))
        return trial

    def _propose(self, number: int, known: int) -> tuple[Proposal, int]:
        """A promotion where one is due, else what the proposer says; both know the first ``known`` trials only."""
        spec = self._spec
        if len(spec.rungs) > 1:
            trials = self._seen[:known], _counted(self._seen)
            up = promotion(*trials, spec.rungs, spec.objectives, spec.constraints)
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

    def _settle(self, outcomes: Sequence[Outcome]) -> None:
        """Record what workers answered. A driver that lost its lease meanwhile records that they did, and ends."""
        try:
            with self._at_once():
                for outcome in outcomes:
                    self._settle_one(outcome)
        except LeaseHeld:
            for outcome in outcomes:
                self._store.late(self._spec.name, outcome)
            raise

    def _settle_one(self, outcome: Outcome) -> None:
        """A late answer of an older attempt changes nothing."""
        trial = self._trials[outcome.number]
        if outcome.number not in self._running or outcome.attempt != trial.attempts:
            self._store.late(self._spec.name, outcome)
            return
        self._running.discard(outcome.number)
        if outcome.state is TrialState.WAITING:
            self._losses[outcome.number] += 1
            if self._losses[outcome.number] > self._spec.workers.retries:
                reason = outcome.reason or "lost"
                self._put(trial.to(TrialState.FAILED, reason=reason, message=outcome.message), outcome)
                return
            self._put(trial.to(TrialState.WAITING), outcome)
            return
        changes: Mapping[str, Measurement | str | None] = {
            "measurement": outcome.measurement,
            "reason": outcome.reason,
            "message": outcome.message,
        }
        self._put(trial.to(outcome.state, **changes), outcome)

    def _requeue(self) -> None:
        """What the store calls running waits again: whose it was, this object may not know, being new or interrupted
        between a write and its note of it.
        """
        for trial in self._store.trials(self._spec.name, states=[TrialState.RUNNING]):
            ended = Outcome(trial.number, trial.attempts, TrialState.WAITING, message="its driver ended before it")
            self._store.move(self._spec.name, trial.to(TrialState.WAITING), ended)


def _counted(trials: Sequence[Trial]) -> list[Trial]:
    """Those that this revision can use."""
    return [trial for trial in trials if trial.reason != EXCLUDED]
