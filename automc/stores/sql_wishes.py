"""Wishes in SQL."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from automc.core.policy import Policy
from automc.core.trial import Trial
from automc.core.wishes import Wish
from automc.stores import service_tables as v
from automc.stores import steps
from automc.stores import tables as t
from automc.stores.codec import now_text
from automc.stores.database import Database, log, upsert
from automc.stores.rows import add_trial, count


class WishTable(Database):
    """A WishStore."""

    def wish(self, study: str, policy: Policy, rung: int) -> int:
        with self._lock(study) as (connection, study_id):
            row = {"study_id": study_id, "policy": policy.to_json(), "rung": rung, "created": now_text()}
            made = connection.execute(v.wish.insert().values(row).returning(v.wish.c.id)).scalar_one()
            log(connection, study_id, "wish", f"wish {made}: a policy for rung {rung}")
        return int(made)

    def wishes(self, study: str) -> Sequence[Wish]:
        c = v.wish.c
        with self._read(study) as (connection, study_id):
            wanted = sa.select(c.id, c.policy, c.rung).where(c.study_id == study_id, c.number.is_(None)).order_by(c.id)
            return [Wish(key, Policy.from_json(text), rung) for key, text, rung in connection.execute(wanted)]

    def grant(self, study: str, wish: Wish) -> Trial:
        c = v.wish.c
        with self._write(study) as (connection, study_id):
            trial = Trial(count(connection, study_id), wish.policy, rung=wish.rung)
            mine = (c.id == wish.id, c.study_id == study_id, c.number.is_(None))
            granted = connection.execute(v.wish.update().where(*mine).values(number=trial.number))
            steps.check_granted(study, wish.id, bool(granted.rowcount))
            policy = {"fingerprint": trial.policy.fingerprint, "json": trial.policy.to_json()}
            connection.execute(upsert(connection, t.policy, policy))
            add_trial(connection, study_id, trial)
            log(connection, study_id, "add", f"rung {trial.rung}, wish {wish.id}", trial.number)
        return trial
