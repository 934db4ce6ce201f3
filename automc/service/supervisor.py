"""Keeps the drivers of studies running, each ``automc resume`` in a session of its own, which outlives this process.

What is wanted stands in the database, and so does whether a driver lives (its lease). A supervisor that starts takes up
what it finds: it leaves a living driver alone, and starts a new one for a study whose driver died without giving its
lease back. A lease that was given back says that the search ended by itself.

Of several services over one database one starts a driver: who claims the study while its lease is as all saw it. The
others wait for that driver's lease.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from automc.app import driving
from automc.core.store import Control
from automc.errors import AutomcError, StoreError, UnknownStudy
from automc.service.builder import Build
from automc.service.places import beside
from automc.service.settings import Settings
from automc.stores.service import ServiceStore
from automc.stores.sql_care import Care

LOOK_SECONDS = 1.0
MOST_STARTS = 4
"""A driver that dies so often before it has lived for STEADY_SECONDS is not started again."""

STEADY_SECONDS = 60.0
START_SECONDS = 60.0
"""So long a driver that another service started may take to its lease."""

_LOG_BYTES, _TAIL = 1 << 20, 400
_ENDED_WELL = (0, 130)


class Driver(subprocess.Popen[bytes]):
    """A process that may outlive who started it, of which Python would warn."""

    def __del__(self) -> None:
        pass


class Supervisor:
    """Looks after drivers and exports from a thread.

    Args:
        build: does the exports.
    """

    def __init__(self, store: ServiceStore, settings: Settings, build: Callable[[], Build]) -> None:
        self._store, self._settings, self._build = store, settings, build
        self._children: dict[str, Driver] = {}
        self._since: dict[str, float] = {}
        self._claims: dict[str, tuple[int, int]] = {}
        self._others: dict[str, tuple[Care, float]] = {}
        self._call, self._end = threading.Event(), False
        self._threads = [
            threading.Thread(target=self._loop, args=(work,), name=f"automc-{work.__name__}", daemon=True)
            for work in (self.look, self.export)
        ]

    def start(self) -> None:
        """Take up what was wanted before; what an earlier process was exporting begins anew."""
        for operation in self._store.operations("running"):
            self._store.change_operation(operation.id, "queued")
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End; drivers go on."""
        self._end = True
        self._call.set()
        self._threads[0].join()  # an export is left alone, and done again by the next service

    def wake(self) -> None:
        """Look at once."""
        self._call.set()

    def look(self) -> None:
        """One look at every study whose driver is to run."""
        for name in dict.fromkeys([*self._store.wanted(), *self._children]):
            try:
                self._look_after(name)
            except UnknownStudy:
                continue  # deleted meanwhile
            except OSError as error:
                self._give_up(name, f"its driver cannot be started: {error.strerror or error}")

    def export(self) -> None:
        """Do the exports that wait, one after the other. One that breaks a promise has failed, and has its files."""
        for operation in self._store.operations("queued"):
            if self._end:
                return
            self._store.change_operation(operation.id, "running")
            job = {"do": "export", "study": operation.study, "number": operation.number}
            where = {"storage": self._settings.storage, "formats": list(operation.formats)}
            try:
                done = self._build()({**job, **where}, self._settings.build_seconds)
                reasons = "; ".join(done["proof"]["reasons"])
                self._store.change_operation(operation.id, "failed" if reasons else "done", done, reasons)
            except AutomcError as error:
                self._store.change_operation(operation.id, "failed", said=str(error))

    def _loop(self, work: Callable[[], None]) -> None:
        while not self._end:
            try:
                work()
            except StoreError as error:
                driving.talk(f"supervisor: {error}")
            self._call.wait(LOOK_SECONDS)
            self._call.clear()

    def _look_after(self, name: str) -> None:
        lease, care, child = self._store.standing(name), self._store.care(name), self._children.get(name)
        if lease.alive:
            since = self._since.setdefault(name, time.monotonic())
            if care.starts and time.monotonic() - since > STEADY_SECONDS:
                self._store.keep_care(name, starts=0)
            if child is not None and child.poll() is not None:
                del self._children[name]  # somebody else's driver was first
            elif child is not None and not care.wanted and lease.control == Control.GO.value:
                self._call_off(name, child)
            return
        self._since.pop(name, None)
        if child is not None and child.poll() is None:
            return  # it has not taken its lease yet, or is about to end
        code = self._children.pop(name).returncode if child is not None else None
        mine = self._claims.pop(name, None) == (care.starts, care.fence)
        driven = lease.fence > care.fence
        ended = driven and (lease.released or lease.control != Control.GO.value)
        if ended and (code is None or code in _ENDED_WELL):
            self._store.keep_care(name, wanted=False)
        elif ended or code in range(1, 8):  # it said what is wrong, and would say so again
            self._give_up(name, self._last_words(name) or f"its driver ended with exit code {code}")
        elif not care.wanted or not (driven or mine or self._is_free(name, care)):
            return
        elif care.starts >= MOST_STARTS:
            self._give_up(name, f"its driver died {care.starts} times: {self._last_words(name)}")
        elif self._store.claim(name, care, lease.fence):
            self._claims[name] = (care.starts + 1, lease.fence)
            self._children[name] = self._spawn(name)

    def _call_off(self, name: str, child: Driver) -> None:
        """End a driver that nobody wants any more since before it came to its lease, when it could not be asked."""
        owner = self._store.driver(name)
        if owner is not None and owner.pid == child.pid:
            self._store.ask(name, Control.CANCEL)

    def _is_free(self, name: str, care: Care) -> bool:
        """Whether no other service, or one before this, has started a driver that may still come to its lease."""
        seen, since = self._others.get(name, (None, 0.0))
        if seen != care:
            since = time.monotonic()
            self._others[name] = (care, since)
        return care.starts == 0 or time.monotonic() - since >= START_SECONDS

    def _spawn(self, name: str) -> Driver:
        path = log_of(self._settings.storage, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.exists() and path.stat().st_size > _LOG_BYTES
        words = [sys.executable, "-m", "automc.cli", "resume", "--", name]
        known = {**os.environ, "AUTOMC_STORAGE": self._settings.storage}  # it may hold a password: not for ps
        with path.open("wb" if fresh else "ab") as log:
            return Driver(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=known, start_new_session=True)

    def _give_up(self, name: str, said: str) -> None:
        driving.talk(f"study {name}: {said}")
        self._store.keep_care(name, wanted=False, said=said)

    def _last_words(self, name: str) -> str:
        try:
            lines = log_of(self._settings.storage, name).read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return lines[-1].removeprefix("automc: ")[:_TAIL] if lines else ""


def log_of(storage: str, study: str) -> Path:
    """Where the driver of a study writes what it says."""
    return beside(storage, "drivers") / f"{study}.log"
