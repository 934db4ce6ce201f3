"""Executors: an evaluation's fate becomes an outcome; a dead or late worker is replaced and the pool goes on."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from automc.core.hopeless import Rival
from automc.core.metrics import EarlyEnd, Measurement
from automc.core.policy import Policy, Site
from automc.core.study import Workers
from automc.core.trial import Trial, TrialState
from automc.errors import CompressionError, NotFinite, StoreError, WorkerError
from automc.workers.inline import InlineExecutor
from automc.workers.outcomes import MESSAGE_CHARACTERS
from automc.workers.ray_pool import RayExecutor

# Ray's own modules open sockets and processes that only the interpreter's end closes.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning:ray")


class Script:
    """An evaluator that does what the policy says."""

    def evaluate(self, policy, rung, monitor, rivals=None):
        what = policy[Site("script", "*", "do")]
        if what == "raise":
            raise KeyError("x" * 10_000)
        if what == "silent":
            raise Unspeakable
        if what == "compress":
            raise CompressionError("layer conv1 pruned to nothing")
        if what == "nan":
            raise NotFinite("loss became nan at step 3")
        if what == "oom":
            raise MemoryError
        if what == "torch-oom":
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        if what == "die":
            os._exit(3)
        if what == "hang":
            time.sleep(600)
        if what == "hopeless":
            found = Measurement({"top1": 0.1, "rivals": float(len(rivals))}, samples=64)
            return replace(found, ended=EarlyEnd("dominated", f"trial {rivals[0].number}"))
        if what == "both":
            monitor(1, 20.0)
            return Measurement({"top1": 0.1}, ended=EarlyEnd("dominated", "trial 0"))
        if what == "report":
            for step in range(1, 400):
                if not monitor(step, 1.0 / step):
                    return Measurement({"top1": 0.5, "loss": 1.0 / step}, seconds=float(step))
                time.sleep(0.01)
        return Measurement({"top1": 0.9, "pid": float(os.getpid())}, {"a": {"channels": 3}})


class Slow(Script):
    """As a large data set: it takes a while to unpack."""

    def __reduce__(self):
        return _unpacked, ()


def _unpacked():
    time.sleep(3.0)
    return Slow()


class Unspeakable(Exception):
    def __str__(self):
        raise ValueError("no text")


def running(number: int, what: str) -> Trial:
    return Trial(number, Policy({Site("script", "*", "do"): what})).to(TrialState.RUNNING)


def go_on(step: int, value: float) -> bool:
    return True


def below_twenty(step: int, value: float) -> bool:
    return step < 20


def collect(executor, count: int, watch=lambda number, step, value: None, seconds: float = 60):
    outcomes, end = [], time.monotonic() + seconds
    while len(outcomes) < count:
        assert time.monotonic() < end, f"only {outcomes} after {seconds} s"
        outcomes += executor.gather(watch)
    return outcomes


@pytest.fixture(scope="module")
def pool():
    executor = RayExecutor(Script(), Workers(count=2, timeout_s=20.0))
    yield executor
    executor.close()


@pytest.fixture(params=["inline", "ray"])
def executor(request):
    return InlineExecutor(Script()) if request.param == "inline" else request.getfixturevalue("pool")


@pytest.mark.parametrize(
    ("what", "reason", "message"),
    [
        ("raise", "error", "KeyError: 'xxx"),
        ("silent", "error", "Unspeakable: its message cannot be shown"),
        ("compress", "error", "layer conv1 pruned to nothing"),
        ("nan", "nan", "loss became nan at step 3"),
        ("oom", "oom", "out of memory"),
        ("torch-oom", "oom", "can't allocate memory"),
    ],
)
def test_every_error_becomes_a_failed_outcome_with_its_reason(executor, what, reason, message):
    executor.submit(running(5, what), go_on)
    [outcome] = collect(executor, 1)
    assert (outcome.number, outcome.attempt, outcome.state, outcome.reason) == (5, 1, TrialState.FAILED, reason)
    assert message in outcome.message
    assert len(outcome.message) < MESSAGE_CHARACTERS + 20
    assert outcome.measurement is None


def test_a_measurement_comes_back_whole(executor):
    executor.submit(running(1, "measure"), go_on)
    [outcome] = collect(executor, 1)
    assert outcome.state is TrialState.COMPLETE
    assert outcome.measurement.metrics["top1"] == 0.9
    assert outcome.measurement.realized == {"a": {"channels": 3}}


def test_reports_reach_the_driver_and_a_no_ends_the_trial_at_that_report(executor):
    seen = []
    executor.submit(running(7, "report"), below_twenty)
    [outcome] = collect(executor, 1, lambda number, step, value: seen.append((number, step, value)))
    assert outcome.state is TrialState.STOPPED
    assert outcome.measurement.metrics == {"top1": 0.5, "loss": 1.0 / 20}
    assert seen == [(7, step, 1.0 / step) for step in range(1, 21)]


def test_a_hopeless_trial_is_stopped_with_its_reason_and_knows_its_rivals(executor):
    executor.submit(running(4, "hopeless"), go_on, (Rival(2, {"top1": 0.9}), Rival(3, {"top1": 0.8})))
    [outcome] = collect(executor, 1)
    assert (outcome.state, outcome.reason, outcome.message) == (TrialState.STOPPED, "dominated", "trial 2")
    assert outcome.measurement == Measurement({"top1": 0.1, "rivals": 2.0}, samples=64)


def test_what_the_stopper_ended_has_no_reason(executor):
    executor.submit(running(4, "both"), lambda step, value: False, ())
    [outcome] = collect(executor, 1)
    assert (outcome.state, outcome.reason, outcome.message) == (TrialState.STOPPED, "", "")


def test_an_error_of_the_driver_is_not_the_trials():
    def full(number, step, value):
        raise StoreError("disk full")

    executor = InlineExecutor(Script())
    executor.submit(running(1, "report"), go_on)
    with pytest.raises(StoreError, match="disk full"):
        executor.gather(full)


def test_free_counts_slots(executor):
    slots = executor.free
    executor.submit(running(1, "measure"), go_on)
    assert executor.free == slots - 1
    collect(executor, 1)
    assert executor.free == slots


def test_a_dead_worker_loses_only_its_trial(pool):
    pool.submit(running(1, "die"), go_on)
    pool.submit(running(2, "measure"), go_on)
    outcomes = {o.number: o for o in collect(pool, 2)}
    assert outcomes[1].state is TrialState.WAITING
    assert "worker died during attempt 1" in outcomes[1].message
    assert outcomes[2].state is TrialState.COMPLETE
    assert pool.free == 2
    for number in (3, 4):
        pool.submit(running(number, "measure"), go_on)
    again = collect(pool, 2)
    assert [o.state for o in again] == [TrialState.COMPLETE] * 2


def test_ray_workers_are_other_processes(pool):
    pool.submit(running(1, "measure"), go_on)
    [outcome] = collect(pool, 1)
    assert outcome.measurement.metrics["pid"] != os.getpid()


def test_a_hang_ends_at_its_deadline(pool):
    pool._workers = Workers(count=2, timeout_s=1.5)
    try:
        pool.submit(running(1, "hang"), go_on)
        began = time.monotonic()
        [outcome] = collect(pool, 1)
        assert (outcome.state, outcome.reason) == (TrialState.FAILED, "timeout")
        assert "limit is timeout_s = 1.5" in outcome.message
        assert time.monotonic() - began < 3.5
    finally:
        pool._workers = Workers(count=2, timeout_s=20.0)


def test_starting_a_worker_does_not_count_as_the_next_trials_time(pool):
    """The worker that replaces a late one takes 3 s to unpack its data; trials may take 2 s."""
    evaluator, pool._evaluator = pool._evaluator, pool._ray.put(Slow())
    pool._workers = Workers(count=2, timeout_s=2.0)
    try:
        pool.submit(running(1, "hang"), go_on)
        assert collect(pool, 1)[0].reason == "timeout"
        assert pool.free == 2
        for number in (2, 3):
            pool.submit(running(number, "measure"), go_on)
        assert [o.state for o in collect(pool, 2)] == [TrialState.COMPLETE] * 2
    finally:
        pool._evaluator, pool._workers = evaluator, Workers(count=2, timeout_s=20.0)


def test_what_cannot_travel_is_refused_at_once(pool):
    class Stuck(Script):
        def __reduce__(self):
            raise TypeError("cannot pickle a lock")

    with pytest.raises(WorkerError, match=r"cannot be sent to a worker \(cannot pickle a lock\); name the model as"):
        RayExecutor(Stuck(), Workers(count=1))


def test_closing_twice_is_harmless():
    executor = InlineExecutor(Script())
    executor.submit(running(1, "measure"), go_on)
    executor.close()
    executor.close()
    assert executor.gather(lambda n, s, v: None) == []


def test_joins_a_cluster_by_its_address(tmp_path):
    """A head of its own process, with Ray's token, and a driver process that joins it (two Rays start: 10 s)."""
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 32, "RAY_USAGE_STATS_ENABLED": "0"}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ray = os.path.join(os.path.dirname(sys.executable), "ray")
    start = f"{ray} start --head --block --port={port} --num-cpus=2"
    start += " --include-dashboard=false --object-store-memory=200000000"
    driver = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from test_executors import Script, running, collect, go_on\n"
        "from automc.core.study import Workers\n"
        "from automc.workers.ray_pool import RayExecutor\n"
        "pool = RayExecutor(Script(), Workers(count=2, address=sys.argv[1]))\n"
        "[pool.submit(running(n, 'measure'), go_on) for n in (0, 1)]\n"
        "print(len({o.measurement.metrics['pid'] for o in collect(pool, 2)}), 'workers')\n"
        "pool.close()\n"
    )
    # --block keeps the head in one process group, which is ended whole; `ray stop` would end everybody's Ray.
    log = tmp_path / "head.log"
    with log.open("w") as out:
        head = subprocess.Popen(start.split(), env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        address = wait_for(lambda: re.search(rf"\d+\.\d+\.\d+\.\d+:{port}", log.read_text()))[0]
        command = [sys.executable, "-c", driver, address, os.path.dirname(__file__)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
        assert done.stdout == "2 workers\n", done.stderr + log.read_text()
    finally:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait(30)


def wait_for(found, seconds: float = 60):
    end = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.1)
    return result
