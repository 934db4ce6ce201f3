"""The protocols between the rooms.

Whoever builds a part owns it and closes it. The search loop calls every part from one thread (the
driver's); a part need not be thread-safe unless it says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from automc.core.hopeless import Rival
from automc.core.metrics import Measurement
from automc.core.policy import Policy
from automc.core.study import StudySpec
from automc.core.trial import Trial, TrialState

Monitor = Callable[[int, float], bool]
"""Called by a repair after some steps with (step, search-split loss or metric); False asks it to end early."""

Worth = Callable[[int, float], bool]
"""Whether a trial that reports (step, value) should go on. Travels with the trial, so it must survive a pickle."""

Watch = Callable[[int, int, float], None]
"""Called in the driver's thread with (trial number, step, value) of every report."""


class Proposal(NamedTuple):
    """A policy to evaluate, and what the proposer needs again at resume (opaque text)."""

    policy: Policy
    memo: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a trial on a worker.

    ``state`` is COMPLETE or STOPPED (then ``measurement`` is set), FAILED (then ``reason`` is a key of
    trial.REASONS, as it is when STOPPED as hopeless) or WAITING (the worker was lost). ``attempt`` tells late answers
    of an older attempt apart.
    """

    number: int
    attempt: int
    state: TrialState
    measurement: Measurement | None = None
    reason: str = ""
    message: str = ""


class Proposer(Protocol):
    """Proposes policies. Sees trials only: never the study, the store or a network."""

    def ask(self, numbers: range) -> Sequence[Proposal]:
        """One proposal for each trial number, in order.

        Each number seeds its own draw, so the answer depends on the settings, the numbers and the trials told
        so far, and on nothing else: a resumed search equals an uninterrupted one.
        """
        ...

    def tell(self, trials: Sequence[Trial]) -> None:
        """Learn finished trials, anyone's, of any rung, failed ones included, each told once, in order of number.

        A warm start and a resume are this call.
        """
        ...


class Evaluator(Protocol):
    """Measures policies. Must survive a trip through cloudpickle; evaluates one policy at a time."""

    def evaluate(
        self, policy: Policy, rung: int, monitor: Monitor, rivals: Sequence[Rival] | None = None
    ) -> Measurement:
        """Compress, repair as the rung says, measure. ``Policy({})`` gives the original model's metrics.

        Args:
            rivals: trials that the policy has to beat. Where the first inputs show that it cannot, or that it breaks a
                constraint, the evaluation may end there and says so in ``Measurement.ended``. With None all are run.

        Raises:
            NotFinite: a loss or a metric became NaN or infinite.
            CompressionError, EvaluationError: the policy cannot be applied or measured.
        """
        ...


@runtime_checkable
class Prober(Protocol):
    """Measures what a policy damages, cheaply; evaluators offer it besides."""

    def damage(self, policy: Policy, measures: Sequence[str]) -> Mapping[str, float]:
        """How far the compressed network is from the original, on the calibration inputs, without training.

        Args:
            policy: mostly of one decision. measures: of sensitivity.MEASURES.

        Returns: by measure, at least 0.

        Raises:
            NotFinite, CompressionError: as ``evaluate``.
        """
        ...


@runtime_checkable
class Stateful(Protocol):
    """A proposer whose memory is long in the making, so that a study keeps it.

    It follows from what was told alone: told everything anew, a fresh one comes to the same memory. What is kept only
    saves that time.
    """

    def state(self) -> bytes:
        """Its whole memory, as safetensors and plain data; never a pickle."""
        ...

    def restore(self, state: bytes) -> None:
        """Be as the one that wrote this, which had the same settings, space and seed.

        Raises:
            StoreError: the bytes are not such a memory. Nothing has changed then.
        """
        ...


class Stopper(Protocol):
    """Ends trials early. Pure: the same arguments give the same answer."""

    def worth(self, step: int, value: float, peers: Sequence[Sequence[tuple[int, float]]]) -> bool:
        """Whether a trial that reports ``value`` (smaller is better) at ``step`` should go on.

        ``peers`` are the reports of earlier trials of the same rung, each in order of step.
        """
        ...


class Executor(Protocol):
    """Runs trials on one or many workers. Errors of an evaluation become Outcomes and are never raised."""

    @property
    def free(self) -> int:
        """How many more trials it takes now."""
        ...

    def submit(self, trial: Trial, worth: Worth, rivals: Sequence[Rival] | None = None) -> None:
        """Start a RUNNING trial; it ends early when ``worth`` says no, at that very report, wherever it runs.

        ``rivals`` go to the evaluator. Call only while ``free`` is above 0.
        """
        ...

    def gather(self, watch: Watch) -> Sequence[Outcome]:
        """Wait at most about a second for news; the outcomes since the last call, possibly none, in order of number.

        What ``watch`` raises is raised here, and no trial suffers from it.
        """
        ...

    def close(self) -> None:
        """Stop the workers; what still runs is given up. Harmless when repeated."""
        ...


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

    def facts(self, study: str) -> Mapping[str, Any]:
        """What ``create``, or ``revise`` after it, was given. Raises UnknownStudy."""
        ...

    def studies(self) -> Sequence[StudySummary]:
        """All studies, oldest first."""
        ...


class TrialStore(Protocol):
    """The one truth about trials. Every call that changes something is one durable transaction."""

    def add(self, study: str, proposal: Proposal, rung: int) -> Trial:
        """Record the next trial, WAITING, under the next number (0, 1, 2, ... without gaps)."""
        ...

    def move(self, study: str, trial: Trial) -> Trial:
        """Put ``trial`` (made by ``Trial.to``) in the place of its stored predecessor.

        Compare-and-set: the stored trial must be one legal step behind, and, when the new state is that of an
        outcome of a run, have the same ``attempts``.

        Raises:
            IllegalTransition: it is not. UnknownTrial: no such trial.
        """
        ...

    def note(self, study: str, number: int, step: int, value: float) -> None:
        """Keep a report of a running trial; one of the same step is replaced, a late one dropped."""
        ...

    def notes(self, study: str, number: int) -> Sequence[tuple[int, float]]:
        """The reports of a trial's last attempt, in order of step."""
        ...

    def trials(self, study: str, states: Sequence[TrialState] = ()) -> Sequence[Trial]:
        """The trials in these states (all states when empty), in order of number."""
        ...


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
        """Give it back; harmless when not held. Clears a stop that was asked."""
        ...

    def ask_stop(self, study: str) -> bool:
        """Ask the owner, from any process, to drain and stop; False when nobody drives the study."""
        ...

    def stop_asked(self, study: str) -> bool:
        """Whether somebody asked since the lease was taken."""
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


class Store(StudyStore, TrialStore, LeaseStore, LatencyStore, AgentStore, Protocol):
    """The whole trial database."""

    def close(self) -> None:
        """Release files and connections."""
        ...
