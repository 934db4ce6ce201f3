"""Who holds a lease, whether that owner still lives, and what a rival is told."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, replace
from pathlib import Path

from automc.core.store import LEASE_SECONDS, Control, Owner
from automc.errors import LeaseHeld


@dataclass(frozen=True)
class Holder:
    """A lease as it is stored.

    Attributes:
        fence: grows by one at every take; writes under an older fence are refused.
        machine, born: which system and which process it was, so that a reused process id is not taken for it.
        token: names the store object that took it; None once it is given back.
        renewed: seconds since 1970.
        control: what its owner was asked since.
    """

    host: str
    pid: int
    fence: int
    machine: str
    born: str
    token: str | None
    renewed: float
    control: Control = Control.GO

    @property
    def owner(self) -> Owner:
        return Owner(self.host, self.pid)

    def told(self, word: Control) -> Holder:
        """The lease once its owner was asked this: a stop is not taken back, a cancel by nothing."""
        binding = self.control in (Control.STOP, Control.CANCEL)
        return replace(self, control=self.control.or_stronger(word) if binding else word)

    def alive(self, now: float) -> bool:
        """Whether this lease still binds others.

        On its own machine the process decides. From elsewhere only its silence can, because a process id says
        nothing there; the containers of one machine are elsewhere to each other.
        """
        if self.token is None or self.silent(now):
            return False
        if not self._here():
            return True
        born = process_birth(self.pid)
        return born is not None and (born == self.born or not born or not self.born)

    def silent(self, now: float) -> bool:
        """Whether it is held from elsewhere and was not heard for LEASE_SECONDS, or in a time to come: a clock that
        was set back must not keep a dead driver's lease alive.
        """
        return self.token is not None and not self._here() and abs(now - self.renewed) >= LEASE_SECONDS

    def _here(self) -> bool:
        return os.name == "posix" and (self.host, self.machine) == (socket.gethostname(), machine())


def taken(study: str, old: Holder | None, owner: Owner, token: str, now: float) -> Holder:
    """The lease as ``owner`` holds it from now on. The same store object may take its own lease again.

    Raises:
        LeaseHeld: a live driver holds it.
    """
    if old is not None and old.token != token and old.alive(now):
        raise _refusal(study, old, now)
    here = owner.host == socket.gethostname()
    born = (process_birth(owner.pid) or "") if here else ""
    return Holder(owner.host, owner.pid, old.fence + 1 if old else 1, machine() if here else "", born, token, now)


def check_writer(study: str, held: Holder | None, fence: int | None, now: float) -> None:
    """Whether a store may write: with the last lease, or with none while nobody alive holds one.

    Args:
        fence: of the lease that the store took, None when it took none.

    Raises:
        LeaseHeld: it may not.
    """
    if fence is not None:
        still_mine(study, held, fence)
    elif held is not None and held.alive(now):
        raise _refusal(study, held, now)


def still_mine(study: str, held: Holder | None, fence: int | None) -> Holder:
    """The lease, if it is the one taken under ``fence``.

    Raises:
        LeaseHeld: it was taken over, or never taken.
    """
    if held is None or fence is None:
        raise LeaseHeld(f"study {study!r}: this process holds no lease of it; take it first")
    if held.fence != fence:
        raise LeaseHeld(
            f"study {study!r} was taken over by pid {held.pid} on host {held.host}: "
            "this driver may not write to it any more; end it, the other runs its unfinished trials"
        )
    return held


def machine() -> str:
    """The boot and the process-id namespace this process runs in; "" where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def process_birth(pid: int) -> str | None:
    """When the process started, in ticks since boot; "" where the system does not tell; None when it is dead.

    A zombie is dead: it was killed and nobody has collected it yet.
    """
    if pid <= 0:
        return None
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:
        pass  # it lives, under another user
    try:
        # The name in parentheses may hold spaces. Behind it come the state and, 19 fields on, the start time.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return None if fields[0] in "ZX" else fields[19]


def _refusal(study: str, held: Holder, now: float) -> LeaseHeld:
    age = max(0.0, now - held.renewed)
    return LeaseHeld(
        f"study {study!r} is driven by pid {held.pid} on host {held.host}, last heard {age:.0f} s ago: "
        f"wait for it, ask it to end with 'automc stop {study}', or end that process"
    )
