"""Executors: an evaluation's fate becomes an outcome; a dead or late worker is replaced and the pool goes on."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from dataclasses import replace
from types import SimpleNamespace

import pytest

from automc.core.hopeless import Rival
from automc.core.metrics import EarlyEnd, Measurement
from automc.core.policy import Policy, Site
from automc.core.study import Rung, Workers
from automc.core.trial import Trial, TrialState
from automc.errors import CompressionError, NotFinite, StoreError, WorkerError
from automc.workers import cluster, ray_pool
from automc.workers.inline import InlineExecutor
from automc.workers.outcomes import MESSAGE_CHARACTERS
from automc.workers.pulse import Pulse
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
            for step in range(1, 100):
                if not monitor(step, 1.0 / step):
                    return Measurement({"top1": 0.5, "loss": 1.0 / step}, seconds=float(step))
                time.sleep(0.01)
        return Measurement({"top1": 0.9, "pid": float(os.getpid())}, {"a": {"channels": 3}})


class Counted(Script):
    """Writes down every process that unpacks it."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return _unpacked, (self.file,)


def _unpacked(file):
    with open(file, "a") as out:
        out.write(f"{os.getpid()}\n")
    return Counted(file)


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
def ray():
    """One local Ray for all executors here, with room for two workers and for one device."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=0,
        resources={"device:pi4": 1},
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        logging_level="ERROR",
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}},
    )
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def shared_pool(ray):
    rungs = (Rung(cpus=0.5), Rung(cpus=1.5, resources={"device:pi4": 1.0}))
    executor = RayExecutor(Script(), Workers(count=2, timeout_s=3.0), rungs)
    yield executor
    executor.close()


@pytest.fixture
def pool(shared_pool):
    """What a test leaves in the pool is not the next one's."""
    yield shared_pool
    while shared_pool._running or shared_pool._waiting:
        shared_pool.gather(lambda *report: None)


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


def test_what_the_stopper_ended_says_where(executor):
    executor.submit(running(4, "both"), lambda step, value: False, ())
    [outcome] = collect(executor, 1)
    assert (outcome.state, outcome.reason, outcome.message) == (
        TrialState.STOPPED,
        "behind",
        "at step 1, where it reported 20",
    )


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
    assert executor.free >= slots


def test_quick_trials_wait_beside_the_workers_and_slow_ones_do_not(pool, monkeypatch):
    for number in range(0, 2 * ray_pool.RECENT, 2):
        for one in (number, number + 1):
            pool.submit(running(one, "measure"), go_on)
        collect(pool, 2)
    assert pool.free == 4
    end = time.monotonic() + 60
    while len(pool._there.idle) < 2 and time.monotonic() < end:  # a worker may have been dismissed before
        pool.gather(lambda *report: None)
        time.sleep(0.1)
    for number in range(4):
        pool.submit(running(number, "measure"), go_on)
    assert (pool.free, len(pool._running), len(pool._waiting)) == (0, 2, 2)
    assert sorted(o.number for o in collect(pool, 4)) == [0, 1, 2, 3]
    monkeypatch.setattr(ray_pool, "QUICK_SECONDS", 0.0)
    assert pool.free == 2


def test_a_dead_worker_loses_only_its_trial(pool):
    pool.submit(running(1, "die"), go_on)
    pool.submit(running(2, "measure"), go_on)
    outcomes = {o.number: o for o in collect(pool, 2)}
    assert (outcomes[1].state, outcomes[1].reason) == (TrialState.WAITING, "lost")
    assert "worker died during attempt 1: its process ended with exit code 3" in outcomes[1].message
    assert outcomes[2].state is TrialState.COMPLETE
    assert pool.free >= 2
    for number in (3, 4):
        pool.submit(running(number, "measure"), go_on)
    again = collect(pool, 2)
    assert [o.state for o in again] == [TrialState.COMPLETE] * 2


def test_ray_workers_are_other_processes(pool):
    pool.submit(running(1, "measure"), go_on)
    [outcome] = collect(pool, 1)
    assert outcome.measurement.metrics["pid"] != os.getpid()


def test_a_hang_ends_at_its_deadline_and_the_next_trial_has_its_whole_time(pool):
    for number in (1, 2):
        pool.submit(running(number, "hang"), go_on)
    began = time.monotonic()
    outcomes = collect(pool, 2)
    assert [(o.state, o.reason) for o in outcomes] == [(TrialState.FAILED, "timeout")] * 2
    assert "limit is timeout_s = 3" in outcomes[0].message
    assert 3.0 <= time.monotonic() - began < 20.0
    pool.submit(running(3, "measure"), go_on)
    assert collect(pool, 1)[0].state is TrialState.COMPLETE


def test_a_worker_that_does_not_answer_is_killed_after_its_deadline(pool):
    pool.submit(running(1, "hang"), go_on)
    [run] = pool._running.values()
    keeper = pool._ray.get(run.worker.actor.ready.remote())
    os.kill(keeper, signal.SIGSTOP)
    began = time.monotonic()
    [outcome] = collect(pool, 1)
    assert (outcome.reason, "its worker did not answer" in outcome.message) == ("timeout", True)
    assert time.monotonic() - began < 20.0
    pool.submit(running(2, "measure"), go_on)
    assert collect(pool, 1)[0].state is TrialState.COMPLETE


