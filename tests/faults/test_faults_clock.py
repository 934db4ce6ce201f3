"""Clocks that are set while a study is driven from another machine: nobody's lease is stolen, and none outlives him."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest

from automc.core.metrics import Objective
from automc.core.store import LEASE_SECONDS, Control, Owner
from automc.core.study import ModelSpec, Part, StudySpec
from automc.errors import LeaseHeld
from automc.stores import database, sql_leases
from automc.stores.sql import SqlStore

SPEC = StudySpec("s", ModelSpec("digits_net"), Part("digits"), (), (), (Objective("top1"),))
FAR, NEAR = Owner("elsewhere.example", 7), Owner("here.example", 8)
HOUR = 3600.0


class Clock:
    """What ``time.time`` says, an hour off where the test says so; what is slept does not last."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.off, self.naps = 0.0, list[float]()
        self.meanwhile = lambda: None
        monkeypatch.setattr(database, "time", SimpleNamespace(time=lambda: time.time() + self.off))
        monkeypatch.setattr(sql_leases, "time", SimpleNamespace(sleep=self._nap))

    def _nap(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.meanwhile()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[SqlStore, SqlStore]]:
    """A driver's database and a rival's, the same file."""
    with closing(SqlStore(str(tmp_path / "s.db"))) as driver, closing(SqlStore(str(tmp_path / "s.db"))) as rival:
        driver.create(SPEC, {})
        driver.take("s", FAR)
        yield driver, rival


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_driver_that_lives_keeps_its_lease_however_the_clock_jumps(
    pair: tuple[SqlStore, SqlStore], clock: Clock, jump: float
) -> None:
    """Between two of its beats the lease looks an hour old, or made in an hour from now."""
    driver, rival = pair
    clock.off = jump
    clock.meanwhile = lambda: driver.renew("s")
    with pytest.raises(LeaseHeld, match=r"driven by pid 7 on host elsewhere\.example, last heard 0 s ago"):
        rival.take("s", NEAR)
    assert clock.naps == [sql_leases.DOUBT_SECONDS]
    assert rival.ask("s", Control.STOP) is Control.STOP
    assert driver.asked("s") is Control.STOP


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_driver_that_is_dead_does_not_keep_it_for_the_length_of_the_jump(
    pair: tuple[SqlStore, SqlStore], clock: Clock, jump: float
) -> None:
    driver, rival = pair
    clock.off = jump
    rival.take("s", NEAR)
    with pytest.raises(LeaseHeld, match=r"taken over by pid 8 on host here\.example"):
        driver.renew("s")


def test_nobody_waits_for_a_lease_that_is_free_or_held(pair: tuple[SqlStore, SqlStore], clock: Clock) -> None:
    driver, rival = pair
    with pytest.raises(LeaseHeld):
        rival.take("s", NEAR)
    driver.release("s")
    rival.take("s", NEAR)
    assert clock.naps == []


def test_drivers_of_a_server_go_by_its_clock_and_not_by_their_own(postgresql: str, clock: Clock) -> None:
    from servers import new_schema

    with new_schema(postgresql) as url, closing(SqlStore(url)) as driver, closing(SqlStore(url)) as rival:
        driver.create(SPEC, {})
        clock.off = 10 * HOUR
        driver.take("s", FAR)
        clock.off = -HOUR
        with pytest.raises(LeaseHeld):
            rival.take("s", NEAR)
        assert rival.driver("s") == FAR
        with psycopg.connect(url) as connection:
            row = connection.execute(
                "SELECT renewed, extract(epoch FROM clock_timestamp()) FROM automc_lease"
            ).fetchone()
            assert row is not None
            assert 0.0 <= float(row[1]) - row[0] < LEASE_SECONDS
            connection.execute("UPDATE automc_lease SET renewed = renewed - 31")
        assert rival.driver("s") is None
        rival.take("s", NEAR)
        assert clock.naps == [sql_leases.DOUBT_SECONDS]
