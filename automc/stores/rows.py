"""Trials to rows and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from automc.core.metrics import Measurement
from automc.core.policy import Policy
from automc.core.trial import Trial, TrialState
from automc.stores import tables as t
from automc.stores.codec import dumps, join, loads, now_text, plain, split

_MANY = 500
"""From so many trials on their metrics are read as one range of numbers, below as a list of numbers."""

COLUMNS = (
    *(t.trial.c[name] for name in ("number", "policy", "memo", "state", "rung", "reason", "message", "attempts")),
    *(t.trial.c[name] for name in ("twin", "realized", "artifact", "seconds", "samples")),
)


def read_trials(connection: sa.Connection, study_id: int, statement: sa.Select[Any]) -> list[Trial]:
    """The trials of a SELECT of ``COLUMNS``, in its order."""
    rows = connection.execute(statement).all()
    if not rows:
        return []
    numbers = [row.number for row in rows]
    metrics = _metrics(connection, study_id, numbers)
    policies = _policies(connection, study_id, [row.policy for row in rows])
    return [
        Trial(
            number=row.number,
            policy=policies[row.policy],
            memo=row.memo,
            state=TrialState(row.state),
            rung=row.rung,
            measurement=_measurement(row, *metrics.get(row.number, ({}, {}))),
            reason=row.reason,
            message=row.message,
            attempts=row.attempts,
            twin=row.twin,
        )
        for row in rows
    ]


def add_trial(connection: sa.Connection, study_id: int, trial: Trial) -> None:
    """Insert a new trial whose policy is stored already."""
    row = {
        "study_id": study_id,
        "number": trial.number,
        "policy": trial.policy.fingerprint,
        "memo": trial.memo,
        "state": trial.state.value,
        "rung": trial.rung,
        "reason": "",
        "message": "",
        "attempts": 0,
        "created": now_text(),
    }
    connection.execute(t.trial.insert().values(row))


def write_trial(connection: sa.Connection, study_id: int, trial: Trial) -> Trial:
    """Put the trial in the place of its predecessor; the trial as it reads back."""
    found = plain(trial.measurement)
    values: dict[str, Any] = {
        "state": trial.state.value,
        "reason": trial.reason,
        "message": trial.message,
        "attempts": trial.attempts,
        "twin": trial.twin,
        "realized": None if found is None else dumps(found.realized),
        "artifact": None if found is None else found.artifact,
        "seconds": None if found is None else split(found.seconds)[0],
        "samples": 0 if found is None else found.samples,
    }
    if trial.state is TrialState.RUNNING:
        values["started"] = now_text()
    if trial.state.finished:
        values["finished"] = now_text()
    mine = (t.trial.c.study_id == study_id, t.trial.c.number == trial.number)
    connection.execute(t.trial.update().where(*mine).values(values))
    _write_metrics(connection, study_id, trial.number, found)
    return replace(trial, measurement=found)


def _write_metrics(connection: sa.Connection, study_id: int, number: int, found: Measurement | None) -> None:
    connection.execute(t.metric.delete().where(t.metric.c.study_id == study_id, t.metric.c.number == number))
    rows = []
    for name, metric in found.metrics.items() if found else ():
        value, kind = split(metric)
        error, error_kind = split(found.errors[name]) if found and name in found.errors else (None, None)
        key = {"study_id": study_id, "number": number, "name": name}
        rows.append({**key, "value": value, "kind": kind, "error": error, "error_kind": error_kind})
    if rows:
        connection.execute(t.metric.insert(), rows)


def _metrics(
    connection: sa.Connection, study_id: int, numbers: list[int]
) -> dict[int, tuple[dict[str, float], dict[str, float]]]:
    """Of each trial its metrics and their standard errors, by name."""
    m = t.metric.c
    some = m.number.in_(numbers) if len(numbers) < _MANY else m.number.between(min(numbers), max(numbers))
    statement = sa.select(m.number, m.name, m.value, m.kind, m.error, m.error_kind).where(m.study_id == study_id, some)
    found: dict[int, tuple[dict[str, float], dict[str, float]]] = {}
    for number, name, value, kind, error, error_kind in connection.execute(statement.order_by(m.number, m.name)):
        metrics, errors = found.setdefault(number, ({}, {}))
        metrics[name] = join(value, kind)
        if error_kind is not None:
            errors[name] = join(error, error_kind)
    return found


def _policies(connection: sa.Connection, study_id: int, fingerprints: list[str]) -> dict[str, Policy]:
    p, wanted = t.policy.c, set(fingerprints)
    statement = sa.select(p.fingerprint, p.json)
    if len(wanted) < _MANY:
        statement = statement.where(p.fingerprint.in_(wanted))
    else:
        mine = sa.select(t.trial.c.policy).where(t.trial.c.study_id == study_id)
        statement = statement.where(p.fingerprint.in_(mine))
    return {key: Policy.from_json(text) for key, text in connection.execute(statement) if key in wanted}


def _measurement(row: Any, metrics: Mapping[str, float], errors: Mapping[str, float]) -> Measurement | None:
    if row.realized is None:
        return None
    seconds = float("nan") if row.seconds is None else row.seconds
    return Measurement(metrics, loads(row.realized), row.artifact, seconds, errors, row.samples)
