"""Latencies of single layers in SQL."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from automc.stores import steps
from automc.stores import tables as t
from automc.stores.database import Database, upsert


class LatencyTable(Database):
    """A LatencyStore."""

    def latencies(self, device: str) -> Mapping[str, float]:
        c = t.layer_latency.c
        with self._reading() as connection:
            rows = connection.execute(sa.select(c.key, c.milliseconds).where(c.device == device)).all()
        return dict(sorted((key, milliseconds) for key, milliseconds in rows))

    def keep_latencies(self, device: str, rows: Mapping[str, float], rounds: int = 1) -> None:
        steps.check_latencies(device, rows, rounds)
        with self._changing() as connection:
            # In the order of the keys, so that two writers of the same rows cannot wait for each other in a circle.
            for key in sorted(rows):
                row = {"device": device, "key": key, "milliseconds": float(rows[key]), "rounds": rounds}
                connection.execute(upsert(connection, t.layer_latency, row, replaced=("milliseconds", "rounds")))
