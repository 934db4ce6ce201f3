"""Ray nodes as processes of this machine, each with an address of its own, and the processes that belong to one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

RAY = str(Path(sys.executable).with_name("ray"))
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 32, "RAY_USAGE_STATS_ENABLED": "0"}
"""The environment of all who belong together: without a token of its own a node takes that of another Ray here."""

STARTED = "Ray runtime started"
"""What a node says once it is one."""


class Node:
    """A head or another node.

    Args:
        words: of ``ray start``. log: takes what it prints.
    """

    def __init__(self, log: Path, *words: str) -> None:
        with log.open("a") as out:
            self._process = subprocess.Popen(
                [RAY, "start", "--block", "--object-store-memory=100000000", *words],
                env=os.environ | TOKEN,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def processes(self, part: str) -> list[int]:
        """The process ids below it, all the way down, that have this in their command line."""
        return [pid for pid in _below(self._process.pid) if part in _command(pid)]

    def wait(self) -> None:
        """Until it has ended by itself, as it does without its raylet; then nothing of it is left."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self.kill()

    def kill(self) -> None:
        """All of it at once. Harmless when repeated."""
        for pid in [*_below(self._process.pid), self._process.pid]:
            strike(pid)
        self._process.wait(30)


def strike(pid: int) -> bool:
    """SIGKILL; False when it is gone."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def head(log: Path) -> tuple[Node, str]:
    """A head without processors, and its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    node = Node(log, "--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false")
    until(lambda: STARTED in log.read_text())
    return node, f"{_own_address()}:{port}"


def worker(log: Path, address: str) -> Node:
    """A node with two processors, as if on another machine: a driver here must not take it for its own."""
    node = Node(log, f"--address={address}", "--node-ip-address=127.0.0.3", "--num-cpus=2")
    until(lambda: STARTED in log.read_text())
    return node


def until(found: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not found():
        if time.monotonic() > end:
            raise SystemExit(f"nothing came in {seconds:g} s")
        time.sleep(0.05)


def _own_address() -> str:
    from ray.util import get_node_ip_address

    return str(get_node_ip_address())


def _below(root: int) -> list[int]:
    parents = {int(path.name): _parent(path) for path in Path("/proc").glob("[0-9]*")}
    found, wave = list[int](), {root}
    while wave := {pid for pid, parent in parents.items() if parent in wave}:
        found += wave
    return found


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
