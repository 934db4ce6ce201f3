"""The trial database: one protocol, kept in memory or in SQL. Nothing heavy is imported before a store is opened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from automc.core.ports import Store
from automc.core.trial import Trial


class TrialDatabase(Store, Protocol):
    """A store that can also be asked questions."""

    def query(self, study: str, where: str = "", sort: Sequence[str] = (), limit: int | None = None) -> Sequence[Trial]:
        """The trials for which the filter holds, sorted.

        Args:
            where: see filters.py; empty holds for all.
            sort: names a filter knows, ``-`` before one for descending. Where a trial lacks the value, or it is
                NaN, the trial comes last. Equals, and all trials without ``sort``, are in order of number.
            limit: at most so many trials. To page, ask for ``number > last seen`` in the filter.

        Raises:
            UnknownStudy. SpecError: the filter, a name or the limit breaks a rule.
        """
        ...


def open_store(url: str, create: bool = True) -> TrialDatabase:
    """Open the trial database.

    Args:
        url: ``memory:`` (gone with the object), the path of a SQLite file, ``sqlite:///PATH`` or
            ``postgresql://USER:PASSWORD@HOST/NAME``.
        create: make what is missing. With False a SQLite file or schema that is not there is an error, and
            nothing is made.

    Raises:
        StoreError: it cannot be opened; the message says why. SchemaMismatch: a newer automc wrote it.
    """
    if url == "memory:":
        from automc.stores.memory import MemoryStore

        return MemoryStore()
    from automc.stores.sql import SqlStore

    return SqlStore(url, create)
