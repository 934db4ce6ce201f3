"""Ray workers: one actor a slot, each holding model and data, fed by one driver.

Plain actors, no Ray Tune: a policy takes milliseconds to seconds, and a pool of stateful actors loses the least
between two of them. Actors are never restarted or retried by Ray: the driver does that, because only the
driver knows which attempt still counts.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from automc.core.hopeless import Rival
from automc.core.ports import Evaluator, Outcome, Watch, Worth
from automc.core.study import Workers
from automc.core.trial import Trial, TrialState
from automc.errors import WorkerError
from automc.workers.outcomes import failed, judged

POLL_SECONDS = 0.25
"""How often running trials are asked for reports and checked against their time limit."""

READY_SECONDS = 120.0
"""How long a worker may take to start and to unpack model and data."""

# Quiet and lean, and read by Ray when it is imported: no usage statistics, one arithmetic thread a worker.
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0"}


class _Worker:
    """What runs in an actor: one evaluation at a time, and beside it the questions about it."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._reports: list[tuple[int, float]] = []

    def ready(self) -> int:
        return os.getpid()

    def evaluate(
        self, trial: Trial, worth: Worth, rivals: Sequence[Rival] | None
    ) -> tuple[Outcome, list[tuple[int, float]]]:
        """The outcome, and all that was reported on the way: step and value.

        The verdict is passed here and not in the driver, whose answer would come some steps too late.
        """
        reports = self._reports = []

        def monitor(step: int, value: float) -> bool:
            reports.append((step, value))
            return worth(step, value)

        return judged(self._evaluator, trial, monitor, rivals), reports

    def reports(self, seen: int) -> list[tuple[int, float]]:
        return self._reports[seen:]


@dataclass
class _Run:
    """A trial on its way: who evaluates it, since when, how many of its reports were read, and when they were asked."""

    trial: Trial
    actor: Any
    started: float
    asked: float
    seen: int = 0


