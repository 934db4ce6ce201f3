"""Dead or alive: what a process id says, and when it says nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace

import psutil
import pytest

from automc.core.store import LEASE_SECONDS, Owner
from automc.errors import LeaseHeld
from automc.stores import owners
from automc.stores.owners import machine, process_birth, taken

HOST = socket.gethostname()
linux = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")


@linux
def test_the_birth_of_a_process_agrees_with_psutil() -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    born = process_birth(os.getpid())
    assert born is not None
    assert int(born) / ticks + psutil.boot_time() == pytest.approx(psutil.Process().create_time(), abs=1.5)


def test_a_process_is_dead_once_killed_also_before_it_is_collected() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        assert process_birth(child.pid) is not None
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert process_birth(child.pid) is None
    assert process_birth(child.pid) is None


@pytest.mark.parametrize("pid", [0, -1, 2**31 - 1, 2**70])
def test_what_is_no_process_is_dead(pid: int) -> None:
    assert process_birth(pid) is None


@linux
def test_a_reused_process_id_is_not_taken_for_the_driver() -> None:
    held = taken("s", None, Owner(HOST, os.getpid()), "a", 0.0)
    assert held.alive(0.0)
    assert not replace(held, born="12345").alive(0.0)
    assert taken("s", replace(held, born="12345"), Owner(HOST, os.getpid()), "b", 1.0).fence == 2


def test_where_the_system_does_not_tell_the_birth_the_process_id_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    held = taken("s", None, Owner(HOST, os.getpid()), "a", 0.0)
    monkeypatch.setattr(owners, "process_birth", lambda pid: "")
    assert held.alive(1e9)


def test_a_host_of_the_same_name_that_is_another_machine_is_judged_by_its_silence() -> None:
    """Containers: the same host name, but process ids of their own."""
    held = replace(taken("s", None, Owner(HOST, 2**22 + 1), "a", 100.0), machine="another boot/pid:[1]")
    assert held.alive(100.0 + LEASE_SECONDS - 0.1)
    assert not held.alive(100.0 + LEASE_SECONDS)
    assert not replace(held, machine=machine()).alive(100.0)


def test_a_clock_that_is_behind_makes_no_negative_age() -> None:
    held = taken("s", None, Owner("elsewhere", 7), "a", 100.0)
    with pytest.raises(LeaseHeld, match="pid 7 on host elsewhere, last heard 0 s ago"):
        taken("s", held, Owner(HOST, os.getpid()), "b", 90.0)
