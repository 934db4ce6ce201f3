"""Tokens of the service, and what was done with them, in SQL. No token is here: only its SHA-256."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import sqlalchemy as sa

from automc.errors import StoreError
from automc.stores import service_tables as v
from automc.stores.codec import now_text
from automc.stores.database import Database


@dataclass(frozen=True)
class Token:
    """What is known of a token.

    Attributes:
        id: names it in lists and in the audit. sha256: of its secret. scope: read, write or admin.
        created, expires, revoked: UTC, ISO 8601; None for never.
    """

    id: str
    sha256: str
    scope: str
    label: str
    created: str = ""
    expires: str | None = None
    revoked: str | None = None

    @property
    def valid(self) -> bool:
        """Whether it opens anything now."""
        return self.revoked is None and (self.expires is None or now_text() < self.expires)


@dataclass(frozen=True)
class Audited:
    """One request that could change something, or was refused: when, whose token ("" for none), from where, what."""

    at: str
    token: str
    client: str
    action: str
    status: int


class TokenTables(Database):
    """Tokens and the audit."""

    def keep_token(self, token: Token) -> Token:
        """Add one, as made now."""
        made = replace(token, created=now_text())
        with self._changing() as connection:
            connection.execute(v.token.insert().values(asdict(made)))
        return made

    def tokens(self) -> Sequence[Token]:
        """All of them, oldest first."""
        with self._reading() as connection:
            rows = connection.execute(sa.select(v.token).order_by(v.token.c.created, v.token.c.id)).mappings().all()
        return [Token(**row) for row in rows]

    def token(self, sha256: str) -> Token | None:
        """The token of this secret, valid or not."""
        with self._reading() as connection:
            row = connection.execute(sa.select(v.token).where(v.token.c.sha256 == sha256)).mappings().one_or_none()
        return Token(**row) if row else None

    def revoke(self, id: str) -> Token:
        """End one now; one that was revoked stays as it is.

        Raises:
            StoreError: no such token.
        """
        mine = v.token.c.id == id
        with self._changing() as connection:
            connection.execute(v.token.update().where(mine, v.token.c.revoked.is_(None)).values(revoked=now_text()))
            row = connection.execute(sa.select(v.token).where(mine)).mappings().one_or_none()
        if row is None:
            raise StoreError(f"no token {id!r}; 'automc token list' shows them")
        return Token(**row)

    def audit(self, token: str, client: str, action: str, status: int) -> None:
        """Note a request."""
        row = {"at": now_text(), "token": token, "client": client, "action": action, "status": status}
        with self._changing() as connection:
            connection.execute(v.audit.insert().values(row))

    def audited(self, limit: int) -> Sequence[Audited]:
        """The latest requests, newest first."""
        columns = [v.audit.c[name] for name in Audited.__dataclass_fields__]
        with self._reading() as connection:
            rows = connection.execute(sa.select(*columns).order_by(v.audit.c.id.desc()).limit(limit)).mappings().all()
        return [Audited(**row) for row in rows]
