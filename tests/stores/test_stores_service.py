"""What a service keeps in the database: tokens, care of studies, repeated requests, operations, events."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from servers import new_schema

from automc.core.metrics import Measurement
from automc.core.policy import Policy, Site
from automc.core.ports import Outcome, Proposal
from automc.core.store import Owner
from automc.core.study import StudySpec
from automc.core.trial import TrialState
from automc.errors import LeaseHeld, StoreError, StudyExists, UnknownStudy, UnknownTrial
from automc.stores import tables
from automc.stores.archive import Archive
from automc.stores.service import ServiceStore
from automc.stores.sql_operations import Operation
from automc.stores.sql_tokens import Token
from automc.stores.sweeping import Sweeper

ME = Owner(socket.gethostname(), os.getpid())


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield str(path)
        return
    with new_schema(request.getfixturevalue("postgresql")) as found:
        yield found


@pytest.fixture
def desk(url: str, spec: StudySpec) -> Iterator[ServiceStore]:
    found = ServiceStore(url)
    found.create(spec, {})
    yield found
    found.close()


def test_a_token_is_found_by_its_digest_and_ends_when_it_is_revoked(desk: ServiceStore) -> None:
    made = desk.keep_token(Token("a1", "f" * 64, "write", "laptop", expires="2999-01-01T00:00:00.000Z"))
    assert desk.token("f" * 64) == made
    assert made.valid
    assert desk.token("e" * 64) is None
    assert not desk.keep_token(Token("a2", "e" * 64, "read", "", expires="2020-01-01T00:00:00.000Z")).valid
    first = desk.revoke("a1")
    assert not first.valid
    assert desk.revoke("a1") == first
    assert [token.id for token in desk.tokens()] == ["a1", "a2"]
    with pytest.raises(StoreError, match="no token 'b'; 'automc token list' shows them"):
        desk.revoke("b")


def test_the_audit_is_read_newest_first(desk: ServiceStore) -> None:
    for status in (201, 403, 204):
        desk.audit("a1", "127.0.0.1", "POST /api/v1/studies", status)
    assert [entry.status for entry in desk.audited(2)] == [204, 403]


def test_a_note_is_changed_only_by_who_saw_the_last_one(desk: ServiceStore) -> None:
    assert desk.annotate("s", "first", (0, 0))
    assert not desk.annotate("s", "late", (0, 0))
    assert desk.annotate("s", "anyway", None)
    assert (desk.care("s").note, desk.care("s").edition) == ("anyway", 2)


def test_a_deleted_study_is_there_for_nobody_until_it_comes_back(desk: ServiceStore, spec: StudySpec) -> None:
    desk.want("s")
    desk.delete("s")
    assert (list(desk.studies()), list(desk.wanted()), dict(desk.last_events())) == ([], [], {})
    with pytest.raises(UnknownStudy, match="no study 's'"):
        desk.trials("s")
    with pytest.raises(StudyExists, match="exists already"):
        desk.create(spec, {})
    desk.undelete("s")
    assert [found.spec.name for found in desk.studies()] == ["s"]
    assert list(desk.wanted()) == [], "nobody starts its driver unasked"
    with pytest.raises(UnknownStudy, match="no study 's'"):
        desk.undelete("s")


def test_a_study_that_is_searched_is_not_deleted(desk: ServiceStore, url: str) -> None:
    driver = ServiceStore(url)
    driver.take("s", ME)
    with pytest.raises(LeaseHeld, match="is driven by pid"):
        desk.delete("s")
    assert (desk.standing("s").alive, desk.standing("s").fence) == (True, 1)
    driver.release("s")
    driver.close()
    assert desk.standing("s").released
    desk.delete("s")


def test_a_request_and_its_study_are_one_transaction(desk: ServiceStore, url: str, spec: StudySpec) -> None:
    maker = ServiceStore(url)
    maker.request, maker.drives = {"token": "a1", "key": "k", "sha256": "0" * 64}, True
    maker.create(replace(spec, name="made"), {})
    assert desk.requested("a1", "k") == ("0" * 64, "made")
    assert desk.requested("a2", "k") is None
    assert list(desk.wanted()) == ["made"]
    with pytest.raises(StoreError, match="was used meanwhile"):
        maker.create(replace(spec, name="again"), {})
    maker.close()
    assert [found.spec.name for found in desk.studies()] == ["s", "made"], "the second was not made"


def test_operations_go_from_queued_to_done(desk: ServiceStore, proposal: Proposal) -> None:
    with pytest.raises(UnknownTrial, match="no trial 0"):
        desk.begin_operation(Operation("o1", "s", 0, ("onnx",)))
    desk.add("s", proposal, 0)
    desk.begin_operation(Operation("o1", "s", 0, ("onnx",)))
    desk.begin_operation(Operation("o2", "s", 0, ("onnx", "safetensors")))
    desk.change_operation("o1", "done", {"files": [1]})
    desk.change_operation("o2", "failed", said="no network")
    one, two = desk.operation("o1"), desk.operation("o2")
    assert (one.state, one.result, one.formats) == ("done", {"files": [1]}, ["onnx"])
    assert (two.state, two.said) == ("failed", "no network")
    assert one.finished is not None
    assert desk.operations("queued", "running") == []
    with pytest.raises(StoreError, match="no operation 'o3'"):
        desk.operation("o3")


def test_events_are_read_behind_one(desk: ServiceStore, proposal: Proposal) -> None:
    for _ in range(3):
        desk.add("s", proposal, 0)
    events = desk.events("s", 0, 100)
    assert [event.kind for event in events] == ["create", "add", "add", "add"]
    assert desk.events("s", events[1].id, 1) == [events[2]]
    assert desk.last_events() == {"s": (events[-1].id, events[-1].at)}
    assert (desk.knows_event("s", events[0].id), desk.knows_event("s", events[-1].id + 1)) == (True, False)


def test_old_events_go_and_are_known_to_be_gone(desk: ServiceStore, url: str, proposal: Proposal) -> None:
    desk.add("s", proposal, 0)
    first, second = desk.events("s", 0, 10)
    with desk._changing() as connection:
        old = tables.event.update().where(tables.event.c.id == first.id).values(at="2020-01-01T00:00:00.000Z")
        connection.execute(old)
    with closing(Sweeper(url)) as sweeper:
        swept = {kind.what: kind.count for kind in sweeper.sweep(dry=False)}
    assert swept["events older than 90 days"] == 1
    assert (desk.knows_event("s", first.id), desk.knows_event("s", second.id)) == (False, True)
    assert desk.events("s", 0, 10) == [second]


def test_columns_are_of_the_complete_trials(desk: ServiceStore, proposal: Proposal) -> None:
    found = {0: {"top1": 0.5, "loss": math.nan}, 1: None, 2: {"top1": 0.25, "loss": 3.0}, 3: {"loss": math.inf}}
    for metrics in found.values():
        running = desk.move("s", desk.add("s", proposal, 0).to(TrialState.RUNNING))
        if metrics is not None:
            desk.move("s", running.to(TrialState.COMPLETE, measurement=Measurement(metrics, seconds=1.5)))
    columns = desk.numbers("s", ["top1", "loss", "seconds", "macs"])
    assert (columns.number.tolist(), columns.rung.tolist(), columns.place.tolist()) == ([0, 2, 3], [0, 0, 0], [1, 2, 3])
    told = {name: str(values.tolist()) for name, values in columns.values.items()}
    assert told == {
        "top1": "[0.5, 0.25, nan]",
        "loss": "[nan, 3.0, nan]",
        "seconds": "[1.5, 1.5, 1.5]",
        "macs": "[nan, nan, nan]",
    }
    assert desk.numbers("s", []).values == {}
    desk.create(replace(desk.spec("s"), name="t"), {})
    assert desk.numbers("t", ["top1"]).values["top1"].tolist() == []


def test_tokens_stay_where_they_are(desk: ServiceStore, url: str, path: Path) -> None:
    desk.keep_token(Token("a1", "f" * 64, "admin", ""))
    desk.annotate("s", "private", None)
    archive, file = Archive(url), path.with_name("out.jsonl")
    archive.export(file)
    archive.close()
    written = file.read_text()
    assert "automc_study" in written
    assert "automc_token" not in written
    assert "private" not in written
    assert len(desk.tokens()) == 1


def test_what_happens_in_a_study_now(desk: ServiceStore, spec: StudySpec) -> None:
    """Attempts and finishing times as the whole history has them, but of the newest trials and of a few places."""
    name = spec.name
    for number in range(7):
        trial = desk.add(name, Proposal(Policy({Site("prune", "a", "prune_ratio"): number / 10})), 0)
        running = desk.move(name, trial.to(TrialState.RUNNING))
        if number == 6:
            break
        if number == 2:  # its worker was lost; it is started again
            lost = Outcome(number, 1, TrialState.WAITING, reason="lost", host="h", pid=3)
            running = desk.move(name, desk.move(name, running.to(TrialState.WAITING), lost).to(TrialState.RUNNING))
        found = Measurement({"top1": 0.5}, seconds=1.0)
        answer = Outcome(number, running.attempts, TrialState.COMPLETE, found, host="h", pid=4)
        desk.move(name, running.to(TrialState.COMPLETE, measurement=found), answer)
    runs = desk.latest_runs(name, 100)
    whole = [(one.number, one.attempt, one.state.value, one.host, one.pid, one.finished) for one in desk.attempts(name)]
    assert [(one.number, one.attempt, one.state, one.host, one.pid, one.finished) for one in runs] == whole
    assert [one.number for one in desk.latest_runs(name, 3)] == [4, 5, 6]
    assert runs[-1].finished is None
    assert [point.place for point in desk.pace(name, 100)] == [1, 2, 3, 4, 5, 6]
    assert [point.place for point in desk.pace(name, 3)] == [1, 3, 6]
    assert [point.at for point in desk.pace(name, 6)] == sorted(point.at for point in desk.pace(name, 6))
    assert desk.pace(name, 1)[0].place == 1
    for ask in (lambda: desk.pace("nope", 3), lambda: desk.latest_runs("nope", 3)):
        with pytest.raises(UnknownStudy):
            ask()
