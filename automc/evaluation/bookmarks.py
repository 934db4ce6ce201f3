"""Repair checkpoints: where a repair is, written from time to time, so that a killed one goes on there.

A file a repair, beside the trial database, under a name that says whose it is. What it says counts only for the very
same repair: its key covers all that decides the weights. A file is there whole or not at all; one that is missing,
torn or of another repair means a start from the first step, and never an error.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from automc.core.policy import Policy
from automc.core.required import require
from automc.errors import one_line
from automc.evaluation.state import State, dumps, loads

SUFFIX = ".repair"

KEPT_DAYS = 7
"""A file nobody has written for so long is deleted: on other nodes than the driver's nobody else does it."""

DEAREST = 20
"""A repair computes at least so many times as long as the last writing took before the next one."""

Say = Callable[[str], None]
"""Told one line for people. It pickles."""


@dataclass(frozen=True)
class BookmarkSettings:
    """How often.

    Attributes:
        checkpoint_s: seconds of a repair between two of its checkpoints; 0: there are none.
    """

    checkpoint_s: float = 60.0

    def __post_init__(self) -> None:
        require(self, {"checkpoint_s": (self.checkpoint_s >= 0, "at least 0; 0: never")})


class Bookmark:
    """Where one repair is, in one file.

    Args:
        path: of the file; its folder is made when it is first written. every: seconds between two writings.
    """

    def __init__(self, path: Path, every: float, say: Say) -> None:
        self._path, self._every, self._say = path, every, say
        self._written = time.monotonic()
        self._took = 0.0
        self._broken = False
        self._key = ""

    def opened(self, key: str) -> State | None:
        """What was written last of the repair with this key; None: it begins at the first step."""
        self._key, self._written = key, time.monotonic()
        try:
            found = loads(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self._say(f"repair checkpoint {self._path} is ignored: {one_line(error)}")
            return None
        if found.get("key") != key:
            self._say(f"repair checkpoint {self._path} is ignored: it is of another model, data set, recipe or torch")
            return None
        state: State = found["state"]
        self._say(f"repair goes on at step {state['step']:,} of {state['steps']:,}")
        return state

    @property
    def due(self) -> bool:
        """Whether it is time to write."""
        return not self._broken and time.monotonic() - self._written >= max(self._every, DEAREST * self._took)

    def write(self, state: State) -> None:
        """Put this state in the place of the older one. A disk that refuses is said once and not tried again."""
        began = time.monotonic()
        partial = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            partial.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(dumps({"key": self._key, "state": state}))
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self._path)
        except OSError as error:
            self._broken = True
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            self._say(f"repair checkpoint {self._path} cannot be written, the repair goes on: {one_line(error)}")
        self._written = time.monotonic()
        self._took = self._written - began


def _aside(line: str) -> None:
    print(f"automc: {line}", file=sys.stderr)


@dataclass
class Bookmarks:
    """The bookmarks of a study: of each trial's repair, and of the teaching assistant's that may come before it.

    Attributes:
        folder: of the study; None: nothing is written or read. every: seconds, 0: likewise.
    """

    folder: Path | None = None
    every: float = BookmarkSettings.checkpoint_s
    say: Say = _aside
    _open: str = field(default="", repr=False)

    def begin(self, policy: Policy, rung: int) -> None:
        """From now on ``of`` means the repairs of this policy on this rung.

        Those of the one before are forgotten: who asks for the next evaluation has recorded the last one.
        """
        stem = _stem(policy, rung)
        if self._open and self._open != stem:
            self._forget(self._open)
        self._open = stem
        with contextlib.suppress(OSError):
            for path in self.folder.glob(f"*{SUFFIX}*") if self.folder else ():
                if time.time() - path.stat().st_mtime > KEPT_DAYS * 86_400:
                    path.unlink(missing_ok=True)

    def of(self, role: str) -> Bookmark | None:
        """The bookmark of one repair (``student``, ``assistant``); None where none is wanted."""
        if self.folder is None or not self.every or not self._open:
            return None
        return Bookmark(self.folder / f"{self._open}-{role}{SUFFIX}", self.every, self.say)

    def forget(self, policy: Policy, rung: int) -> None:
        """Delete what there is of a trial that is finished."""
        self._forget(_stem(policy, rung))

    def _forget(self, stem: str) -> None:
        if self.folder is None or not self.folder.is_dir():
            return
        with contextlib.suppress(OSError):  # a file that stays is in nobody's way
            for path in self.folder.glob(f"{stem}-*{SUFFIX}*"):
                path.unlink(missing_ok=True)


def _stem(policy: Policy, rung: int) -> str:
    return f"{policy.fingerprint}-{rung}"
