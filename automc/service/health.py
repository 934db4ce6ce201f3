"""Whether the service lives, whether it can work, and its figures for Prometheus."""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from typing import Any

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.responses import PlainTextResponse, Response

from automc.errors import StoreError
from automc.service.answers import Json
from automc.service.desk import desk_of
from automc.service.gate import App, Receive, Send
from automc.service.problems import Problem

router = APIRouter(tags=["health"])


class Meters:
    """The figures of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        shared: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("automc_http_requests", "Answers by route and status", ["route", "status"], **shared)
        self.seconds = Histogram("automc_http_seconds", "Time to the first byte", ["route"], **shared)
        self.trials = Gauge("automc_trials", "Trials by study and state", ["study", "state"], **shared)
        self.drivers = Gauge("automc_drivers", "Studies that are searched now", **shared)
        self.listeners = Gauge("automc_event_listeners", "Open streams of events", **shared)


class Measured:
    """A middleware that counts answers; unknown paths are one route, so that nobody can make many."""

    def __init__(self, app: App, meters: Meters) -> None:
        self._app, self._meters = app, meters

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()

        async def answer(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "none")
                self._meters.requests.labels(route, str(message["status"])).inc()
                self._meters.seconds.labels(route).observe(time.perf_counter() - started)
            await send(message)

        await self._app(scope, receive, answer)


@router.get("/healthz")
def alive() -> Json:
    """This process answers."""
    return Json({"status": "alive"})


@router.get("/readyz")
def ready(request: Request) -> Json:
    """The database answers too."""
    try:
        desk_of(request).store.wanted()
    except StoreError:
        raise Problem(503, "not-ready", "the trial database cannot be read") from None
    return Json({"status": "ready"})


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    meters: Meters = request.app.state.meters
    store = desk_of(request).store
    meters.trials.clear()
    driven = 0
    for found in store.studies():
        driven += store.driver(found.spec.name) is not None
        for state, count in found.counts.items():
            meters.trials.labels(found.spec.name, state.value).set(count)
    meters.drivers.set(driven)
    return Response(generate_latest(meters.registry), media_type=CONTENT_TYPE_LATEST)
