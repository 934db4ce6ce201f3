"""The dashboard: pages for people over the same routes and functions that programs use.

It stands before the gate, for two things only: style sheets and scripts, which are the same for everybody, and what a
refusal looks like to a browser. Every page and every figure is behind the gate.
"""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from automc.service import pages, study_pages
from automc.service.gate import GUARDS, SAFE, App, Receive, Scope, Send
from automc.service.problems import TYPE
from automc.service.rendering import page

STATIC = Path(__file__).with_name("static")
PREFIX = "/static/"


def install(app: FastAPI) -> None:
    """Add the pages to the service. Call it last, so that refusals of the gate become pages too."""
    app.include_router(pages.router)
    app.include_router(study_pages.router)
    app.add_middleware(Pages)


class Pages:
    """The middleware."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._files = StaticFiles(directory=STATIC)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"].startswith(PREFIX) and scope["method"] in SAFE:
            inner = {**scope, "path": scope["path"][len(PREFIX) - 1 :], "root_path": ""}
            try:
                await self._files(inner, receive, _guarded(send))
            except HTTPException:  # there is no such file
                await self._app(scope, receive, send)
        elif _by_browser(scope):
            await self._app(scope, receive, Refusals(scope, receive, send))
        else:
            await self._app(scope, receive, send)


class Refusals:
    """A ``send`` that turns a problem into a page, and lets everything else pass."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._start: MutableMapping[str, Any] | None = None
        self._body = b""

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start" and Headers(scope=message).get("content-type") == TYPE:
            self._start = message
        elif self._start is None:
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                answer = self._page(Request(self._scope))
                await answer(self._scope, self._receive, _guarded(self._send))

    def _page(self, request: Request) -> Response:
        said = json.loads(self._body)
        status, path = said["status"], request.url.path
        if path == "/login":
            wrong = "" if said["code"] == "login-needed" else said["detail"]
            known = {"problem": wrong, "given": {"next": request.query_params.get("next", "")}}
            status = status if wrong else 200
            return page(request, "login.html", "Log in", script="login.js", status=status, **known)
        if status == 401:
            asked = path + (f"?{request.url.query}" if request.url.query else "")
            return RedirectResponse(f"/login?next={quote(asked)}", 303)
        known = {"detail": said["detail"], "hint": said["hint"]}
        return page(request, "error.html", said["title"], status=status, **known)


def _by_browser(scope: Scope) -> bool:
    """Whether a person waits for a page."""
    accepts = Headers(scope=scope).get("accept", "")
    return scope["method"] in SAFE and "text/html" in accepts and not scope["path"].startswith("/api/")


def _guarded(send: Send) -> Send:
    """With the guards of every answer; files may be kept, and are asked for again."""

    async def answer(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            kept = "no-cache" if "etag" in headers else GUARDS["cache-control"]
            for name, value in {**GUARDS, "cache-control": kept}.items():
                headers.setdefault(name, value)
        await send(message)

    return answer
