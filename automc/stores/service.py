"""The trial database as a service uses it."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from automc.stores.sql import SqlStore
from automc.stores.sql_activity import ActivityTables
from automc.stores.sql_care import CareTable, keep_request, want_driver
from automc.stores.sql_operations import OperationTables
from automc.stores.sql_tokens import TokenTables


class ServiceStore(SqlStore, TokenTables, CareTable, OperationTables, ActivityTables):
    """A TrialDatabase with tokens, care of studies, operations, events and activity.

    Attributes:
        request: ``token``, ``key`` and ``sha256`` of the request that creates studies with this object; kept in the
            transaction that creates one, so that a repetition finds it. Empty where nobody may repeat it.
        drives: whether a study that is created wants a driver, from that same transaction on.
    """

    request: Mapping[str, str] = {}
    drives = False

    def _created(self, connection: sa.Connection, study_id: int) -> None:
        if self.request:
            keep_request(connection, study_id, self.request)
        if self.drives:
            want_driver(connection, study_id, 0)
