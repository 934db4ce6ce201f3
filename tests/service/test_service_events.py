"""Server-sent events: what happens comes once, in order, from where one was; and a search that is watched live."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from service_documents import document

from automc.app import runs
from automc.app.config import study_from
from automc.service.app import make_app
from automc.service.serving import listening, server_of
from automc.service.settings import Settings
from automc.service.tokens import mint
from automc.stores.service import ServiceStore


class Served:
    """A service on a port, in a thread; events need a connection that stays open."""

    def __init__(self, settings: Settings) -> None:
        self.app = make_app(settings)
        self.socket = listening(settings)
        self.server = server_of(self.app, settings)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})
        self.base = f"http://127.0.0.1:{self.socket.getsockname()[1]}/api/v1"

    def __enter__(self) -> Served:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.socket.close()

    def open(self, path: str, secret: str, **headers: str) -> Any:
        head = {"authorization": f"Bearer {secret}", **headers}
        return urllib.request.urlopen(urllib.request.Request(f"{self.base}{path}", headers=head), timeout=20)


def read(stream: Any) -> Iterator[dict[str, Any]]:
    """The events of a stream, as they come."""
    known: dict[str, str] = {}
    for line in stream:
        text = line.decode().rstrip("\n")
        if text.startswith((":", "retry")):
            continue
        if text:
            key, _, value = text.partition(": ")
            known[key] = value
        elif known:
            yield {**json.loads(known["data"]), "event": known["event"], "sent": int(known["id"])}
            known = {}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Served, str, str]]:
    storage = str(tmp_path / "automc.db")
    runs.start(study_from(document(storage=storage, budget={"trials": 8}), "test")).close()
    with closing(ServiceStore(storage)) as store:
        secret, _ = mint(store, "read", None)
    with Served(Settings(storage, port=0, drives=False)) as made:
        yield made, storage, secret


def test_head_of_a_stream_ends_behind_its_headers(served: tuple[Served, str, str]) -> None:
    made, _, secret = served
    head = {"authorization": f"Bearer {secret}"}
    asked = urllib.request.Request(f"{made.base}/studies/s/events", headers=head, method="HEAD")
    with urllib.request.urlopen(asked, timeout=20) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.read() == b""
    until = time.monotonic() + 20  # the answer is there before the service has put the stream away
    while made.app.state.hub.listeners["s"]:
        assert time.monotonic() < until, "somebody listens whom nobody hears"
        time.sleep(0.01)


def test_a_search_is_watched_as_it_happens(served: tuple[Served, str, str]) -> None:
    made, storage, secret = served
    with made.open("/studies/s/events", secret) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.readline() == b"retry: 2000\n"
        assert made.app.state.hub.listeners["s"] == 1
        study = runs.open_study("s", storage)
        driver = threading.Thread(target=study.run)
        driver.start()
        seen = []
        for event in read(stream):
            seen.append(event)
            if event["event"] == "release":
                break
        driver.join()
    with closing(ServiceStore(storage)) as store:
        log = store.events("s", 0, 1_000)
    told = [event for event in log if event.kind != "create"]
    assert [(e["sent"], e["kind"], e["number"], e["text"]) for e in seen] == [
        (e.id, e.kind, e.number, e.text) for e in told
    ]
    middle = told[5].id
    with made.open("/studies/s/events", secret, **{"last-event-id": str(middle)}) as stream:
        rest = [event["sent"] for _, event in zip(told[6:], read(stream), strict=False)]
    assert rest == [event.id for event in told[6:]]
    with made.open("/studies/s/events?after=0", secret) as stream:
        assert next(read(stream))["kind"] == "create"


def test_events_that_are_gone_are_said_to_be(served: tuple[Served, str, str]) -> None:
    made, _, secret = served
    for path, last, status, code in (
        ("s", "999", 410, "events-gone"),
        ("s", "9" * 18, 410, "events-gone"),
        ("s", "9" * 19, 422, "invalid-request"),
        ("s", "abc", 400, "bad-event-id"),
        ("s", "-1", 400, "bad-event-id"),
        ("t", "", 404, "unknown-study"),
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            made.open(f"/studies/{path}/events", secret, **{"last-event-id": last})
        with refused.value as answer:
            assert (answer.code, json.load(answer)["code"]) == (status, code)


def test_a_stream_ends_with_its_study(served: tuple[Served, str, str]) -> None:
    made, storage, secret = served
    with made.open("/studies/s/events", secret) as stream:
        stream.readline()
        with closing(ServiceStore(storage)) as store:
            store.delete("s")
        assert b"event: gone" in stream.read()


def test_the_log_is_read_in_pieces(served: tuple[Served, str, str]) -> None:
    made, _, secret = served
    with made.open("/studies/s/log?limit=1", secret) as answer:
        (first,) = json.load(answer)["events"]
    assert first["kind"] == "create"
    with made.open(f"/studies/s/log?after={first['id']}", secret) as answer:
        assert json.load(answer)["events"] == []
