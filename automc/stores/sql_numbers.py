"""Metrics of all complete trials of a study as columns: what a chart of a hundred thousand trials is drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from automc.core.trial import TrialState
from automc.stores import tables as t
from automc.stores.columns import Numbers
from automc.stores.database import Database
from automc.stores.rows import as_read


class NumberTables(Database):
    """Columns of trials."""

    def numbers(self, study: str, metrics: Sequence[str]) -> Numbers:
        c, m = t.trial.c, t.metric.c
        complete = (c.state == TrialState.COMPLETE.value, c.place.is_not(None))
        with self._read(study) as (connection, study_id):
            wanted = sa.select(c.number, c.rung, c.place, c.seconds, c.twin).where(c.study_id == study_id, *complete)
            rows = np.array(as_read(connection.execute(wanted)), dtype=np.float64).reshape(-1, 5)
            rows = rows[np.argsort(rows[:, 0], kind="stable")]
            number = rows[:, 0].astype(np.int64)
            values: dict[str, NDArray[np.float64]] = {}
            for name in metrics:
                if name == "seconds":
                    values[name] = rows[:, 3]
                    continue
                found = sa.select(m.number, m.value).where(m.study_id == study_id, m.name == name, m.kind == "finite")
                pairs = chain.from_iterable(as_read(connection.execute(found)))
                values[name] = _spread(number, np.fromiter(pairs, dtype=np.float64).reshape(-1, 2))
        rung, place = (rows[:, at].astype(np.int64) for at in (1, 2))
        return Numbers(number, rung, place, ~np.isnan(rows[:, 4]), values)


def _spread(number: NDArray[np.int64], found: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values of some trials, shape (some, 2), at the places of all."""
    column = np.full(len(number), np.nan)
    at = np.searchsorted(number, found[:, 0])
    known = (at < len(number)) & (number[np.minimum(at, len(number) - 1)] == found[:, 0]) if len(number) else at < 0
    column[at[known]] = found[known, 1]
    return column
