"""The gate before every route: nothing passes without a token that is good for it, but health and login.

In this order: is it the host that was meant, who asks, may they, is it their own page that asks, is the body small and
quick enough. What could change something is audited.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any, Protocol
from urllib.parse import urlsplit

from anyio.to_thread import run_sync
from starlette.datastructures import Headers, MutableHeaders

from automc.service.problems import Problem
from automc.service.settings import Settings
from automc.service.strict import check_json
from automc.service.tokens import covers, digest
from automc.stores.sql_tokens import Token

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "automc_session"
OPEN = frozenset({("GET", "/healthz"), ("HEAD", "/healthz"), ("GET", "/readyz"), ("HEAD", "/readyz")})
LOGIN = frozenset({("GET", "/login"), ("POST", "/login")})
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
ADMIN = ("/api/v1/query", "/api/v1/audit")
"""Paths that only an admin may use, below them too."""

ASKING = re.compile(r"/api/v1/(query|studies/[^/]+/solve)")
"""Paths where a POST only asks, because what it asks is long."""

UPLOADS = "/api/v1/uploads"
"""The one path whose body is read in pieces; its route holds the limit."""

GUARDS: Mapping[str, str] = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
"""Headers of every answer that does not bring its own."""


class Keeper(Protocol):
    """Who knows tokens and keeps the audit."""

    def token(self, sha256: str) -> Token | None: ...

    def audit(self, token: str, client: str, action: str, status: int) -> None: ...


@dataclass(frozen=True)
class Caller:
    """Who asks. ``by_cookie``: a browser that sends the token by itself, whoever wrote the page."""

    token: Token
    by_cookie: bool = False


def needed(method: str, path: str) -> str:
    """The scope that a request needs; a route that nobody thought of needs what its method does."""
    if any(path == admin or path.startswith(f"{admin}/") for admin in ADMIN):
        return "admin"
    return "read" if method in SAFE or (method == "POST" and ASKING.fullmatch(path)) else "write"


class Gate:
    """The middleware."""

    def __init__(self, app: App, settings: Settings, keeper: Keeper) -> None:
        self._app, self._settings, self._keeper = app, settings, keeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # there are no websockets here
        status = [0]

        async def answer(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in GUARDS.items():
                    headers.setdefault(name, value)
            await send(message)

        caller: Caller | None = None
        try:
            caller = await self._admitted(scope)
            scope.setdefault("state", {})["caller"] = caller
            if scope["path"] != UPLOADS:
                receive = await self._whole_body(scope, receive)
            await self._app(scope, receive, answer)
        except Problem as problem:
            await problem.answer()(scope, receive, answer)
        finally:
            login = scope["path"] == "/login" and 0 < status[0] < 400
            if login or (caller and scope["method"] not in SAFE):  # a stranger makes nobody write
                name = caller.token.id if caller else ""
                action = f"{scope['method']} {scope['path']}"[:300]
                await run_sync(self._keeper.audit, name, client_of(scope), action, status[0])

    async def _admitted(self, scope: Scope) -> Caller | None:
        """Who asks; None for what anybody may ask. Raises Problem."""
        method, path, headers = scope["method"], scope["path"], Headers(scope=scope)
        if not self._settings.answers_to(headers.get("host", "")):
            hint = "start it with --allow-host NAME"
            raise Problem(421, "wrong-host", "this service does not answer to that name", place="Host", hint=hint)
        if (method, path) in OPEN:
            return None
        if (method, path) in LOGIN:
            if method not in SAFE and not self._own_page(headers, strict=False):
                raise _foreign()
            return None
        caller = await self._known(headers)
        wanted = needed(method, path)
        if not covers(caller.token.scope, wanted):
            detail = f"this token may {caller.token.scope}; {method} here needs one that may {wanted}"
            raise Problem(403, "scope", detail, hint=f"automc token create --scope {wanted}")
        if method not in SAFE and caller.by_cookie and not self._own_page(headers, strict=True):
            raise _foreign()
        changes = method not in SAFE and path != "/logout" and not ASKING.fullmatch(path)
        if changes and self._settings.read_only:
            raise Problem(403, "read-only", "this service was started with --read-only: nothing can be changed")
        return caller

    async def _known(self, headers: Headers) -> Caller:
        kind, _, secret = headers.get("authorization", "").partition(" ")
        by_cookie = not kind
        if by_cookie:
            secret = _cookie(headers)
        elif kind.lower() != "bearer":
            secret = ""
        found = await run_sync(self._keeper.token, digest(secret.strip())) if secret else None
        if found is None or not found.valid:
            detail = "a valid token is needed" if not secret else "this token is not known, ended or was revoked"
            hint = "send Authorization: Bearer TOKEN; automc token create makes one"
            raise Problem(401, "no-token", detail, hint=hint, headers={"www-authenticate": "Bearer"})
        return Caller(found, by_cookie)

    def _own_page(self, headers: Headers, strict: bool) -> bool:
        """Whether a page of this service asks, as the browser says; ``strict``: it must say so."""
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if origin is not None:
            parts = urlsplit(origin)
            return parts.netloc.lower() == headers.get("host", "").lower() and parts.scheme == (
                "https" if self._settings.tls else "http"
            )
        return site == "same-origin" if site is not None else not strict

    async def _whole_body(self, scope: Scope, receive: Receive) -> Receive:
        """The body, read within its limits; what is left gives it out again."""
        limit, headers = self._settings.body_bytes, Headers(scope=scope)
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            raise too_large(limit)
        body, more = bytearray(), True
        try:
            async with asyncio.timeout(self._settings.body_seconds):
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        break
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > limit:
                        raise too_large(limit)
        except TimeoutError:
            raise slow(self._settings.body_seconds) from None
        if body and "json" in headers.get("content-type", ""):
            check_json(bytes(body))
        given = [False]

        async def again() -> MutableMapping[str, Any]:
            if given[0]:
                return await receive()
            given[0] = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        return again


def client_of(scope: Scope) -> str:
    """The address of who asks; "" where nobody knows."""
    return str(scope["client"][0]) if scope.get("client") else ""


def too_large(limit: int) -> Problem:
    """For a body that is longer than it may be."""
    return Problem(413, "too-large", f"a body may have {limit:,} bytes", headers={"connection": "close"})


def slow(seconds: float) -> Problem:
    """For a body that does not come."""
    detail = f"the body was not there within {seconds:g} s"
    return Problem(408, "too-slow", detail, headers={"connection": "close"})


def _foreign() -> Problem:
    hint = "scripts send Authorization: Bearer TOKEN instead of a cookie"
    return Problem(403, "foreign-origin", "another site's page may not do this with your session", hint=hint)


def _cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""
