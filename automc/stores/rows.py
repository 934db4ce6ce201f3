"""Trials to rows and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import sqlalchemy as sa

from automc.core.metrics import Measurement
from automc.core.policy import Policy
from automc.core.trial import Trial, TrialState
from automc.errors import StoreError
from automc.stores import tables as t
from automc.stores.codec import dumps, join, loads, now_text, plain, split
from automc.stores.database import upserting
from automc.stores.decisions import packed
from automc.stores.layouts import keep_layout
from automc.stores.steps import Standing, unknown_trial

_MANY = 500
"""So many trials are named in a statement; where they lie close together, the first and the last are."""

Key = TypeVar("Key")

_STATES = {state.value: state for state in TrialState}

COLUMNS = (
    *(t.trial.c[name] for name in ("number", "policy", "memo", "state", "rung", "reason", "message", "attempts")),
    *(t.trial.c[name] for name in ("twin", "realized", "artifact", "seconds", "samples")),
)


def parted(keys: Sequence[Key]) -> list[Sequence[Key]]:
    """The same in parts that a statement can name."""
    return [keys[at : at + _MANY] for at in range(0, len(keys), _MANY)]


def read_trials(connection: sa.Connection, study_id: int, statement: sa.Select[Any]) -> list[Trial]:
    """The trials of a SELECT of ``COLUMNS``, in its order."""
    rows = as_read(connection.execute(statement))
    if not rows:
        return []
    metrics = read_metrics(connection, study_id, [number for number, *_ in rows])
    policies = _policies(connection, study_id, {policy for _, policy, *_ in rows})
    found = []
    for number, policy, memo, state, rung, reason, message, attempts, twin, *measured in rows:
        measurement = _measurement(measured, *metrics.get(number, ({}, {})))
        ended = (measurement, reason, message, attempts, twin)
        found.append(Trial(number, policies[policy], memo, _STATES[state], rung, *ended))
    return found


def as_read(result: sa.CursorResult[Any]) -> list[Any]:
    """All rows as the driver has them: of very many, making rows of SQLAlchemy's takes longer than reading them.

    For columns of text, numbers and bytes only.
    """
    assert result.cursor is not None
    rows = list(result.cursor.fetchall())
    result.close()
    return rows


_T = t.trial.c
_MINE = (_T.study_id == sa.bindparam("study"), _T.number == sa.bindparam("trial"))
# Built once, as those of database.py are.
_STANDING = sa.select(*(_T[name] for name in Standing._fields)).where(*_MINE)
_COUNT = sa.select(sa.func.max(_T.number)).where(_T.study_id == sa.bindparam("study"))
_LAST_PLACE = sa.select(sa.func.coalesce(sa.func.max(_T.place), 0)).where(_T.study_id == sa.bindparam("study"))
_ADD = t.trial.insert()
_METRICS = t.metric.insert()
_STEP = (
    t.trial.update()
    .where(*_MINE)
    .values(
        {name: sa.bindparam(name) for name in ("state", "reason", "message", "attempts", "twin")}
        | {name: sa.bindparam(name) for name in ("realized", "artifact", "seconds", "samples", "finished", "place")}
        | {"started": sa.func.coalesce(sa.bindparam("began"), _T.started)}
    )
    .returning(_T.started)
)


def standing(connection: sa.Connection, study: str, study_id: int, number: int) -> Standing:
    """What decides whether a step of the trial is legal. Raises UnknownTrial."""
    row = connection.execute(_STANDING, {"study": study_id, "trial": number}).one_or_none()
    if row is None:
        raise unknown_trial(study, number, count(connection, study_id))
    return Standing(TrialState(row.state), row.attempts, row.policy, row.rung, row.memo)


def count(connection: sa.Connection, study_id: int) -> int:
    """How many trials there are."""
    highest = connection.execute(_COUNT, {"study": study_id}).scalar()
    return 0 if highest is None else highest + 1


def last_place(connection: sa.Connection, study_id: int) -> int:
    """How many trials have finished."""
    return int(connection.execute(_LAST_PLACE, {"study": study_id}).scalar_one())


def add_trial(connection: sa.Connection, study_id: int, trial: Trial) -> str | None:
    """Insert a new trial, WAITING or RUNNING, with its policy; when it was started."""
    policy = {"fingerprint": trial.policy.fingerprint, "json": trial.policy.to_json()}
    connection.execute(upserting(connection.dialect.name, t.policy), policy)
    now = now_text()
    started = now if trial.state is TrialState.RUNNING else None
    row = {
        "study_id": study_id,
        "number": trial.number,
        "policy": policy["fingerprint"],
        "memo": trial.memo,
        "state": trial.state.value,
        "rung": trial.rung,
        "reason": "",
        "message": "",
        "attempts": trial.attempts,
        "created": now,
        "started": started,
        "layout": keep_layout(connection, study_id, trial.policy),
        "decisions": packed(trial.policy),
    }
    connection.execute(_ADD, row)
    return started


def write_trial(connection: sa.Connection, study_id: int, trial: Trial) -> tuple[Trial, str | None]:
    """Put the trial in the place of its predecessor; the trial as it reads back, and when it was last started."""
    found, done = plain(trial.measurement), trial.state.finished
    values: dict[str, Any] = {
        "study": study_id,
        "trial": trial.number,
        "state": trial.state.value,
        "reason": trial.reason,
        "message": trial.message,
        "attempts": trial.attempts,
        "twin": trial.twin,
        "realized": None if found is None else dumps(found.realized),
        "artifact": None if found is None else found.artifact,
        "seconds": None if found is None else split(found.seconds)[0],
        "samples": 0 if found is None else found.samples,
        "began": now_text() if trial.state is TrialState.RUNNING else None,
        "finished": now_text() if done else None,
        "place": last_place(connection, study_id) + 1 if done else None,
    }
    started = connection.execute(_STEP, values).scalar_one()
    if found is not None:
        add_metrics(connection, study_id, trial.number, found)
    return replace(trial, measurement=found), started


def add_metrics(connection: sa.Connection, study_id: int, number: int, found: Measurement) -> None:
    """Insert metrics that the trial does not have yet, with their errors."""
    rows = []
    for name, metric in found.metrics.items():
        value, kind = split(metric)
        error, error_kind = split(found.errors[name]) if name in found.errors else (None, None)
        key = {"study_id": study_id, "number": number, "name": name}
        rows.append({**key, "value": value, "kind": kind, "error": error, "error_kind": error_kind})
    if rows:
        connection.execute(_METRICS, rows)


def read_metrics(
    connection: sa.Connection, study_id: int, numbers: list[int], names: Sequence[str] | None = None
) -> dict[int, tuple[dict[str, float], dict[str, float]]]:
    """Of each trial its metrics, all or those with these names, and their standard errors, by name."""
    m = t.metric.c
    statement = sa.select(m.number, m.name, m.value, m.kind, m.error, m.error_kind).where(m.study_id == study_id)
    if names is not None:
        statement = statement.where(m.name.in_(names))
    statement = statement.order_by(m.number, m.name)
    found: dict[int, tuple[dict[str, float], dict[str, float]]] = {}
    dense = max(numbers) - min(numbers) < 2 * len(numbers)
    parts = [numbers] if dense else parted(numbers)
    some = (m.number.between(min(part), max(part)) if dense else m.number.in_(part) for part in parts)
    last, metrics, errors = -1, dict[str, float](), dict[str, float]()
    rows = (row for one in some for row in as_read(connection.execute(statement.where(one))))
    for number, name, value, kind, error, error_kind in rows:
        if number != last:
            last, metrics, errors = number, {}, {}
            found[number] = (metrics, errors)
        metrics[name] = join(value, kind)
        if error_kind is not None:
            errors[name] = join(error, error_kind)
    return found


def _policies(connection: sa.Connection, study_id: int, wanted: set[str]) -> dict[str, Policy]:
    p = t.policy.c
    statement = sa.select(p.fingerprint, p.json)
    mine = sa.select(t.trial.c.policy).where(t.trial.c.study_id == study_id)
    parts = parted(sorted(wanted)) if len(wanted) < 10 * _MANY else [mine]
    rows = (row for part in parts for row in as_read(connection.execute(statement.where(p.fingerprint.in_(part)))))
    found = {key: Policy.canonical(text) for key, text in rows if key in wanted}
    if missing := wanted - found.keys():
        raise StoreError(f"the policy {min(missing)} of a trial is missing: the database is damaged; restore a backup")
    return found


def _measurement(row: Sequence[Any], metrics: Mapping[str, float], errors: Mapping[str, float]) -> Measurement | None:
    realized, artifact, seconds, samples = row
    if realized is None:
        return None
    facts = {} if realized == "{}" else loads(realized)
    return Measurement(metrics, facts, artifact, math.nan if seconds is None else seconds, errors, samples)
