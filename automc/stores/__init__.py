"""The trial database: one protocol, kept in memory or in SQL. Nothing heavy is imported before a store is opened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from automc.core.store import Store
from automc.core.trial import Trial
from automc.stores.columns import Numbers
from automc.stores.paging import Listing, Page
from automc.stores.select import Answer, Caps


class TrialDatabase(Store, Protocol):
    """A store that can also be asked questions."""

    def query(self, study: str, where: str = "", sort: Sequence[str] = (), limit: int | None = None) -> Sequence[Trial]:
        """The trials for which the filter holds, sorted as a ``Listing`` says.

        Raises:
            UnknownStudy. SpecError: the filter, a name or the limit breaks a rule.
        """
        ...

    def page(self, study: str, listing: Listing) -> Page:
        """Rows of the trials that a listing asks for, and the cursor from which the next page goes on.

        Raises:
            UnknownStudy. SpecError: the filter, a name, the limit or the cursor breaks a rule.
        """
        ...

    def spent(self, study: str, step: int) -> Sequence[float]:
        """Seconds of evaluation of the trials that finished, summed over ``step`` at a time in the order in which they
        did; the last sum may be of fewer. Answers from the store and what is not known count none.

        Raises:
            UnknownStudy.
        """
        ...

    def numbers(self, study: str, metrics: Sequence[str]) -> Numbers:
        """The columns of these metrics. Raises UnknownStudy."""
        ...

    def select(self, text: str, caps: Caps) -> Answer:
        """The answer to one SQL statement that reads; see select.py. A store in memory has no SQL.

        Raises:
            SpecError: it is no such statement, or takes more than it may. StoreError: there is no SQL.
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
