"""Tokens: made here, shown once, and known by their SHA-256 alone (of 256 random bits, which nobody can guess)."""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import UTC, datetime, timedelta

from automc.errors import SpecError
from automc.stores.sql_tokens import Token, TokenTables

SCOPES = ("read", "write", "admin")
"""Weakest first; each may what those before it may."""

PREFIX = "automc_"
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LONGEST = timedelta(days=3660)


def mint(store: TokenTables, scope: str, expires: str | None, label: str = "") -> tuple[str, Token]:
    """A new token: its secret, and what is kept of it.

    Args:
        expires: when, as ``lifetime`` gives it.

    Raises:
        SpecError: no such scope, or a label that is not one short line.
    """
    if scope not in SCOPES:
        raise SpecError(f"--scope {scope}: must be one of {', '.join(SCOPES)}")
    if len(label) > 100 or not label.isprintable():
        raise SpecError("--label: at most 100 characters on one line")
    secret = PREFIX + secrets.token_urlsafe(32)
    return secret, store.keep_token(Token(secrets.token_hex(4), digest(secret), scope, label, expires=expires))


def digest(secret: str) -> str:
    """Under which a token is kept."""
    return hashlib.sha256(secret.encode()).hexdigest()


def covers(scope: str, needed: str) -> bool:
    """Whether a token of one scope may what another scope is needed for."""
    return SCOPES.index(scope) >= SCOPES.index(needed)


def lifetime(text: str, now: datetime | None = None) -> str | None:
    """When something ends that lasts ``30d`` (``m``, ``h``, ``d``, ``w``) from now on; None for ``never``.

    Raises:
        SpecError: no such time, or longer than ten years.
    """
    if text == "never":
        return None
    match = re.fullmatch(r"(\d{1,6})([mhdw])", text)
    span = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else timedelta()
    if not timedelta() < span <= _LONGEST:
        raise SpecError(f"--expires {text}: must read 30d, 12h, 45m or 2w, at most ten years, or never")
    return ((now or datetime.now(UTC)) + span).isoformat(timespec="milliseconds").replace("+00:00", "Z")
