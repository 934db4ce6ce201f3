"""What all routes share: the database, how the service runs, what it offers, who builds and drives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fastapi import Request

from automc.app.study import Study
from automc.service.builder import Build, apart
from automc.service.gate import Caller
from automc.service.offers import Offers
from automc.service.settings import Settings
from automc.service.supervisor import Supervisor
from automc.stores.service import ServiceStore

if TYPE_CHECKING:
    from automc.stores.columns import Numbers

KEPT = 4
"""Columns of so many studies are kept, of those asked for last: of 100,000 trials and four metrics 5 MB."""


class Desk:
    """Made once a service. Its store may be used by many threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = ServiceStore(settings.storage)
        self.offers = Offers.beside(settings.storage)
        self.build: Build = apart
        self._known: dict[tuple[str, str], tuple[Any, Any]] = {}
        self._columns: dict[str, tuple[Any, Numbers]] = {}
        self.supervisor = Supervisor(self.store, settings, lambda: self.build)

    def study(self, name: str) -> Study:
        """A study. Raises UnknownStudy."""
        found = Study(name, self.store, self.settings.storage)
        found.spec  # noqa: B018  (asks the database, which refuses an unknown name)
        return found

    def remembered(self, what: str, study: str, make: Callable[[], Any]) -> Any:
        """What is made of all trials of a study, once for every new event of it."""
        event = self.store.last_events([study]).get(study)
        known = self._known.get((what, study))
        if known is None or known[0] != event:
            known = self._known[what, study] = event, make()
        return known[1]

    def numbers(self, study: str, metrics: Sequence[str]) -> Numbers:
        """The columns of these metrics, and maybe of others, once for every new event. Raises UnknownStudy."""
        event = self.store.last_events([study]).get(study)
        seen, known = self._columns.pop(study, (None, None))
        if known is None or seen != event or not known.values.keys() >= set(metrics):
            more = known.values if known is not None else ()
            known = self.store.numbers(study, list(dict.fromkeys([*metrics, *more])))
        self._columns[study] = event, known
        for oldest in list(self._columns)[:-KEPT]:
            self._columns.pop(oldest, None)
        return known

    def wake(self) -> None:
        """Let drivers and exports be looked at now."""
        self.supervisor.wake()

    def close(self) -> None:
        """Close the database."""
        self.store.close()


def desk_of(request: Request) -> Desk:
    """The desk of the application that a request came to."""
    found: Desk = request.app.state.desk
    return found


def caller_of(request: Request) -> Caller:
    """Who asks; the gate has let them in."""
    found: Caller = request.state.caller
    return found
