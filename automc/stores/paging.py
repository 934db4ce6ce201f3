"""Lists of trials page by page: what to list, in which order, and the cursor from which the next page goes on.

A page goes on behind a trial by what it is sorted by, never by counting: a cursor holds the sort keys of the last trial
shown and its number. So a page costs the same wherever it lies, and trials that come meanwhile shift nothing.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from automc.core.metrics import METRICS
from automc.core.trial import Trial
from automc.errors import SpecError
from automc.stores.codec import LARGEST, dumps, loads
from automc.stores.filters import ALIASES, ERRORS, NAMES, Literal, hint, value_of

Key: TypeAlias = tuple[str, bool]
"""What to sort by, and whether from high to low."""

Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Listing:
    """Which trials to list.

    Attributes:
        where: see filters.py; empty holds for all.
        sort: names a filter knows, ``-`` before one for descending. Where a trial lacks the value, or it is NaN, it
            comes last. Equals, and all trials without ``sort``, are in order of number.
        limit: at most so many trials.
        after: the cursor of the page before; "" begins.
        columns: names a filter knows; empty for what every trial has and all that was measured.
    """

    where: str = ""
    sort: Sequence[str] = ()
    limit: int | None = None
    after: str = ""
    columns: Sequence[str] = ()


class Page(NamedTuple):
    """Trials as mappings from column to value, None where a trial lacks it; ``after`` is "" where no more come."""

    rows: list[Row]
    after: str = ""


class Position(NamedTuple):
    """Of a trial its sort keys (None where it lacks the value, or it is NaN) and its number."""

    values: tuple[Literal | None, ...]
    number: int


def sort_keys(sort: Sequence[str]) -> list[Key]:
    """(name, whether descending) of each sort key. Raises SpecError for a name that no filter knows."""
    return [(known("sort", key.removeprefix("-")), key.startswith("-")) for key in sort]


def known(what: str, name: str) -> str:
    """The name that a filter has for it. Raises SpecError."""
    found = ALIASES.get(name, name)
    if found not in NAMES:
        raise SpecError(f"{what}: unknown name {name!r}{hint(name)}")
    return found


def check_limit(limit: int | None) -> None:
    """Raises SpecError for a limit that is negative, or no number of a database's."""
    if limit is not None and not 0 <= limit <= LARGEST:
        raise SpecError(f"limit: 0 or more trials, {LARGEST} at most, not {limit}")


def write_cursor(keys: Sequence[Key], position: Position) -> str:
    """The cursor of a page that ends there; ``read_cursor`` reads it."""
    values = [float(value) if isinstance(value, int) else value for value in position.values]
    text = dumps([[_spelled(key) for key in keys], [*values, position.number]])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(text: str, keys: Sequence[Key]) -> Position | None:
    """Where a page ended; None for "".

    Raises:
        SpecError: it is no cursor, or one of another order.
    """
    if not text:
        return None
    try:
        sort, at = loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode())
        *values, number = at
        good = type(number) is int and 0 <= number < 1 << 31 and len(values) == len(sort)
        good = good and all(isinstance(key, str) for key in sort) and all(map(_storable, values))
    except (binascii.Error, ValueError, TypeError, RecursionError):
        good = False
    if not good:
        raise SpecError(f"after: {text[:40]!r} is no cursor; give the one that the page before ended with")
    if sort != [_spelled(key) for key in keys]:
        order = ",".join(sort) or "number"
        raise SpecError(f"after: this cursor goes on in a list sorted by {order}; sort by that, or begin without it")
    if any(isinstance(v, str) != (name in TEXTS) for v, (name, _) in zip(values, keys, strict=True) if v is not None):
        raise SpecError(f"after: {text[:40]!r} is no cursor of this order; give the one that the last page ended with")
    return Position(tuple(values), number)


TEXTS = ("state", "reason", "fingerprint")
"""Names whose values are text."""


def _storable(value: Any) -> bool:
    """Whether a database can compare with it."""
    return value is None or isinstance(value, float) or (isinstance(value, str) and value.isprintable())


def position(row: Mapping[str, Any], keys: Sequence[Key]) -> Position:
    """Where a row stands; it must have the sort keys and the number."""
    found = (row.get(name) for name, _ in keys)
    return Position(tuple(None if value is None or value != value else value for value in found), row["number"])


def behind(mine: Position, at: Position, keys: Sequence[Key]) -> bool:
    """Whether a trial comes after a position."""
    for own, other, (_, descending) in zip(mine.values, at.values, keys, strict=True):
        if own == other:
            continue
        if own is None or other is None:
            return own is None
        return (own < other) if descending else (own > other)  # type: ignore[operator]
    return mine.number > at.number


def ordered(rows: list[Row], keys: Sequence[Key]) -> list[Row]:
    """Rows that are in order of number by the keys; those that lack one, or have NaN, come last."""
    for name, descending in reversed(keys):
        has = [row for row in rows if row.get(name) is not None and row[name] == row[name]]
        lacks = [row for row in rows if row.get(name) is None or row[name] != row[name]]
        rows = sorted(has, key=lambda row: row[name], reverse=descending) + lacks
    return rows


def row_of(trial: Trial) -> Row:
    """A trial as a row with all of its columns."""
    measured = trial.measurement
    base = {name: value_of(name, trial) for name in ("state", "reason", "fingerprint")}
    if measured is None:
        return whole(trial.number, trial.rung, base, None, {}, {}, None, trial.twin)
    numbers = (measured.metrics, measured.errors, measured.samples, trial.twin)
    return whole(trial.number, trial.rung, base, measured.seconds, *numbers)


def whole(
    number: int,
    rung: int,
    words: Mapping[str, Any],
    seconds: float | None,
    metrics: Mapping[str, float],
    errors: Mapping[str, float],
    samples: int | None,
    twin: int | None,
) -> Row:
    """A row in the order of its columns."""
    found: Row = {"number": number, "state": words["state"], "rung": rung, "reason": words["reason"]}
    if samples is not None:
        found |= {"seconds": None, **metrics, **{f"{name}_error": error for name, error in errors.items()}}
        found |= {"seconds": seconds, "samples": samples}
    return found | {"twin": twin, "fingerprint": words["fingerprint"]}


def cut(rows: list[Row], listing: Listing, keys: Sequence[Key]) -> Page:
    """The page of rows of which one more than the limit were read, if there are as many."""
    shown = rows[: listing.limit]
    more = bool(shown) and len(rows) > len(shown)
    after = write_cursor(keys, position(shown[-1], keys)) if more else ""
    wanted = {name: known("columns", name) for name in listing.columns}
    return Page([{name: row.get(own) for name, own in wanted.items()} for row in shown] if wanted else shown, after)


def measures(listing: Listing, keys: Sequence[Key]) -> list[str] | None:
    """The metrics to read for the columns and the order of a listing; None for all."""
    if not listing.columns:
        return None
    names = [known("columns", name) for name in listing.columns] + [name for name, _ in keys]
    return [name for name in METRICS if name in {ERRORS.get(name, name) for name in names}]


def _spelled(key: Key) -> str:
    return f"-{key[0]}" if key[1] else key[0]
