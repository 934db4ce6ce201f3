"""Who is there to evaluate: starting workers, keeping them, exchanging those of one shape for another's."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from automc.core.study import Workers
from automc.errors import WorkerError
from automc.workers import cluster
from automc.workers.keeper import Keeper
from automc.workers.shapes import Shape, inventory, listed

ROOM_SECONDS = 3.0
"""A worker that has not started for so long waits for room, and an idle one of another shape makes it."""

NOBODY_SECONDS = 10.0
"""So long there may be no worker before a line says so."""

REST_SECONDS = 10.0
"""After a worker that could not start, while others can."""

ANSWER_SECONDS = 1.0
"""An idle worker that does not answer within is gone."""


@dataclass
class Worker:
    """An actor and what it needs; ``since`` is when it was started."""

    actor: Any
    shape: Shape
    since: float


class Staff:
    """At most ``workers.most`` workers: those that start, by their promise, and the idle. The busy are the executor's.

    Args:
        evaluator: its reference in the object store.
    """

    def __init__(self, ray: Any, evaluator: Any, workers: Workers, say: Callable[[str], None]) -> None:
        self._ray, self._evaluator, self._workers, self._say = ray, evaluator, workers, say
        self._kind = ray.remote(max_restarts=0, max_task_retries=0, max_concurrency=2)(Keeper)
        self.starting: dict[Any, Worker] = {}
        self.idle: list[Worker] = []
        self._busy = 0
        self._rest = 0.0
        self._proved = False  # whether a worker ever started
        self._empty: float | None = time.monotonic()
        self._said = False

    def hire(self, shape: Shape) -> None:
        """As many workers as there may be, before the first trial; waits a little for the first one, or its error."""
        for _ in range(self._workers.most):
            self._start(shape)
        self._ray.wait(list(self.starting), num_returns=1, timeout=NOBODY_SECONDS)
        self.welcome()

    def take(self, shape: Shape) -> Worker | None:
        """An idle worker of this shape, no longer idle."""
        for worker in self.idle:
            if worker.shape == shape:
                self.idle.remove(worker)
                return worker
        return None

    def dismiss(self, worker: Worker) -> None:
        """End a worker. Another takes its place when it is needed."""
        self._ray.kill(worker.actor)

    def welcome(self) -> None:
        """Workers that have started are idle from now on.

        Raises:
            WorkerError: one could not, and there is no other.
        """
        if not self.starting:
            return
        for ref in self._ray.wait(list(self.starting), num_returns=len(self.starting), timeout=0)[0]:
            worker = self.starting.pop(ref)
            try:
                self._ray.get(ref)
            except self._ray.exceptions.RayError as error:
                self.dismiss(worker)
                self._missed(error)
            else:
                self._proved = True
                self.idle.append(worker)

    def adjust(self, wanted: Sequence[Shape], busy: int) -> None:
        """Start what waiting trials want, in the place of others where there are enough.

        Args:
            wanted: the shapes of trials without a worker. busy: how many workers evaluate.
        """
        self._busy, now = busy, time.monotonic()
        self._mind_the_gap(wanted, now)
        if now < self._rest:
            return
        need = Counter(wanted)
        need.subtract(worker.shape for worker in self.starting.values())
        for shape, missing in need.items():
            for _ in range(missing):
                full = len(self.starting) + len(self.idle) + busy >= self._workers.most
                if full and not self._make_place(shape, need):
                    break
                self._start(shape)
        pending = [w for w in self.starting.values() if w.shape in wanted and now - w.since > ROOM_SECONDS]
        others = [w for w in self.idle if w.shape not in wanted]
        if pending and others:
            self.idle.remove(others[0])
            self.dismiss(others[0])
            pending[0].since = now

    def roll_call(self) -> None:
        """Dismiss the idle that do not answer: their node may be gone with the one that was just lost."""
        asked = {worker.actor.ready.remote(): worker for worker in self.idle}
        if asked:
            self._ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS)
        for ref, worker in asked.items():
            try:
                self._ray.get(ref, timeout=0)
            except self._ray.exceptions.RayError:  # a timeout is one too
                self.idle.remove(worker)
                self.dismiss(worker)

    def close(self, busy: Sequence[Worker]) -> None:
        """End all workers."""
        for worker in [*busy, *self.idle, *self.starting.values()]:
            self.dismiss(worker)
        self.idle, self.starting = [], {}

    def _start(self, shape: Shape) -> None:
        actor = self._kind.options(**shape.options).remote(self._evaluator, self._workers)
        self.starting[actor.ready.remote()] = Worker(actor, shape, time.monotonic())

    def _make_place(self, shape: Shape, need: Counter[Shape]) -> bool:
        """End a worker of another shape that nobody waits for; False when there is none."""
        for worker in self.idle:
            if worker.shape != shape:
                self.idle.remove(worker)
                self.dismiss(worker)
                return True
        for ref, worker in self.starting.items():
            if need[worker.shape] < 0:
                del self.starting[ref]
                self.dismiss(worker)
                need[worker.shape] += 1
                return True
        return False

    def _missed(self, error: Exception) -> None:
        """A worker did not start: where its node left, another will; else it is for the user to mend."""
        exceptions = self._ray.exceptions
        if not (getattr(error, "actor_init_failed", False) or isinstance(error, exceptions.RuntimeEnvSetupError)):
            return
        why = cluster.lines(error)[-1].removeprefix(f"{WorkerError.__module__}.{WorkerError.__name__}: ")
        what = f"workers: a new one does not start on {cluster.place(self._workers)}: {why}"
        if not self._proved or not (self.idle or self.starting or self._busy):
            raise WorkerError(what) from error
        self._rest = time.monotonic() + REST_SECONDS
        self._say(what)

    def _mind_the_gap(self, wanted: Sequence[Shape], now: float) -> None:
        """Say so, once, when trials wait and there is no worker at all."""
        if self.idle or self._busy or not wanted:
            self._empty, self._said = None, False
            return
        self._empty = now if self._empty is None else self._empty
        if not self._said and now - self._empty > NOBODY_SECONDS:
            self._said = True
            self._say(
                f"no worker yet: {len(wanted)} trial(s) wait for one with {listed(wanted[0].needs)} on "
                f"{cluster.place(self._workers)} (it has: {inventory(cluster.nodes(self._ray))})"
            )
