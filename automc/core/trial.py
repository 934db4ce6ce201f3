"""A trial and the steps it may take."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from automc.core.metrics import Measurement
from automc.core.policy import Policy
from automc.errors import IllegalTransition


class TrialState(str, Enum):
    """Where a trial is.

    WAITING --> RUNNING --> COMPLETE   measured
     |  ^         |  |----> STOPPED    ended early, with a reason: by the stopper, or as hopeless; measured so far
     |  |         |  `----> FAILED     with a reason
     |  `---------'                    its worker was lost: it waits again
     |--> COMPLETE, STOPPED            answered from the store: this policy was measured already, or found hopeless
     `--> FAILED                       lost too often, or a revision of the study took its policy out of the space
    """

    WAITING = "waiting"
    RUNNING = "running"
    COMPLETE = "complete"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def finished(self) -> bool:
        return self in (TrialState.COMPLETE, TrialState.STOPPED, TrialState.FAILED)


LEGAL: dict[TrialState, frozenset[TrialState]] = {
    TrialState.WAITING: frozenset({TrialState.RUNNING, TrialState.COMPLETE, TrialState.STOPPED, TrialState.FAILED}),
    TrialState.RUNNING: frozenset({TrialState.COMPLETE, TrialState.STOPPED, TrialState.FAILED, TrialState.WAITING}),
}

REASONS: dict[str, str] = {
    "error": "the evaluation raised; the message has the error",
    "nan": "a loss or a metric became NaN or infinite",
    "timeout": "the evaluation took longer than workers.timeout_s",
    "oom": "the evaluation ran out of memory, or held more than workers.memory_mb",
    "signal": "a signal killed its process at every attempt; the message has which one",
    "lost": "its worker was gone at every attempt: its node left, or its process ended",
    "dominated": "another trial is better, as the first inputs showed; the message has which one, and the doubt",
    "infeasible": "it breaks a constraint, as the first inputs showed; the message has which one, and the doubt",
    "behind": "the stopper ended its training; the message has the step and the report",
    "excluded": "it waited when a revision took its policy out of the space; the message has which decision",
}

HOPELESS = ("dominated", "infeasible")
"""The reasons of trials whose evaluation ended after a part of the inputs: see hopeless.py. What the stopper ended,
``behind``, was measured on all, and might have become better."""

EXCLUDED = "excluded"
"""The reason of trials that a revision cannot use: see revision.py."""


@dataclass(frozen=True)
class Trial:
    """One policy evaluated at one rung.

    Attributes:
        number: position in the study, from 0; below 0 where it is told from another study and not part of this one.
        memo: what the proposer needs again at resume, opaque to all others.
        rung: level of evaluation effort, index into the study's rungs.
        measurement: set when COMPLETE or STOPPED.
        reason: a key of REASONS when FAILED or STOPPED. message: its details, for people.
        attempts: how often it was started.
        twin: number of the trial whose measurement answered this one, or None.
    """

    number: int
    policy: Policy
    memo: str = ""
    state: TrialState = TrialState.WAITING
    rung: int = 0
    measurement: Measurement | None = None
    reason: str = ""
    message: str = ""
    attempts: int = 0
    twin: int | None = None

    @property
    def hopeless(self) -> bool:
        """Whether its evaluation ended after a part of the inputs: its costs are exact, the rest are estimates."""
        return self.state is TrialState.STOPPED and self.reason in HOPELESS

    def to(self, state: TrialState, **changes: object) -> Trial:
        """This trial one step on; starting it counts an attempt.

        Raises:
            IllegalTransition: the step is not drawn in TrialState.
        """
        if state not in LEGAL.get(self.state, frozenset()):
            raise IllegalTransition(f"trial {self.number} cannot go from {self.state.value} to {state.value}")
        attempts = self.attempts + (state is TrialState.RUNNING)
        return replace(self, state=state, attempts=attempts, **changes)  # type: ignore[arg-type]
