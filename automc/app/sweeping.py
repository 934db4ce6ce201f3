"""What nothing refers to any more: rows of a trial database, and files beside it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from automc.app import bookmarks
from automc.core.trial import TrialState
from automc.errors import StoreError, one_line
from automc.stores import TrialDatabase, open_store
from automc.stores.blobs import Blobs
from automc.stores.engine import parse_url, sqlite_file
from automc.stores.sweeping import Sweeper, Swept

AGE = 3600.0
"""Seconds: a younger file may be of an export that is not recorded yet."""

_UNFINISHED = (TrialState.WAITING, TrialState.RUNNING)


def gc(storage: str, dry: bool) -> list[Swept]:
    """Delete what nothing refers to, or, if ``dry``, only say what that is: what, how many, bytes.

    Raises:
        LeaseHeld: somebody searches. StoreError: the database or a file cannot be used.
    """
    with closing(Sweeper(storage, create=False)) as sweeper, closing(open_store(storage, create=False)) as store:
        rows = sweeper.sweep(dry)
        files = [
            _files("repair checkpoints of no unfinished trial", _checkpoints(storage, store), dry),
            _files("stored files of no trial", _models(storage, store), dry),
        ]
        if not dry and any(kind.count for kind in rows):
            sweeper.shrink()
    return [*rows, *files]


def _checkpoints(storage: str, store: TrialDatabase) -> Iterator[Path]:
    of_one = bookmarks.folder(storage, "any")
    if of_one is None:
        return
    studies = {summary.spec.name for summary in store.studies()}
    for folder in sorted(of_one.parent.glob("*/")):
        wanted = store.trials(folder.name, _UNFINISHED) if folder.name in studies else ()
        stems = tuple(f"{trial.policy.fingerprint}-" for trial in wanted)
        yield from (
            path for path in sorted(folder.iterdir()) if ".repair" in path.name and not path.name.startswith(stems)
        )


def _models(storage: str, store: TrialDatabase) -> Iterator[Path]:
    """Of a SQLite file; the folder of others may be shared by several databases."""
    if sqlite_file(parse_url(storage)) is None:
        return
    known: set[str | None] = set()
    for summary in store.studies():
        name = summary.spec.name
        known |= {artifact.sha256 for artifact in store.artifacts(name)}
        known |= {trial.measurement.artifact for trial in store.trials(name) if trial.measurement}
    folder = Blobs.beside(storage).folder
    yield from (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in known)


def _files(what: str, paths: Iterator[Path], dry: bool) -> Swept:
    count = size = 0
    for path in paths:
        try:
            told = path.stat()
            if time.time() - told.st_mtime < AGE:
                continue
            if not dry:
                path.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StoreError(f"{path}: cannot be deleted: {one_line(error)}") from error
        count, size = count + 1, size + told.st_size
    return Swept(what, count, size)
