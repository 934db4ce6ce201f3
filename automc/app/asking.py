"""Asking whoever drives a study, from any process: to pause, to go on, to stop, to cancel."""

from __future__ import annotations

from automc.app.study_schema import DEFAULT_STORAGE
from automc.core.store import Control
from automc.stores import open_store


def stop(name: str, storage: str = DEFAULT_STORAGE) -> bool:
    """Ask it to finish the running trials and end; False when nobody drives the study."""
    return ask(name, Control.STOP, storage) is not None


def pause(name: str, storage: str = DEFAULT_STORAGE) -> bool:
    """Ask it to start nothing new until it is resumed; False when nobody drives the study."""
    return ask(name, Control.PAUSE, storage) is not None


def cancel(name: str, storage: str = DEFAULT_STORAGE) -> bool:
    """Ask it to end at once, so that what runs waits again; False when nobody drives the study."""
    return ask(name, Control.CANCEL, storage) is not None


def lift(name: str, storage: str = DEFAULT_STORAGE) -> bool:
    """End a pause; False where there is none."""
    store = open_store(storage, create=False)
    try:
        return store.asked(name) is Control.PAUSE and store.ask(name, Control.GO) is Control.GO
    finally:
        store.close()


def ask(name: str, word: Control, storage: str = DEFAULT_STORAGE) -> Control | None:
    """Ask it anything: the word it finds from now on, None when nobody drives the study.

    Raises:
        UnknownStudy, StoreError.
    """
    store = open_store(storage, create=False)
    try:
        return store.ask(name, word)
    finally:
        store.close()
