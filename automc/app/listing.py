"""Lists of trials and answers to SQL as frames: what ``automc trials`` and ``automc query`` show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from automc.core.history import front_after
from automc.core.metrics import losses
from automc.core.tally import by_state
from automc.core.trial import Trial
from automc.errors import SpecError
from automc.stores import open_store
from automc.stores.paging import Listing, row_of
from automc.stores.select import Caps

if TYPE_CHECKING:
    import pandas as pd

    from automc.app.study import Study
    from automc.stores import TrialDatabase

AFTER, MORE = "after", "more"
"""Keys of ``frame.attrs``: the cursor of the page behind a list ("" where none is), whether an answer was cut."""

_ALWAYS = ("number", "state", "rung", "reason", "seconds", "twin", "fingerprint")


def listed(store: TrialDatabase, study: str, listing: Listing) -> pd.DataFrame:
    """One row a trial; ``attrs["after"]`` is the cursor of the next page. Raises as ``TrialDatabase.page``."""
    import pandas as pd

    page = store.page(study, listing)
    columns = list(listing.columns) or (None if page.rows else list(_ALWAYS))
    frame = pd.DataFrame(page.rows, columns=columns)
    frame.attrs[AFTER] = page.after
    return frame


def frame_of(trials: Iterable[Trial]) -> pd.DataFrame:
    """Trials as ``listed`` shows them."""
    import pandas as pd

    rows = list(map(row_of, trials))
    return pd.DataFrame(rows, columns=None if rows else list(_ALWAYS))


def answer(store: TrialDatabase, sql: str, rows: int | None = None, seconds: float | None = None) -> pd.DataFrame:
    """The rows of one SELECT; ``attrs["more"]`` says whether there were more than ``rows`` of them.

    Args:
        rows, seconds: what it may take at most; by default as ``Caps`` has it.

    Raises:
        SpecError: it is no single statement that reads, names what is not there, or takes longer. StoreError: a store
            in memory has no SQL.
    """
    import pandas as pd

    given = {key: value for key, value in (("rows", rows), ("seconds", seconds)) if value is not None}
    found = store.select(sql, Caps(**given))  # type: ignore[arg-type]
    frame = pd.DataFrame(found.rows, columns=found.columns)
    frame.attrs[MORE] = found.more
    return frame


def ask(sql: str, storage: str, rows: int | None = None, seconds: float | None = None) -> pd.DataFrame:
    """``answer`` of a database that is there. Raises StoreError where it is not."""
    store = open_store(storage, create=False)
    try:
        return answer(store, sql, rows, seconds)
    finally:
        store.close()


def front_at(study: Study, place: int) -> list[Trial]:
    """The members of the front as it was when so many trials had finished, best first objective first.

    Raises:
        SpecError: so many have not finished.
    """
    changes = study.store.front_changes(study.name)
    if place < 0 or place > (changes[-1].place if changes else 0):
        states = by_state(study.store.tally(study.name))
        finished = sum(count for state, count in states.items() if state.finished)
        if not 0 <= place <= finished:
            raise SpecError(f"study {study.name!r}: {finished} trials have finished; its front at {place} is not known")
    return recorded(study, front_after(changes, place))


def current_front(study: Study) -> list[Trial]:
    """The front now, as it is recorded, best first objective first: it costs the same for any number of trials."""
    return recorded(study, front_after(study.store.front_changes(study.name)))


def recorded(study: Study, numbers: Sequence[int]) -> list[Trial]:
    """Measured trials by their numbers, best first objective first."""
    objectives = study.spec.objectives

    def key(trial: Trial) -> Any:
        return losses(objectives, trial.measurement.metrics) if trial.measurement else ()

    return sorted(study.store.trials(study.name, numbers=numbers), key=key)


def some(study: Study, total: int, most: int) -> Sequence[Trial]:
    """The trials, or of more than ``most`` an even choice of so many, in order of number.

    Args:
        total: how many there are.
    """
    if total <= most:
        return study.records()
    return study.store.trials(study.name, numbers=[place * (total - 1) // (most - 1) for place in range(most)])


def names(text: str) -> Sequence[str]:
    """``a, b`` as its parts."""
    return [part.strip() for part in text.split(",") if part.strip()]
