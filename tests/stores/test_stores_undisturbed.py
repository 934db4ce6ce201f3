"""Ctrl-C and a transaction: the one waits until the other is over."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from automc.stores import open_store
from automc.stores.sql import SqlStore
from automc.stores.undisturbed import undisturbed


@pytest.fixture(autouse=True)
def _ctrl_c_as_python_has_it() -> Iterator[None]:
    """Ray Tune, where a test of this process ran it, leaves a handler of its own behind."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_every_press_acts_after_the_block_and_the_handler_is_back() -> None:
    seen: list[str] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append("pressed"))
    try:
        handler = signal.getsignal(signal.SIGINT)
        with undisturbed():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            seen.append("inside")
        assert seen == ["inside", "pressed", "pressed"]
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_error_inside_leaves_the_handler_as_it_was() -> None:
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError, match="inside"), undisturbed():
        raise ValueError("inside")
    assert signal.getsignal(signal.SIGINT) is handler


def test_other_threads_do_not_touch_the_handler() -> None:
    found: list[object] = []

    def look() -> None:
        with undisturbed():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGINT)]


def write(store: SqlStore) -> None:
    with store._changing() as connection:
        connection.exec_driver_sql("CREATE TABLE half (x INTEGER)")
        signal.raise_signal(signal.SIGINT)
        connection.exec_driver_sql("INSERT INTO half VALUES (1)")


def test_an_interrupted_write_is_whole_and_leaves_no_lock(tmp_path: Path) -> None:
    store = open_store(f"{tmp_path}/s.db")
    with pytest.raises(KeyboardInterrupt):
        write(store)
    with store._changing() as connection:
        assert connection.exec_driver_sql("SELECT x FROM half").scalars().all() == [1]
    store.close()
