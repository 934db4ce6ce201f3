"""HTTP/1.1 with a deadline for the head of a request, which uvicorn does not have."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class Patience(H11Protocol):
    """Closes a connection whose next request is not known in time: nobody holds one by sending a byte now and then.

    uvicorn's own limit (keep-alive) is for a connection between requests that says nothing; this one begins with the
    connection and with the first byte behind an answer. A body is waited for elsewhere (gate.py).

    Args:
        seconds: from then until the end of the request's headers.
    """

    def __init__(self, seconds: float, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._seconds = seconds
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._expect()
        else:
            self._rest()

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest()
        super().connection_lost(exc)

    def _expect(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self._seconds, self.transport.abort)

    def _rest(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
