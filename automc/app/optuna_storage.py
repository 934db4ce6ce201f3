"""Optuna's storages as automc names them, and what both directions of exchange agree on."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from automc.core.trial import TrialState
from automc.errors import AutomcError, StoreError, one_line

STATES = {
    TrialState.WAITING: optuna.trial.TrialState.WAITING,
    TrialState.RUNNING: optuna.trial.TrialState.RUNNING,
    TrialState.COMPLETE: optuna.trial.TrialState.COMPLETE,
    TrialState.STOPPED: optuna.trial.TrialState.PRUNED,
    TrialState.FAILED: optuna.trial.TrialState.FAIL,
}


@contextmanager
def opened(target: str, create: bool) -> Iterator[BaseStorage]:
    """An Optuna storage, closed afterwards.

    Args:
        target: a URL as Optuna takes it, or the path of a journal file, as optuna-dashboard takes both.
        create: make the file where it is missing.

    Raises:
        StoreError: it cannot be opened, read or written, in one line.
    """
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage: BaseStorage | None = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            _check(target, create)
            storage = RDBStorage(target) if "://" in target else JournalStorage(JournalFileBackend(target))
            yield storage
    except AutomcError:
        raise
    except Exception as error:  # Optuna says nothing of what it raises: drivers' errors, KeyError, failed assertions
        raise StoreError(f"--optuna {_shown(target)}: {one_line(error)}") from error
    finally:
        if isinstance(storage, RDBStorage):
            storage.remove_session()
            storage.engine.dispose()
        optuna.logging.set_verbosity(level)


def _check(target: str, create: bool) -> None:
    """Refuse what Optuna would make an empty file or a riddle of."""
    path: Path | None = Path(target)
    if "://" in target:
        try:
            url = sa.make_url(target)
        except (sa.exc.ArgumentError, ValueError):
            raise StoreError("--optuna: the URL cannot be read; it must look like sqlite:///optuna.db") from None
        path = Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None
    elif Path(target).suffix in (".db", ".sqlite", ".sqlite3"):
        raise StoreError(f"--optuna {target}: a path names a journal file; for SQLite say sqlite:///{target}")
    if path is not None and not path.parent.is_dir():
        raise StoreError(f"--optuna {target}: the folder {path.parent} does not exist")
    if path is not None and not create and not path.is_file():
        raise StoreError(f"--optuna {target}: there is no such file")


def _shown(target: str) -> str:
    return sa.make_url(target).render_as_string(hide_password=True) if "://" in target else target


def names(storage: BaseStorage) -> list[str]:
    """Of its studies."""
    found: list[Any] = optuna.get_all_study_names(storage)
    return [str(name) for name in found]
