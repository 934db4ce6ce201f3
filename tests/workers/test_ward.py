"""A process for evaluations: whatever becomes of it, the trial has a reason and the end of the log."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest

from automc.core.metrics import Measurement
from automc.core.policy import Policy, Site
from automc.core.study import Workers
from automc.core.trial import Trial, TrialState
from automc.errors import AutomcError, WorkerError
from automc.workers import devices, ward
from automc.workers.outcomes import MESSAGE_CHARACTERS
from automc.workers.ward import Ward, resident_mb


class Trap(Exception):
    """Cannot be shown, cannot be pickled."""

    def __str__(self):
        raise ValueError("no text")

    def __reduce__(self):
        raise RuntimeError("no pickle")


class OwnTrap(AutomcError):
    def __str__(self):
        raise ValueError("no text")


@dataclass
class Bomb:
    """Can be pickled, and not be read again."""

    def __reduce__(self):
        return _burst, ()


def _burst():
    raise RuntimeError("burst")


def eat():
    held = []
    while True:
        held.append(bytearray(b"x" * 2**24))
        time.sleep(0.01)


def spawn():
    """A grandchild that would outlive its parent."""
    print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid, flush=True)
    time.sleep(600)


def chat():
    print("\n".join(f"line {n}" for n in range(100_000)), flush=True)
    raise KeyError("after much talk")


def shown(text: str):
    os.write(1, b"from C\n")
    print("from Python", file=sys.stderr)
    return Measurement({"top1": 0.5, "pid": float(os.getpid())}) if text == "good" else None


DEEDS = {
    "measure": lambda: shown("good"),
    "nothing": lambda: shown("bad"),
    "huge": lambda: _raise(KeyError("x" * 10_000_000)),
    "trap": lambda: _raise(Trap()),
    "own trap": lambda: _raise(OwnTrap()),
    "odd": lambda: _raise(ValueError("half \ud800 and nul \0")),
    "quit": lambda: sys.exit("bye"),
    "interrupt": lambda: _raise(KeyboardInterrupt()),
    "lambda": lambda: Measurement({"top1": 0.5}, {"a": lambda: 1}),
    "bomb": lambda: Measurement({"top1": 0.5}, {"a": Bomb()}),
    "exit": lambda: os._exit(3),
    "segfault": lambda: ctypes.string_at(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "terminate": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "hang": lambda: time.sleep(600),
    "eat": eat,
    "spawn": spawn,
    "chat": chat,
    "closed": lambda: (sys.stdout.close(), shown("good"))[1],
    "device": lambda: Measurement({"sum": float(devices.on_device("pi4", sum, [1, 2]))}),
}


def _raise(error):
    raise error


class Doer:
    """An evaluator that does what the policy says; two deeds with a monitor."""

    def evaluate(self, policy, rung, monitor, rivals=None):
        deed = policy[Site("script", "*", "do")]
        if deed == "report":
            while monitor(1, 0.5) and monitor(2, 0.25):
                pass
            return Measurement({"top1": 0.5})
        return DEEDS[deed]()


def trial(deed: str, number: int = 3) -> Trial:
    return Trial(number, Policy({Site("script", "*", "do"): deed})).to(TrialState.RUNNING)


def go_on(step, value):
    return True


@pytest.fixture
def ward_():
    made = Ward(Doer(), Workers())
    yield made
    made.close()


def done(made: Ward, deed: str, worth=go_on):
    heard = []
    outcome = made.evaluate(trial(deed), worth, None, lambda *report: heard.append(report))
    assert (outcome.number, outcome.attempt) == (3, 1)
    return outcome, heard


def test_a_measurement_comes_back_from_another_process_and_its_log_does_not(ward_):
    first, second = done(ward_, "measure")[0], done(ward_, "measure")[0]
    assert first.state is TrialState.COMPLETE
    assert first.measurement.metrics == {"top1": 0.5, "pid": float(first.pid)}
    assert first.pid == second.pid != os.getpid()
    assert (first.log, first.host != "") == ("", True)


@pytest.mark.parametrize(
    ("deed", "message"),
    [
        ("huge", "KeyError: 'xxxx"),
        ("trap", "Trap: its message cannot be shown (" + __file__),
        ("own trap", "its message cannot be shown"),
        ("odd", r"half \ud800 and nul \0"),
        ("quit", "SystemExit: bye"),
        ("interrupt", "KeyboardInterrupt"),
        ("lambda", "its measurement cannot be sent: "),
        ("bomb", "its measurement cannot be sent: RuntimeError: burst"),
        ("nothing", "AttributeError: 'NoneType' object has no attribute 'ended'"),
    ],
)
def test_what_cannot_be_shown_or_sent_is_an_error_and_the_process_lives_on(ward_, deed, message):
    outcome, _ = done(ward_, deed)
    assert (outcome.state, outcome.reason) == (TrialState.FAILED, "error")
    assert message in outcome.message
    assert len(outcome.message) < MESSAGE_CHARACTERS + 20
    assert outcome.message.encode()
    assert done(ward_, "measure")[0].pid == outcome.pid


@pytest.mark.parametrize(
    ("deed", "reason", "message"),
    [
        ("exit", "lost", "the worker died during attempt 1: its process ended with exit code 3"),
        ("segfault", "signal", "the worker died during attempt 1: SIGSEGV killed its process"),
        ("kill", "signal", "SIGKILL killed its process (by hand, or by the system for want of memory)"),
        ("terminate", "signal", "SIGTERM killed its process"),
    ],
)
def test_a_process_that_dies_may_be_tried_again_and_is_replaced(ward_, deed, reason, message):
    outcome, _ = done(ward_, deed)
    assert (outcome.state, outcome.reason) == (TrialState.WAITING, reason)
    assert message in outcome.message
    again, _ = done(ward_, "measure")
    assert again.state is TrialState.COMPLETE
    assert again.pid != outcome.pid


def test_the_log_has_the_end_of_what_was_written_and_of_a_crash_its_place(ward_):
    talk, _ = done(ward_, "chat")
    assert talk.log.endswith("line 99998\nline 99999\n")
    assert len(talk.log) == MESSAGE_CHARACTERS
    assert done(ward_, "nothing")[0].log == "from C\nfrom Python\n"
    assert '  File "' in done(ward_, "segfault")[0].log
    assert done(ward_, "closed")[0].state is TrialState.COMPLETE


def test_a_hang_ends_at_its_deadline_with_all_that_it_started():
    made = Ward(Doer(), Workers(timeout_s=1.0))
    for deed in ("hang", "spawn"):
        began = time.monotonic()
        outcome, _ = done(made, deed)
        assert (outcome.state, outcome.reason) == (TrialState.FAILED, "timeout")
        assert "the limit is timeout_s = 1" in outcome.message
        assert 1.0 <= time.monotonic() - began < 15.0
    grandchild = int(outcome.log)
    assert gone_or_zombie(grandchild)
    assert done(made, "measure")[0].state is TrialState.COMPLETE
    made.close()


def gone_or_zombie(pid: int) -> bool:
    """Whether it is so within 10 s."""
    for _ in range(200):
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def test_memory_has_a_limit():
    limit = int(resident_mb(os.getpid())) + 200
    made = Ward(Doer(), Workers(memory_mb=limit))
    outcome, _ = done(made, "eat")
    assert (outcome.state, outcome.reason) == (TrialState.FAILED, "oom")
    assert f"the limit is memory_mb = {limit}" in outcome.message
    assert done(made, "measure")[0].state is TrialState.COMPLETE
    made.close()
    with pytest.raises(WorkerError, match=r"workers.memory_mb: 1 is used up before the first trial: Python, model and"):
        Ward(Doer(), Workers(memory_mb=1))


def test_reports_are_heard_and_the_verdict_is_passed_in_the_process(ward_):
    outcome, heard = done(ward_, "report", lambda step, value: value > 0.3)
    assert outcome.state is TrialState.STOPPED
    assert heard == [(1, 0.5), (2, 0.25)]


def test_a_process_killed_between_two_trials_costs_none_of_them(ward_):
    first, _ = done(ward_, "measure")
    os.kill(first.pid, signal.SIGKILL)
    assert gone_or_zombie(first.pid)
    assert done(ward_, "measure")[0].state is TrialState.COMPLETE


def test_the_process_dies_with_its_parent():
    code = (
        "import os, sys; sys.path[:0] = sys.argv[1:]\n"
        "from test_ward import Doer, Ward, Workers, done\n"
        "made = Ward(Doer(), Workers()); print(done(made, 'measure')[0].pid, flush=True); os._exit(0)\n"
    )
    command = [sys.executable, "-c", code, os.path.dirname(__file__)]
    pid = int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout)
    assert gone_or_zombie(pid)


def test_the_parent_measures_on_other_nodes(ward_, monkeypatch):
    monkeypatch.setattr(ward, "on_device", lambda device, function, *arguments: function(*arguments) + len(device))
    assert done(ward_, "device")[0].measurement.metrics == {"sum": 6.0}
    monkeypatch.setattr(ward, "on_device", lambda *_: _raise(WorkerError("device 'pi4': no node")))
    outcome, _ = done(ward_, "device")
    assert (outcome.reason, outcome.message) == ("error", "device 'pi4': no node")
