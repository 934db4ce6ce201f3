"""Ray workers: actors that each hold model and data, fed by one driver.

Plain actors, no Ray Tune: a policy takes milliseconds to seconds, and a pool of stateful actors loses the least
between two of them. Actors are never restarted or retried by Ray: the driver does that, because only the
driver knows which attempt still counts.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from automc.core.hopeless import Rival
from automc.core.ports import Evaluator, Outcome, Watch, Worth
from automc.core.study import Rung, Workers
from automc.core.trial import Trial
from automc.errors import WorkerError
from automc.workers import cluster, shapes
from automc.workers.outcomes import failed, gone
from automc.workers.pulse import Pulse
from automc.workers.shapes import Shape
from automc.workers.staff import Staff, Worker

POLL_SECONDS = 0.25
"""How often running trials are asked for reports."""

GRACE_SECONDS = 1.5
"""A worker ends a late trial by itself; one that has not so long after the deadline is taken for hung, and killed."""


QUICK_SECONDS, RECENT = 2.0, 8
"""Where so many evaluations in a row took less, as many trials as there are workers wait beside them, so that a worker
goes on while the driver writes down what it found. A search that is to end waits for them too: longer ones do not.
"""


@dataclass
class _Run:
    """A trial on its way: who evaluates it, since when, how many of its reports were read, and the open question."""

    trial: Trial
    worker: Worker
    started: float
    asked: float
    seen: int = 0
    question: Any = None


class RayExecutor:
    """Up to ``workers.most`` actors on a local Ray, or on the cluster at ``workers.address``.

    Trials are taken whether there is a worker for them yet or not. A worker that dies is replaced as soon as there is
    room, its trial comes back as lost; nodes may join and leave.

    Args:
        rungs: the study's, which say what workers need. say: hears what a user should know.

    Raises:
        WorkerError: no Ray can be started or reached, no node has what a rung asks for, or the evaluator cannot be
            sent to a worker.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        workers: Workers,
        rungs: Sequence[Rung] = (Rung(),),
        say: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
    ) -> None:
        os.environ |= {key: os.environ.get(key, value) for key, value in cluster.ENVIRONMENT.items()}
        import ray

        self._ray, self._workers = ray, workers
        self._mine = not ray.is_initialized()
        self._shapes = [Shape.of(rung) for rung in rungs]
        self._waiting: deque[tuple[Trial, Worth, Sequence[Rival] | None]] = deque()
        self._running: dict[Any, _Run] = {}
        self._lasted: deque[float] = deque(maxlen=RECENT)
        self._staff: Staff | None = None
        self._pulse: Pulse | None = None
        try:
            if self._mine:
                cluster.connect(ray, workers, say)
            self._pulse = Pulse(ray, cluster.place(workers))
            shapes.require(self._shapes, cluster.nodes(ray), cluster.place(workers))
            self._staff = Staff(ray, cluster.put(ray, evaluator), workers, say)
            self._staff.hire(self._shapes[0])
        except (WorkerError, KeyboardInterrupt):
            self.close()
            raise
        except Exception as error:
            self.close()
            place = cluster.place(workers)
            said = f"{cluster.line(error)}{cluster.remedy(workers, error)}"
            raise WorkerError(f"workers: cannot start on {place}: {said}") from error

    @property
    def free(self) -> int:
        quick = len(self._lasted) == RECENT and max(self._lasted) < QUICK_SECONDS
        return self._workers.most * (2 if quick else 1) - len(self._waiting) - len(self._running)

    def submit(self, trial: Trial, worth: Worth, rivals: Sequence[Rival] | None = None) -> None:
        self._waiting.append((trial, worth, rivals))
        self._assign()

    def gather(self, watch: Watch) -> Sequence[Outcome]:
        if self._pulse is not None:
            self._pulse.feel()
        self._assign()
        refs = [*self._running, *self._there.starting]
        if not (self._running or self._waiting):
            return []
        if refs:
            self._ray.wait(refs, num_returns=1, timeout=POLL_SECONDS)
        else:
            time.sleep(POLL_SECONDS)
        outcomes = []
        for ref in self._ready(list(self._running)):
            outcomes.append(self._collect(ref, watch))
        for ref, run in list(self._running.items()):
            late = self._attend(ref, run, watch)
            outcomes += [late] if late else []
        self._assign()
        return sorted(outcomes, key=lambda outcome: outcome.number)

    @property
    def _gone(self) -> bool:
        """Nobody is there to be told anything: every call of Ray would wait for the head in vain."""
        return self._pulse is not None and self._pulse.gone

    @property
    def _there(self) -> Staff:
        if self._staff is None:
            raise WorkerError("workers: closed")
        return self._staff

    def _ready(self, refs: list[Any]) -> list[Any]:
        done: list[Any] = self._ray.wait(refs, num_returns=len(refs), timeout=0)[0] if refs else []
        return done

    def _assign(self) -> None:
        """Give waiting trials to idle workers; for the rest, see that there will be some."""
        staff, left = self._there, deque[tuple[Trial, Worth, Sequence[Rival] | None]]()
        staff.welcome()
        while self._waiting:
            trial, worth, rivals = self._waiting.popleft()
            worker = staff.take(self._shapes[trial.rung])
            if worker is None:
                left.append((trial, worth, rivals))
                continue
            now = time.monotonic()
            ref = worker.actor.evaluate.remote(trial, worth, rivals)
            self._running[ref] = _Run(trial, worker, started=now, asked=now)
        self._waiting = left
        if self._pulse is not None and self._pulse.silent:
            return
        staff.adjust([self._shapes[trial.rung] for trial, *_ in left], busy=len(self._running))

    def _collect(self, ref: Any, watch: Watch) -> Outcome:
        """The outcome of a finished call, and the worker back among the idle."""
        run = self._running.pop(ref)
        outcome: Outcome
        try:
            outcome, reports = self._ray.get(ref)
        except self._ray.exceptions.OutOfMemoryError as error:
            self._there.dismiss(run.worker)
            return failed(run.trial, "oom", cluster.line(error))
        except self._ray.exceptions.RayError as error:
            self._there.dismiss(run.worker)
            self._there.roll_call()
            message = f"the worker died during attempt {run.trial.attempts}: {cluster.line(error)}"
            return gone(run.trial, "lost", message)
        _pass_on(run, reports[run.seen :], watch)
        self._lasted.append(time.monotonic() - run.started)
        self._there.idle.append(run.worker)
        return outcome

    def _attend(self, ref: Any, run: _Run, watch: Watch) -> Outcome | None:
        """Read the reports of a running trial; end it when its worker has not."""
        now, limit = time.monotonic(), self._workers.timeout_s
        lasted = now - run.started
        if limit is not None and lasted > limit + GRACE_SECONDS:
            del self._running[ref]
            self._there.dismiss(run.worker)
            message = f"ended after {lasted:.1f} s; the limit is timeout_s = {limit:g}; its worker did not answer"
            return failed(run.trial, "timeout", message)
        if run.question is None and now - run.asked >= POLL_SECONDS:
            run.asked, run.question = now, run.worker.actor.reports.remote(run.seen)
        elif run.question is not None and self._ready([run.question]):
            question, run.question = run.question, None
            try:
                news = self._ray.get(question)
            except self._ray.exceptions.RayError:
                return None  # a worker that died has nothing new: its evaluation tells
            _pass_on(run, news, watch)
        return None

    def close(self) -> None:
        if self._staff is not None and not self._gone:
            self._staff.close([run.worker for run in self._running.values()])
        self._running, self._staff = {}, None
        self._waiting.clear()
        if self._mine and not self._gone and self._ray.is_initialized():
            self._ray.shutdown()


def _pass_on(run: _Run, news: Sequence[tuple[int, float]], watch: Watch) -> None:
    run.seen += len(news)
    for step, value in news:
        watch(run.trial.number, step, value)
