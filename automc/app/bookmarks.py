"""Where a study's repair checkpoints lie, and when they are deleted."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from automc.app.driving import talk
from automc.core.search import Listener, Silent
from automc.core.trial import Trial
from automc.stores.engine import parse_url, sqlite_file


def folder(storage: str, study: str) -> Path | None:
    """``x.db.repairs/STUDY`` beside the SQLite file ``x.db``; for other databases a folder of the user's cache
    (``$XDG_CACHE_HOME/automc``, or ``~/.cache/automc``); None for a database in memory, which nobody resumes.

    It is absolute: workers on this machine find it, those on others have one of their own at the same path.
    """
    if storage == "memory:":
        return None
    url = parse_url(storage)
    path = sqlite_file(url)
    if path is not None:
        return path.absolute().with_name(f"{path.name}.repairs") / study
    where = hashlib.sha256(f"{url.host} {url.port} {url.database}".encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache.absolute() / "automc" / where / study


def placed(evaluator: Any, storage: str, study: str) -> Any:
    """The same evaluator, which from now on keeps its checkpoints there, if it is one that repairs."""
    bookmarks = getattr(evaluator, "bookmarks", None)
    if bookmarks is not None:
        bookmarks.folder, bookmarks.say = folder(storage, study), talk
    return evaluator


class Tidy:
    """A listener in front of another: deletes the checkpoints of every trial that is finished and recorded."""

    def __init__(self, evaluator: Any, inner: Listener | None) -> None:
        self._bookmarks = getattr(evaluator, "bookmarks", None)
        self._inner = inner or Silent()

    def added(self, trial: Trial) -> None:
        self._inner.added(trial)

    def finished(self, trial: Trial) -> None:
        if self._bookmarks is not None:
            self._bookmarks.forget(trial.policy, trial.rung)
        self._inner.finished(trial)

    def noted(self, number: int, step: int, value: float) -> None:
        self._inner.noted(number, step, value)

    def paused(self, now: bool) -> None:
        self._inner.paused(now)
