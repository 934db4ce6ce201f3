"""The protocols of the trial database.

The search loop calls it from one thread (the driver's); it need not be thread-safe.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from automc.core.history import HistoryStore
from automc.core.ports import Outcome, Proposal
from automc.core.study import StudySpec
from automc.core.tally import Count
from automc.core.trial import Trial, TrialState
from automc.core.wishes import WishStore


@dataclass(frozen=True)
class StudySummary:
    """A study in a list: its spec, how many trials are in each state, and when it was made (UTC, ISO 8601)."""

    spec: StudySpec
    counts: Mapping[TrialState, int]
    created: str


class StudyStore(Protocol):
    """Studies by name."""

    def create(self, spec: StudySpec, facts: Mapping[str, Any]) -> None:
        """Add a study and, as ``facts``, plain data found once about it (layer table, baseline metrics).

        Raises:
            StudyExists: the name is taken.
        """
        ...

    def revise(self, spec: StudySpec, facts: Mapping[str, Any] | None = None) -> None:
        """Put a new revision in force: ``spec.revision`` must be the stored one + 1.

        Args:
            facts: take the place of the old ones in the same transaction; None leaves them.

        Raises:
            UnknownStudy, StoreError.
        """
        ...

    def spec(self, study: str) -> StudySpec:
        """The revision in force. Raises UnknownStudy (with the nearest name)."""
        ...

    def revisions(self, study: str) -> Sequence[StudySpec]:
        """Every revision, oldest first; the last one is in force. Raises UnknownStudy."""
        ...

    def facts(self, study: str) -> Mapping[str, Any]:
        """What ``create``, or ``revise`` after it, was given. Raises UnknownStudy."""
        ...

    def studies(self) -> Sequence[StudySummary]:
        """All studies, oldest first."""
        ...


class TrialStore(Protocol):
    """The one truth about trials. Every call that changes something is one durable transaction, or a part of one."""

    def together(self) -> AbstractContextManager[None]:
        """What this thread changes inside with calls of this protocol is one durable transaction, and nothing of it
        is stored where the block ends in an error. From the first change on all other writers wait for its end.

        In memory, where nothing is durable, each call stays what it is by itself.
        """
        ...

    def add(self, study: str, proposal: Proposal, rung: int, start: bool = False) -> Trial:
        """Record the next trial under the next number (0, 1, 2, ... without gaps): WAITING, or, with ``start``, RUNNING
        its first attempt.
        """
        ...

    def move(
        self, study: str, trial: Trial, outcome: Outcome | None = None, front: Mapping[int, bool] | None = None
    ) -> Trial:
        """Put ``trial`` (made by ``Trial.to``) in the place of its stored predecessor.

        Compare-and-set: the stored trial must be one legal step behind, and, when the new state is that of an
        outcome of a run, have the same ``attempts``. Its attempt begins or ends with it.

        Args:
            outcome: what the worker answered, for the record of the attempt.
            front: by number of the trial: True where it enters the front by this, False where it leaves.

        Raises:
            IllegalTransition: it is not. UnknownTrial: no such trial.
        """
        ...

    def late(self, study: str, outcome: Outcome) -> None:
        """Record an answer that came too late (for another attempt, or to a driver without its lease) and change
        nothing else. Needs no lease; where the attempt has an answer already, a second one is dropped.

        Raises:
            UnknownTrial.
        """
        ...

    def note(self, study: str, number: int, step: int, value: float) -> None:
        """Keep a report of a running trial; one of the same step is replaced, a late one dropped."""
        ...

    def notes(self, study: str, number: int) -> Sequence[tuple[int, float]]:
        """The reports of a trial's last attempt, in order of step."""
        ...

    def trials(
        self, study: str, states: Sequence[TrialState] = (), numbers: Iterable[int] | None = None
    ) -> Sequence[Trial]:
        """The trials in these states (all states when empty), in order of number.

        Args:
            numbers: only of these; one that no trial has finds none.
        """
        ...

    def tally(self, study: str) -> Sequence[Count]:
        """``tally.tally`` of all trials, without reading them."""
        ...


class Control(str, Enum):
    """What a driver is asked to do, weakest first.

    GO: search. PAUSE: start nothing new, let running trials finish, keep the lease and wait for another word.
    STOP: start nothing new, let running trials finish and end. CANCEL: end at once; what ran waits again.
    """

    GO = "go"
    PAUSE = "pause"
    STOP = "stop"
    CANCEL = "cancel"

    def or_stronger(self, other: Control) -> Control:
        """Of two words the one that holds."""
        return max(self, other, key=list(Control).index)


@dataclass(frozen=True)
class Owner:
    """Who drives a study: shown to the second driver that is refused."""

    host: str
    pid: int


class LeaseStore(Protocol):
    """Who may write to a study. While a lease is held, writes of any other holder are refused."""

    def take(self, study: str, owner: Owner) -> None:
        """Own the study from now on: a lease whose owner is dead (same host, no such process) or, on another host,
        silent for LEASE_SECONDS is taken over, and its late writes are refused (fencing number).

        Raises:
            LeaseHeld: a live driver owns it; the message has its host, pid and age.
        """
        ...

    def renew(self, study: str) -> None:
        """Say "still alive"; raises LeaseHeld when the lease was taken over or never taken."""
        ...

    def release(self, study: str) -> None:
        """Give it back; harmless when not held. Takes back what was asked."""
        ...

    def ask(self, study: str, word: Control) -> Control | None:
        """Ask the owner, from any process; the word it finds from now on, None when nobody drives the study.

        A word is replaced by any later one, but STOP only by CANCEL, and CANCEL by none.
        """
        ...

    def asked(self, study: str) -> Control:
        """What the owner was asked since it took the lease, GO when nothing."""
        ...

    def driver(self, study: str) -> Owner | None:
        """Whose lease binds others now; None where nobody alive holds one. Changes nothing. Raises UnknownStudy."""
        ...


LEASE_SECONDS = 30.0
"""A lease not renewed for so long may be taken over from another host."""


class LatencyStore(Protocol):
    """How long single layers take on a device, measured once and kept for all studies. No lease is needed."""

    def latencies(self, device: str) -> Mapping[str, float]:
        """Milliseconds by key, in order of the keys; empty for a device that nobody measured."""
        ...

    def keep_latencies(self, device: str, rows: Mapping[str, float], rounds: int = 1) -> None:
        """Add times, or put newer ones in the place of those with the same keys, all in one transaction.

        Args:
            rows: milliseconds by key (layer kind, shapes, bits: as the measurer writes it). rounds: of how many
                timed runs each is the median.

        Raises:
            StoreError: a time is negative, NaN or infinite.
        """
        ...


class AgentStore(Protocol):
    """What Stateful proposers remember: one memory a study and revision. Writing needs the lease, like trials."""

    def keep_memory(self, study: str, told: int, state: bytes) -> None:
        """Keep the memory of the revision in force, in the place of an older one, in one durable transaction.

        Args:
            told: of how many of the study's trials, from number 0 on, it is the memory.

        Raises:
            UnknownStudy, LeaseHeld.
        """
        ...

    def memory(self, study: str) -> tuple[int, bytes] | None:
        """(told, state) as kept last for the revision in force, or None. Raises UnknownStudy."""
        ...


class Store(StudyStore, TrialStore, LeaseStore, LatencyStore, AgentStore, HistoryStore, WishStore, Protocol):
    """The whole trial database."""

    def close(self) -> None:
        """Release files and connections."""
        ...
