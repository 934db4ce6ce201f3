"""How a browser gets its session: by the address that ``automc serve`` prints, once, or by a token."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable
from hmac import compare_digest

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import RedirectResponse, Response

from automc.service.gate import COOKIE, Caller, client_of
from automc.service.problems import Problem
from automc.service.settings import Settings
from automc.service.tokens import digest, lifetime, mint
from automc.stores.service import ServiceStore

SESSION = "12h"
CODE_SECONDS = 3600.0
ATTEMPTS, PER_SECONDS = 10, 60.0
"""So many logins may be tried from one address in this time."""

router = APIRouter(include_in_schema=False)


class Pace:
    """Counts tries by address.

    Args:
        clock: seconds that only go forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._tries = clock, dict[str, deque[float]]()

    def check(self, client: str) -> None:
        """Count one. Raises Problem for one too many."""
        now = self._clock()
        self._tries = {who: tries for who, tries in self._tries.items() if tries and now - tries[-1] < PER_SECONDS}
        tries = self._tries.setdefault(client, deque(maxlen=ATTEMPTS))
        if len(tries) == ATTEMPTS and now - tries[0] < PER_SECONDS:
            wait = int(PER_SECONDS - (now - tries[0])) + 1
            detail = f"too many logins from here; wait {wait} s"
            raise Problem(429, "too-many-logins", detail, headers={"retry-after": str(wait)})
        tries.append(now)


class Door:
    """Who may come in without a token: one code, once, for an hour."""

    def __init__(self, store: ServiceStore, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self.settings, self._clock = store, settings, clock
        self._code, self._made = "", 0.0
        self.pace = Pace(clock)

    def address(self) -> str:
        """An address with a new code, which alone is good from now on."""
        self._code, self._made = secrets.token_urlsafe(32), self._clock()
        return f"{self.settings.origin}/login?code={self._code}"

    def by_code(self, code: str) -> str | None:
        """The secret of a new session; None for a wrong, used or old code."""
        known, self._code = self._code, ""
        if not known or self._clock() - self._made > CODE_SECONDS or not compare_digest(known.encode(), code.encode()):
            self._code = known
            return None
        scope = "read" if self.settings.read_only else "admin"
        return mint(self._store, scope, lifetime(SESSION), "browser")[0]

    def by_token(self, secret: str) -> str | None:
        """The same for the holder of a token: of its scope, and not longer than it."""
        held = self._store.token(digest(secret))
        if held is None or not held.valid:
            return None
        ends = min(filter(None, (lifetime(SESSION), held.expires)))
        return mint(self._store, held.scope, ends, f"browser of {held.id}")[0]


class Given(BaseModel):
    """A token to log in with."""

    token: str = Field(max_length=200)


@router.get("/login")
def by_code(request: Request, code: str = "") -> Response:
    """Begin a session with the address that was printed."""
    door: Door = request.app.state.door
    if not code:
        raise Problem(401, "login-needed", "log in with the address that automc serve printed, or with a token")
    door.pace.check(client_of(request.scope))
    return _entered(door, door.by_code(code))


@router.post("/login")
def by_token(request: Request, given: Given) -> Response:
    """Begin a session with a token."""
    door: Door = request.app.state.door
    door.pace.check(client_of(request.scope))
    return _entered(door, door.by_token(given.token.strip()))


@router.post("/logout")
def leave(request: Request) -> Response:
    """End a session."""
    caller: Caller = request.state.caller
    if caller.by_cookie:
        request.app.state.desk.store.revoke(caller.token.id)
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=request.app.state.door.settings.tls)
    return response


def _entered(door: Door, secret: str | None) -> Response:
    if secret is None:
        hint = "automc serve prints a new address at every start; automc token create makes a token"
        raise Problem(401, "no-entry", "this code or token is not known, was used, or has ended", hint=hint)
    response = RedirectResponse("/", status_code=303)
    response.set_cookie(COOKIE, secret, httponly=True, samesite="strict", secure=door.settings.tls, path="/")
    return response
