"""Serving the application until somebody ends it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from automc.errors import SpecError
from automc.service.patience import Patience
from automc.service.settings import Settings

CONNECTIONS = 500
_HEAD_BYTES = 32 << 10


def listening(settings: Settings) -> socket.socket:
    """The socket of a service; of port 0 the system chooses one.

    Raises:
        SpecError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=128)
    except OSError as error:
        said = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise SpecError(f"--host {settings.host} --port {settings.port}: {said}; give another --port") from error


def server_of(app: FastAPI, settings: Settings, tls: tuple[Path, Path] | None = None) -> _Server:
    """The server of an application, with the limits of its connections.

    Args:
        tls: certificate and key, PEM.

    Raises:
        SpecError: certificate or key cannot be used.
    """
    cert, key = tls or (None, None)
    config = uvicorn.Config(
        app,
        http=partial(Patience, settings.head_seconds),  # type: ignore[arg-type]  # called, and nothing else
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="on",
        timeout_keep_alive=20,
        timeout_graceful_shutdown=3,
        limit_concurrency=CONNECTIONS,
        h11_max_incomplete_event_size=_HEAD_BYTES,
        ssl_certfile=cert,
        ssl_keyfile=key,
    )
    try:
        config.load()
    except OSError as error:  # of ssl too
        raise SpecError(f"--tls-cert {cert}: cannot be used with its key: {error.strerror or error}") from error
    return _Server(config)


def serve(
    app: FastAPI,
    settings: Settings,
    at: socket.socket,
    tls: tuple[Path, Path] | None = None,
    started: Callable[[], None] = lambda: None,
) -> None:
    """Answer until Ctrl-C or SIGTERM.

    Args:
        started: called when requests are answered.

    Raises:
        SpecError: certificate or key cannot be used.
    """
    server = server_of(app, settings, tls)
    server.started_call = started
    server.run(sockets=[at])


class _Server(uvicorn.Server):
    started_call: Callable[[], None] = staticmethod(lambda: None)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.started_call()
