"""Trials in SQL."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from automc.core.ports import Proposal
from automc.core.trial import Trial, TrialState
from automc.stores import query, steps
from automc.stores import tables as t
from automc.stores.codec import join, split
from automc.stores.database import Database, log, upsert
from automc.stores.filters import check_limit, parse, sort_keys
from automc.stores.rows import COLUMNS, add_trial, read_trials, write_trial


class TrialTables(Database):
    """A TrialStore, with ``query``."""

    def add(self, study: str, proposal: Proposal, rung: int) -> Trial:
        with self._write(study) as (connection, study_id):
            trial = Trial(_count(connection, study_id), proposal.policy, proposal.memo, rung=rung)
            policy = {"fingerprint": trial.policy.fingerprint, "json": trial.policy.to_json()}
            connection.execute(upsert(connection, t.policy, policy))
            add_trial(connection, study_id, trial)
            log(connection, study_id, "add", f"rung {rung}", trial.number)
        return trial

    def move(self, study: str, trial: Trial) -> Trial:
        with self._write(study) as (connection, study_id):
            stored = _standing(connection, study, study_id, trial.number)
            steps.check_step(study, stored, trial)
            written = write_trial(connection, study_id, trial)
            log(connection, study_id, "move", steps.told(stored.state, trial), trial.number)
        return written

    def note(self, study: str, number: int, step: int, value: float) -> None:
        with self._write(study) as (connection, study_id):
            trial = _standing(connection, study, study_id, number)
            if trial.state is not TrialState.RUNNING:
                return  # a report that comes late tells nothing about an attempt that can still be judged
            finite, kind = split(value)
            key = {"study_id": study_id, "number": number, "attempt": trial.attempts, "step": step}
            row = {**key, "value": finite, "kind": kind}
            connection.execute(upsert(connection, t.point, row, replaced=("value", "kind")))

    def notes(self, study: str, number: int) -> Sequence[tuple[int, float]]:
        p = t.point.c
        with self._read(study) as (connection, study_id):
            attempt = _standing(connection, study, study_id, number).attempts
            last = (p.study_id == study_id, p.number == number, p.attempt == attempt)
            rows = connection.execute(sa.select(p.step, p.value, p.kind).where(*last).order_by(p.step)).all()
        return [(step, join(value, kind)) for step, value, kind in rows]

    def trials(self, study: str, states: Sequence[TrialState] = ()) -> Sequence[Trial]:
        with self._read(study) as (connection, study_id):
            statement = sa.select(*COLUMNS).where(t.trial.c.study_id == study_id).order_by(t.trial.c.number)
            if states:
                statement = statement.where(t.trial.c.state.in_([state.value for state in states]))
            return read_trials(connection, study_id, statement)

    def query(self, study: str, where: str = "", sort: Sequence[str] = (), limit: int | None = None) -> Sequence[Trial]:
        check_limit(limit)
        columns = query.Columns()
        order = query.order_by(sort_keys(sort), columns)
        condition = query.compile(parse(where), columns) if where.strip() else sa.true()
        with self._read(study) as (connection, study_id):
            found = sa.select(*COLUMNS).select_from(columns.joined()).where(t.trial.c.study_id == study_id, condition)
            return read_trials(connection, study_id, found.order_by(*order).limit(limit))


def _count(connection: sa.Connection, study_id: int) -> int:
    highest = connection.execute(
        sa.select(sa.func.max(t.trial.c.number)).where(t.trial.c.study_id == study_id)
    ).scalar()
    return 0 if highest is None else highest + 1


def _standing(connection: sa.Connection, study: str, study_id: int, number: int) -> steps.Standing:
    columns = [t.trial.c[name] for name in steps.Standing._fields]
    mine = (t.trial.c.study_id == study_id, t.trial.c.number == number)
    row = connection.execute(sa.select(*columns).where(*mine)).one_or_none()
    if row is None:
        raise steps.unknown_trial(study, number, _count(connection, study_id))
    return steps.Standing(TrialState(row.state), row.attempts, row.policy, row.rung, row.memo)
