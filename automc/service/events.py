"""Events as they happen: server-sent events of one study's log."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Query, Request
from starlette.responses import StreamingResponse

from automc.errors import StoreError
from automc.service.answers import Json
from automc.service.desk import Desk, caller_of, desk_of
from automc.service.health import Meters
from automc.service.problems import Problem, hinted
from automc.stores.service import ServiceStore
from automc.stores.sql_operations import Event

router = APIRouter(prefix="/api/v1/studies/{study}", tags=["events"])

POLL_SECONDS = 0.2
ALIVE_SECONDS = 15.0
AT_ONCE = 500
MOST_LISTENERS = 200
_GONE = 1 << 62


class Hub:
    """Asks the database for news once for all who listen.

    Attributes:
        newest: id of the newest event by study, of the studies that somebody listens to; of one that was deleted more
            than any.
    """

    def __init__(self, store: ServiceStore) -> None:
        self._store = store
        self.newest: dict[str, int] = {}
        self.listeners: Counter[str] = Counter()
        self._news = asyncio.Condition()

    async def run(self) -> None:
        """Poll while somebody listens, until it is cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            names = [name for name, count in self.listeners.items() if count > 0]
            if not names:
                continue
            try:
                found = await run_sync(self._store.last_events, names)
            except StoreError:
                continue  # a long lock; the next look sees what was missed
            now = {name: found[name][0] if name in found else _GONE for name in names}
            if now != self.newest:
                self.newest = now
                async with self._news:
                    self._news.notify_all()

    async def after(self, study: str, last: int, seconds: float) -> bool:
        """Wait until there are events behind ``last``; False when there were none for so long."""
        try:
            async with asyncio.timeout(seconds), self._news:
                await self._news.wait_for(lambda: self.newest.get(study, 0) > last)
        except TimeoutError:
            return False
        return True


@router.get("/events", response_class=StreamingResponse)
async def events(
    request: Request,
    study: str,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=18)] = None,
    after: Annotated[int | None, Query(ge=0, lt=1 << 62)] = None,
) -> StreamingResponse:
    """Events of a study as they happen, from behind ``Last-Event-ID`` or ``after``, else from now on.

    410: the log does not reach back to that event any more; read the study and begin at its ``last_event``.
    """
    desk = desk_of(request)
    hub: Hub = request.app.state.hub
    if hub.listeners.total() >= MOST_LISTENERS:
        raise Problem(503, "too-many-listeners", f"{MOST_LISTENERS} streams are open", headers={"retry-after": "10"})
    if last_event_id and not last_event_id.isdecimal():
        detail = f"Last-Event-ID: {last_event_id!r} is no number of an event; leave the header out to begin now"
        raise Problem(400, "bad-event-id", detail, place="header/Last-Event-ID", hint=hinted(detail))
    begin = int(last_event_id) if last_event_id else after
    if begin and not await run_sync(desk.store.knows_event, study, begin):
        detail = f"the log of {study} does not have event {begin}, so that what came behind it may be lost"
        raise Problem(410, "events-gone", detail, place=study, hint="read the study and begin at its last_event")
    if begin is None:
        await run_sync(desk.store.spec, study)
        begin = (await run_sync(desk.store.last_events, [study])).get(study, (0, ""))[0]
    stream = _stream(request, hub, study, begin)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


@router.get("/log")
def log(
    request: Request,
    study: str,
    after: Annotated[int, Query(ge=0, lt=1 << 62)] = 0,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> Json:
    """Lines of a study's log behind an event, oldest first."""
    found = desk_of(request).store.events(study, after, limit)
    return Json({"events": [one._asdict() for one in found]})


async def _stream(request: Request, hub: Hub, study: str, last: int) -> AsyncIterator[bytes]:
    desk, meters, secret = desk_of(request), request.app.state.meters, caller_of(request).token.sha256
    hub.listeners[study] += 1
    _count(meters, hub)
    try:
        yield b"retry: 2000\n\n"
        checked = time.monotonic()
        while True:
            found = await run_sync(_read, desk, study, last)
            if found is None:
                yield b"event: gone\ndata: {}\n\n"
                return
            if found:
                yield b"".join(map(_line, found))
                last = found[-1].id
            if len(found) < AT_ONCE and not await hub.after(study, last, ALIVE_SECONDS):
                yield b": alive\n\n"
            if time.monotonic() - checked > ALIVE_SECONDS:
                checked, token = time.monotonic(), await run_sync(desk.store.token, secret)
                if token is None or not token.valid:
                    return
    finally:
        hub.listeners[study] -= 1
        _count(meters, hub)


def _read(desk: Desk, study: str, last: int) -> list[Event] | None:
    """The next events; None where the study is gone."""
    try:
        return list(desk.store.events(study, last, AT_ONCE))
    except LookupError:
        return None
    except StoreError:
        return []  # a long lock


def _line(event: Event) -> bytes:
    data: dict[str, Any] = event._asdict()
    return f"id: {event.id}\nevent: {event.kind}\ndata: {json.dumps(data, ensure_ascii=True)}\n\n".encode()


def _count(meters: Meters, hub: Hub) -> None:
    meters.listeners.set(hub.listeners.total())
