"""The protocols between the rooms.

Whoever builds a part owns it and closes it. The search loop calls every part from one thread (the
driver's); a part need not be thread-safe unless it says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from automc.core.hopeless import Rival
from automc.core.metrics import Measurement
from automc.core.policy import Policy
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
    trial.REASONS, as it is when STOPPED) or WAITING (its process or worker is gone; ``reason`` is what a
    trial that is not started again fails with). ``attempt`` tells late answers of an older attempt apart. ``log``: the
    end of what the worker printed meanwhile; ``host`` and ``pid`` are the worker's, "" and None where nobody knows.
    """

    number: int
    attempt: int
    state: TrialState
    measurement: Measurement | None = None
    reason: str = ""
    message: str = ""
    log: str = ""
    host: str = ""
    pid: int | None = None


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
