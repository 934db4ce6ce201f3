"""HEAD: what GET would answer, but for the body (RFC 9110, section 9.3.2)."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import anyio

from automc.service.gate import App, Receive, Scope, Send


class Head:
    """The middleware. It asks as GET, and ends what would come behind the headers, streams that never end too.

    Not at the login, where a GET uses up the code of its address: whoever only looks at a link must not.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD" or scope["path"] == "/login":
            await self._app(scope, receive, send)
            return
        with anyio.CancelScope() as rest:

            async def headers(message: MutableMapping[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    await send(message)
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                    rest.cancel()

            await self._app({**scope, "method": "GET"}, receive, headers)
