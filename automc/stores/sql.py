"""The trial database in SQL: SQLite and PostgreSQL, the same code."""

from __future__ import annotations

from automc.stores.sql_agents import AgentTable
from automc.stores.sql_history import HistoryTables
from automc.stores.sql_latencies import LatencyTable
from automc.stores.sql_leases import LeaseTables
from automc.stores.sql_lists import ListTables
from automc.stores.sql_numbers import NumberTables
from automc.stores.sql_studies import StudyTables
from automc.stores.sql_trials import TrialTables
from automc.stores.sql_wishes import WishTable


class SqlStore(
    StudyTables, TrialTables, LeaseTables, LatencyTable, AgentTable, HistoryTables, ListTables, NumberTables, WishTable
):
    """A Store (core/store.py) and the rest of a TrialDatabase (stores/__init__.py) in a SQL database.

    Each call is one transaction, durable when it returns. A writing call first locks the study (SQLite: the
    whole file), then checks the lease, so neither can change before its end. Threads may share the object.
    """