def test_a_worker_that_is_gone_is_replaced_and_its_trial_waits_again(pool):
    pool.submit(running(1, "hang"), go_on)
    [run] = pool._running.values()
    os.kill(pool._ray.get(run.worker.actor.ready.remote()), signal.SIGKILL)
    [outcome] = collect(pool, 1)
    assert (outcome.state, outcome.reason) == (TrialState.WAITING, "lost")
    pool.submit(running(2, "measure"), go_on)
    assert collect(pool, 1)[0].state is TrialState.COMPLETE


def test_workers_of_another_shape_take_the_place_of_idle_ones(pool):
    """Two workers of rung 0 fill the pool; one of them goes, and comes again (10 s a start while others compute)."""
    pids = []
    for number, rung in ((1, 0), (2, 1), (3, 1)):
        pool.submit(replace(running(number, "measure"), rung=rung), go_on)
        pids.append(collect(pool, 1)[0].measurement.metrics["pid"])
    assert pids[0] != pids[1] == pids[2]
    for number in (4, 5):
        pool.submit(running(number, "report"), go_on)
    assert [o.state for o in collect(pool, 2)] == [TrialState.COMPLETE] * 2
    assert all(worker.shape.cpus == 0.5 for worker in pool._staff.idle)


def test_model_and_data_are_unpacked_once_a_worker_whatever_dies(pool, tmp_path):
    counted = RayExecutor(Counted(tmp_path / "unpacked"), Workers(count=2, timeout_s=1.0))
    for number, what in enumerate(("hang", "die", "measure", "die", "measure", "nan")):
        counted.submit(running(number, what), go_on)
        if counted.free == 0:
            collect(counted, 2)
    counted.close()
    pids = (tmp_path / "unpacked").read_text().split()
    assert len(pids) == len(set(pids)) <= 2


def test_what_no_node_has_is_refused_at_once(pool):
    rungs = (Rung(), Rung(5, gpus=0.25, resources={"device:pi5": 1.0}))
    message = (
        r"rungs\[1\]: no node of a local Ray has CPU 1, GPU 0.25, device:pi5 1 for a worker, "
        r"did you mean 'device:pi4'\? "
        r"\(it has: CPU 2, device:pi4 1\); ask for less, or start a node that has it"
    )
    with pytest.raises(WorkerError, match=message):
        RayExecutor(Script(), Workers(count=2), rungs)


def test_what_no_worker_can_start_with_is_refused_in_a_line(ray):
    """By the constructor, which waits a little for the first worker, or by the first gathering."""

    def started():
        with contextlib.closing(RayExecutor(Script(), Workers(count=1, memory_mb=1), (Rung(cpus=0.1),))) as poor:
            poor.submit(running(1, "measure"), go_on)
            collect(poor, 1)

    with pytest.raises(WorkerError, match=r"^workers: a new one does not start on .*: workers.memory_mb: 1 is used up"):
        started()


def test_what_cannot_travel_is_refused_at_once(pool):
    class Stuck(Script):
        def __reduce__(self):
            raise TypeError("cannot pickle a lock")

    with pytest.raises(WorkerError, match=r"cannot be sent to a worker \(cannot pickle a lock\); name the model as"):
        RayExecutor(Stuck(), Workers(count=1))


@pytest.mark.parametrize(
    ("address", "mode", "said"),
    [("10.0.0.1:6379", None, True), ("10.0.0.1:6379", "token", False), ("auto", None, False), (None, None, False)],
)
def test_a_cluster_that_does_not_answer_may_want_a_token(address, mode, said, monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    hint = cluster.remedy(Workers(address=address), ConnectionError("failed"))
    assert ("set RAY_AUTH_MODE=token" in hint) == said
    assert not cluster.remedy(Workers(address=address), ValueError("failed"))


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
        "print([o.state.value for o in collect(pool, 2)])\n"
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
        assert done.stdout == "['complete', 'complete']\n", done.stderr + log.read_text()
    finally:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait(30)


def wait_for(found, seconds: float = 60):
    end = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.1)
    return result


def test_nothing_is_asked_of_a_head_that_is_silent(monkeypatch):
    """Its answer would be waited for until Ray ends the process, before the search can end in a line."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen()
        context = SimpleNamespace(gcs_address=f"127.0.0.1:{door.getsockname()[1]}")
        pulse = Pulse(SimpleNamespace(get_runtime_context=lambda: context), "the cluster")
        pulse.feel()
        assert not pulse.silent
    asked = []
    pool = object.__new__(RayExecutor)
    pool._pulse, pool._waiting, pool._running, pool._shapes = pulse, deque([(running(0, "measure"), 0, None)]), {}, [""]
    pool._staff = SimpleNamespace(welcome=list, take=lambda shape: None, adjust=lambda *a, **k: asked.append(a))
    pool._assign()
    monkeypatch.setattr(pulse, "_next", 0.0)
    pulse.feel()
    assert pulse.silent
    pool._assign()
    assert len(asked) == 1
