"""Trials in SQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import sqlalchemy as sa

from automc.core.ports import Outcome, Proposal
from automc.core.tally import Count
from automc.core.trial import Trial, TrialState
from automc.stores import attempts, steps
from automc.stores import tables as t
from automc.stores.codec import LARGEST, join, now_text, split
from automc.stores.database import Database, log, upsert
from automc.stores.rows import COLUMNS, add_trial, count, last_place, parted, read_trials, standing, write_trial
from automc.stores.sql_history import keep_changes


class TrialTables(Database):
    """A TrialStore."""

    def add(self, study: str, proposal: Proposal, rung: int, start: bool = False) -> Trial:
        with self._write(study) as (connection, study_id):
            waiting = Trial(count(connection, study_id), proposal.policy, proposal.memo, rung=rung)
            trial = waiting.to(TrialState.RUNNING) if start else waiting
            started = add_trial(connection, study_id, trial)
            log(connection, study_id, "add", f"rung {rung}", trial.number)
            if started is not None:
                attempts.begin(connection, study_id, trial, started, self._fences.get(study))
                log(connection, study_id, "move", steps.told(waiting.state, trial), trial.number)
        return trial

    def move(
        self, study: str, trial: Trial, outcome: Outcome | None = None, front: Mapping[int, bool] | None = None
    ) -> Trial:
        with self._write(study) as (connection, study_id):
            stored = standing(connection, study, study_id, trial.number)
            steps.check_step(study, stored, trial)
            written, started = write_trial(connection, study_id, trial)
            if trial.state is TrialState.RUNNING:
                attempts.begin(connection, study_id, trial, started or now_text(), self._fences.get(study))
            elif stored.state is TrialState.RUNNING:
                attempts.end(connection, study_id, trial, started, outcome)
            if front:
                keep_changes(connection, study_id, front)
            log(connection, study_id, "move", steps.told(stored.state, trial), trial.number)
        return written

    def late(self, study: str, outcome: Outcome) -> None:
        with self._lock(study) as (connection, study_id):
            standing(connection, study, study_id, outcome.number)
            attempts.end_late(connection, study_id, outcome, self._fences.get(study))
            log(connection, study_id, "late", steps.told_late(outcome), outcome.number)

    def note(self, study: str, number: int, step: int, value: float) -> None:
        with self._write(study) as (connection, study_id):
            trial = standing(connection, study, study_id, number)
            if trial.state is not TrialState.RUNNING:
                return  # a report that comes late tells nothing about an attempt that can still be judged
            finite, kind = split(value)
            key = {"study_id": study_id, "number": number, "attempt": trial.attempts, "step": step}
            row = {**key, "value": finite, "kind": kind}
            connection.execute(upsert(connection, t.metric_point, row, replaced=("value", "kind")))

    def notes(self, study: str, number: int) -> Sequence[tuple[int, float]]:
        p = t.metric_point.c
        with self._read(study) as (connection, study_id):
            attempt = standing(connection, study, study_id, number).attempts
            last = (p.study_id == study_id, p.number == number, p.attempt == attempt)
            rows = connection.execute(sa.select(p.step, p.value, p.kind).where(*last).order_by(p.step)).all()
        return [(step, join(value, kind)) for step, value, kind in rows]

    def trials(
        self, study: str, states: Sequence[TrialState] = (), numbers: Iterable[int] | None = None
    ) -> Sequence[Trial]:
        with self._read(study) as (connection, study_id):
            statement = sa.select(*COLUMNS).where(t.trial.c.study_id == study_id).order_by(t.trial.c.number)
            if states:
                statement = statement.where(t.trial.c.state.in_([state.value for state in states]))
            if numbers is None:
                return read_trials(connection, study_id, statement)
            asked = sorted({number for number in numbers if 0 <= number <= LARGEST})
            parts = [statement.where(t.trial.c.number.in_(part)) for part in parted(asked)]
            return [trial for part in parts for trial in read_trials(connection, study_id, part)]

    def spent(self, study: str, step: int) -> Sequence[float]:
        c = t.trial.c
        with self._read(study) as (connection, study_id):
            finished = last_place(connection, study_id)
            if not finished:
                return []
            # A sum for each part, so that each is read from the index in its order and nothing is sorted.
            parts = sa.select(sa.literal(0).label("part")).cte("parts", recursive=True)
            parts = parts.union_all(sa.select(parts.c.part + 1).where(parts.c.part < (finished - 1) // step))
            mine = (c.place > parts.c.part * step, c.place <= (parts.c.part + 1) * step, c.twin.is_(None))
            own = sa.select(sa.func.coalesce(sa.func.sum(c.seconds), 0.0)).where(c.study_id == study_id, *mine)
            rows = connection.execute(sa.select(parts.c.part, own.scalar_subquery())).all()
        return [seconds for _, seconds in sorted(rows)]

    def tally(self, study: str) -> Sequence[Count]:
        c = t.trial.c
        # In the order of the index, which needs no sorting; there are few kinds behind it.
        kind = (c.state, c.reason, c.twin, c.samples)
        sums = sa.func.count().label("number"), sa.func.coalesce(sa.func.sum(c.seconds), 0.0).label("seconds")
        with self._read(study) as (connection, study_id):
            alike = sa.select(*kind, *sums).where(c.study_id == study_id).group_by(*kind).subquery().c
            kinds = (alike.state, alike.reason, alike.twin.is_not(None).label("answered"), alike.samples)
            wanted = sa.select(*kinds, sa.func.sum(alike.number), sa.func.sum(alike.seconds)).group_by(*kinds)
            rows = [(*row[:4], int(row[4]), row[5]) for row in connection.execute(wanted)]
        return sorted(Count(TrialState(row[0]), row[1], bool(row[2]), *row[3:]) for row in rows)
