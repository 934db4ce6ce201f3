"""Attempts to rows and back: a trial's step into RUNNING begins one, its step out of it ends one."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from automc.core.history import Attempt
from automc.core.ports import Outcome
from automc.core.trial import Trial, TrialState
from automc.stores import more_tables as m
from automc.stores.codec import now_text
from automc.stores.database import upsert
from automc.stores.steps import elapsed

_KEPT = ("state", "reason", "message", "log", "host", "pid", "finished", "seconds", "fence", "late")


_ATTEMPT = m.attempt.insert()
_ANSWER = (
    m.attempt.update()
    .where(
        m.attempt.c.study_id == sa.bindparam("study"),
        m.attempt.c.number == sa.bindparam("trial"),
        m.attempt.c.attempt == sa.bindparam("run"),
        sa.not_(m.attempt.c.late),
    )
    .values({name: sa.bindparam(name) for name in _KEPT if name not in ("fence", "late")})
)


def begin(connection: sa.Connection, study_id: int, trial: Trial, started: str, fence: int | None) -> None:
    """The trial was started."""
    row = _row(study_id, Outcome(trial.number, trial.attempts, trial.state), fence, late=False)
    connection.execute(_ATTEMPT, row | {"started": started, "finished": None})


def end(connection: sa.Connection, study_id: int, trial: Trial, started: str | None, outcome: Outcome | None) -> None:
    """The trial runs no more; an answer that came late before stays as it is."""
    told = outcome or Outcome(trial.number, trial.attempts, trial.state, reason=trial.reason, message=trial.message)
    now = now_text()
    values = {
        "study": study_id,
        "trial": trial.number,
        "run": trial.attempts,
        "state": trial.state.value,
        "reason": told.reason,
        "message": told.message,
        "log": told.log,
        "host": told.host,
        "pid": told.pid,
        "finished": now,
        "seconds": elapsed(started, now),
    }
    connection.execute(_ANSWER, values)


def end_late(connection: sa.Connection, study_id: int, outcome: Outcome, fence: int | None) -> None:
    """An answer that changes nothing but this record."""
    c, mine = m.attempt.c, _mine(study_id, outcome.number, outcome.attempt)
    found = connection.execute(sa.select(c.started, c.state).where(*mine)).one_or_none()
    if found is not None and TrialState(found.state).finished:
        return
    row = _row(study_id, outcome, fence, late=True)
    row["seconds"] = elapsed(found.started if found else None, row["finished"])
    connection.execute(upsert(connection, m.attempt, row, replaced=_KEPT))


def read(connection: sa.Connection, study_id: int, number: int | None) -> list[Attempt]:
    """All attempts of the study, or of one trial."""
    c = m.attempt.c
    names = Attempt.__dataclass_fields__
    wanted = sa.select(*(c[name] for name in names)).where(c.study_id == study_id)
    if number is not None:
        wanted = wanted.where(c.number == number)
    rows = connection.execute(wanted.order_by(c.number, c.attempt)).mappings()
    return [Attempt(**{**row, "state": TrialState(row["state"])}) for row in rows]


def _row(study_id: int, outcome: Outcome, fence: int | None, late: bool) -> dict[str, Any]:
    return {
        "study_id": study_id,
        "number": outcome.number,
        "attempt": outcome.attempt,
        "state": outcome.state.value,
        "reason": outcome.reason,
        "message": outcome.message,
        "log": outcome.log,
        "host": outcome.host,
        "pid": outcome.pid,
        "finished": now_text(),
        "fence": fence,
        "late": late,
    }


def _mine(study_id: int, number: int, attempt: int) -> tuple[sa.ColumnElement[bool], ...]:
    c = m.attempt.c
    return c.study_id == study_id, c.number == number, c.attempt == attempt