class RayExecutor:
    """A pool of ``workers.count`` actors on a local Ray, or on the cluster at ``workers.address``.

    A worker that dies is replaced, its trial comes back as lost; one that exceeds ``timeout_s`` is killed.

    Raises:
        WorkerError: no Ray can be started or reached, or the evaluator cannot be sent to a worker.
    """

    def __init__(self, evaluator: Evaluator, workers: Workers) -> None:
        os.environ |= {key: os.environ.get(key, value) for key, value in _ENVIRONMENT.items()}
        import ray

        self._ray, self._workers = ray, workers
        self._mine = not ray.is_initialized()
        self._running: dict[Any, _Run] = {}
        self._idle: list[Any] = []
        self._starting: dict[Any, Any] = {}
        try:
            if self._mine:
                _connect(ray, workers)
            self._actor = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0, max_concurrency=2)(_Worker)
            self._evaluator = _put(ray, evaluator)
            for _ in range(workers.count):
                self._start()
            ray.get(list(self._starting), timeout=READY_SECONDS)
        except (WorkerError, KeyboardInterrupt):
            self.close()
            raise
        except Exception as error:
            self.close()
            raise WorkerError(f"workers: cannot start {workers.count} on {_place(workers)}: {_line(error)}") from error

    @property
    def free(self) -> int:
        return len(self._idle) + len(self._starting)

    def submit(self, trial: Trial, worth: Worth, rivals: Sequence[Rival] | None = None) -> None:
        actor = self._idle.pop(0) if self._idle else self._started()
        now = time.monotonic()
        self._running[actor.evaluate.remote(trial, worth, rivals)] = _Run(trial, actor, started=now, asked=now)

    def _start(self) -> None:
        actor = self._actor.remote(self._evaluator)
        self._starting[actor.ready.remote()] = actor

    def _started(self) -> Any:
        """A worker that has unpacked model and data: starting up must not count as a trial's time."""
        done, _ = self._ray.wait(list(self._starting), num_returns=1, timeout=READY_SECONDS)
        try:
            self._ray.get(done[0], timeout=0)
        except (IndexError, self._ray.exceptions.RayError) as error:
            raise WorkerError(
                f"workers: a new one does not start on {_place(self._workers)}: {_line(error)}"
            ) from error
        return self._starting.pop(done[0])

    def gather(self, watch: Watch) -> Sequence[Outcome]:
        if not self._running:
            return []
        done, _ = self._ray.wait(list(self._running), num_returns=1, timeout=POLL_SECONDS)
        more, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        outcomes = [self._collect(ref, watch) for ref in dict.fromkeys([*done, *more])]
        for ref, run in list(self._running.items()):
            late = self._attend(ref, run, watch)
            outcomes += [late] if late else []
        return sorted(outcomes, key=lambda outcome: outcome.number)

    def _collect(self, ref: Any, watch: Watch) -> Outcome:
        """The outcome of a finished call, and the worker back among the idle."""
        run = self._running.pop(ref)
        outcome: Outcome
        try:
            outcome, reports = self._ray.get(ref)
        except self._ray.exceptions.OutOfMemoryError as error:
            outcome = failed(run.trial, "oom", _line(error))
            self._replace(run)
        except self._ray.exceptions.RayError as error:
            message = f"the worker died during attempt {run.trial.attempts}: {_line(error)}"
            outcome = Outcome(run.trial.number, run.trial.attempts, TrialState.WAITING, message=message)
            self._replace(run)
        else:
            _pass_on(run, reports[run.seen :], watch)
            self._idle.append(run.actor)
        return outcome

    def _attend(self, ref: Any, run: _Run, watch: Watch) -> Outcome | None:
        """Read the reports of a running trial; end it when it is past its time."""
        now, limit = time.monotonic(), self._workers.timeout_s
        lasted = now - run.started
        if limit is not None and lasted > limit:
            del self._running[ref]
            self._replace(run)
            return failed(run.trial, "timeout", f"ended after {lasted:.1f} s; the limit is timeout_s = {limit:g}")
        if now - run.asked >= POLL_SECONDS:  # a question costs the worker a slice of its evaluation
            run.asked = now
            # A worker that died or is too busy to answer has nothing new: its evaluation tells.
            with contextlib.suppress(self._ray.exceptions.RayError):
                _pass_on(run, self._ray.get(run.actor.reports.remote(run.seen), timeout=5 * POLL_SECONDS), watch)
        return None

    def _replace(self, run: _Run) -> None:
        self._ray.kill(run.actor)
        self._start()

    def close(self) -> None:
        for actor in [*self._idle, *self._starting.values(), *(run.actor for run in self._running.values())]:
            self._ray.kill(actor)
        self._idle, self._starting, self._running = [], {}, {}
        if self._mine and self._ray.is_initialized():
            self._ray.shutdown()


def _pass_on(run: _Run, news: Sequence[tuple[int, float]], watch: Watch) -> None:
    run.seen += len(news)
    for step, value in news:
        watch(run.trial.number, step, value)


def _connect(ray: Any, workers: Workers) -> None:
    # Workers import what the driver can: a user's model may live beside the study file.
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    shared = {"env_vars": {"PYTHONPATH": paths, "OMP_NUM_THREADS": _ENVIRONMENT["OMP_NUM_THREADS"]}}
    quiet = {"logging_level": "ERROR", "log_to_driver": False, "runtime_env": shared}
    if workers.address is not None:
        ray.init(address=workers.address, **quiet)
    else:
        # The default object store is 30% of the memory; model and data rarely need more than this.
        ray.init(
            address="local", num_cpus=workers.count, include_dashboard=False, object_store_memory=512 * 2**20, **quiet
        )


def _put(ray: Any, evaluator: Evaluator) -> Any:
    """The evaluator in the object store: once a node, however many workers read it."""
    try:
        return ray.put(evaluator)
    except TypeError as error:
        raise WorkerError(
            f"workers: model and data cannot be sent to a worker ({_line(error.__cause__ or error)}); "
            "name the model as package.module:factory or file.py:factory, or use workers 0"
        ) from error


def _place(workers: Workers) -> str:
    return f"the Ray cluster at {workers.address}" if workers.address else "a local Ray"


def _line(error: BaseException) -> str:
    """First and last line of an error of Ray: between them stands a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[0] if len(lines) == 1 else f"{lines[0]} ... {lines[-1]}"
