"""What a study keeps beside its trials: how each was run, how its front came to be, and the files made of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from automc.core.metrics import Measurement
from automc.core.trial import TrialState


@dataclass(frozen=True)
class Attempt:
    """One run of a trial on a worker.

    Attributes:
        number: of the trial. attempt: counts from 1.
        state: RUNNING; COMPLETE, STOPPED or FAILED as its worker answered; WAITING when it was given up (worker or
            driver died, study cancelled) and the trial waited again.
        reason, message: as in Trial; where it was given up, what is known of why. log: the end of what it printed.
        host, pid: of the worker, "" and None where nobody said.
        started, finished: UTC, ISO 8601; None where not known. seconds: between the two, seen from the driver.
        fence: of the lease it was started or, if ``late``, answered under; None where no lease was taken.
        late: the answer came after the attempt had been given up, or from a driver that had lost its lease. It changed
            nothing but this record.
    """

    number: int
    attempt: int
    state: TrialState
    reason: str = ""
    message: str = ""
    log: str = ""
    host: str = ""
    pid: int | None = None
    started: str | None = None
    finished: str | None = None
    seconds: float | None = None
    fence: int | None = None
    late: bool = False


class FrontChange(NamedTuple):
    """A trial entered the front, or left it.

    ``place`` is how many trials of the study had finished by then, the one that caused it included; a revision with
    other objectives changes the front between two places, and counts to the earlier one.
    """

    place: int
    number: int
    entered: bool


def front_after(changes: Iterable[FrontChange], place: float = math.inf) -> list[int]:
    """The members of the front once ``place`` trials had finished, by number; by default the last ones.

    Args:
        changes: of one study, in order of place.
    """
    members: set[int] = set()
    for change in changes:
        if change.place > place:
            break
        (members.add if change.entered else members.discard)(change.number)
    return sorted(members)


def corrections(changes: Iterable[FrontChange], members: Iterable[int]) -> dict[int, bool]:
    """What must still happen to the front that the changes lead to, so that these are its members; see keep_front."""
    known, wanted = set(front_after(changes)), set(members)
    return dict.fromkeys(known - wanted, False) | dict.fromkeys(wanted - known, True)


@dataclass(frozen=True)
class Artifact:
    """A file that was made of a trial.

    Attributes:
        sha256: of its bytes, 64 hexadecimal digits. format: what wrote it, as ``export --format`` names it.
        file: name in its folder, behind ``rejected/`` where the proof did not pass. size_bytes: its length.
        proof: what was measured on it, as plain data. created: UTC, ISO 8601; "" until it is kept.
    """

    sha256: str
    number: int
    format: str
    file: str
    size_bytes: int
    proof: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""


class HistoryStore(Protocol):
    """The history of studies. Reading needs no lease; every call raises UnknownStudy."""

    def attempts(self, study: str, number: int | None = None) -> Sequence[Attempt]:
        """Of one trial, or of all: in order of trial, then of attempt."""
        ...

    def finishing(self, study: str) -> Sequence[int]:
        """The numbers of the finished trials in the order in which they finished: place 1 first."""
        ...

    def front_changes(self, study: str) -> Sequence[FrontChange]:
        """In order of place, then of number; of what happened to a trial at one place, only what came of it."""
        ...

    def keep_front(self, study: str, changes: Mapping[int, bool]) -> None:
        """Correct the front between two trials: after a revision with other objectives. Needs the lease, like trials.

        Args:
            changes: by number of the trial: True where it enters, False where it leaves.
        """
        ...

    def add_metrics(self, study: str, found: Mapping[int, Measurement]) -> None:
        """Give trials metrics that were not asked for when they were measured; what they have stays as it is. All in
        one transaction. Needs the lease, like trials.

        Args:
            found: by number of the trial: the new metrics and their errors; nothing else of it is read.

        Raises:
            UnknownTrial. StoreError: the trial was not measured, or has one of the metrics already.
        """
        ...

    def keep_artifact(self, study: str, artifact: Artifact) -> None:
        """Add a file, or put the newer proof of one that is known in the place of the older. Needs no lease.

        Raises:
            UnknownTrial.
        """
        ...

    def artifacts(self, study: str, number: int | None = None) -> Sequence[Artifact]:
        """The files made of one trial, or of all: in order of trial, then of file name, then of age."""
        ...
