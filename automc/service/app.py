"""The application: the routes behind the gate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from anyio.to_thread import run_sync
from fastapi import Depends, FastAPI

import automc
from automc.service import activity, asking, charts, dashboard, events, health, login, making, parsing, reading, whatifs
from automc.service.desk import Desk
from automc.service.events import Hub
from automc.service.gate import Gate
from automc.service.head import Head
from automc.service.health import Measured, Meters
from automc.service.login import Door
from automc.service.problems import TYPE, install
from automc.service.schemas import ProblemBody
from automc.service.settings import Settings
from automc.service.strict import check_query

PLAIN = (health.router, login.router)
"""Of probes and browsers, which may say more than is read."""

API = (
    reading.router,
    charts.router,
    activity.router,
    events.router,
    making.router,
    asking.router,
    parsing.router,
    whatifs.router,
)

_PROBLEM: dict[str, Any] = {"model": ProblemBody, "content": {TYPE: {}}}
REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "what was wrong with the request", **_PROBLEM},
    "5XX": {"description": "what is wrong here", **_PROBLEM},
}


def make_app(settings: Settings) -> FastAPI:
    """The service over a database, which is made where it is missing.

    Raises:
        StoreError: the database cannot be used. SpecError: ``automc.toml`` breaks a rule.
    """
    desk = Desk(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        polling = asyncio.create_task(app.state.hub.run())
        if settings.supervises:
            desk.supervisor.start()
        try:
            yield
        finally:
            polling.cancel()
            if settings.supervises:
                await run_sync(desk.supervisor.stop)
            desk.close()

    app = FastAPI(
        title="automc",
        version=automc.__version__,
        description="Search how much to compress every layer of a trained network: studies over HTTP.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses=REFUSALS,
        redirect_slashes=False,
    )
    app.state.desk, app.state.door = desk, Door(desk.store, settings)
    app.state.meters, app.state.hub = Meters(), Hub(desk.store)
    install(app)
    for router in PLAIN:
        app.include_router(router)
    for router in API:
        app.include_router(router, dependencies=[Depends(check_query)])
    app.add_middleware(Head)
    app.add_middleware(Measured, meters=app.state.meters)
    app.add_middleware(Gate, settings=settings, keeper=desk.store)
    dashboard.install(app)
    return app
