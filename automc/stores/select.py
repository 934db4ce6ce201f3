"""SQL of people: one statement that reads, within a time and a number of rows, over views with short names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from automc.core.rules import nearest
from automc.errors import SpecError

if TYPE_CHECKING:
    import sqlalchemy as sa

VIEWS: Mapping[str, str] = {name: f"automc_{name}" for name in ("trials", "trial_layers", "front", "metrics")}
"""What a statement may call the views, and their names in the database."""

MAX_BYTES = 64 << 20
"""Of all text and bytes in an answer."""


@dataclass(frozen=True)
class Caps:
    """What a statement may take: rows of its answer, seconds until the last of them.

    Raises:
        SpecError: one of them is not above 0.
    """

    rows: int = 10_000
    seconds: float = 10.0

    def __post_init__(self) -> None:
        if self.rows < 1 or not 0 < self.seconds < 1e6:
            raise SpecError(f"query: rows and seconds must be above 0, not {self.rows} and {self.seconds}")


class Answer(NamedTuple):
    """Names of columns, rows of plain values, and whether there were more rows than the cap."""

    columns: list[str]
    rows: list[tuple[Any, ...]]
    more: bool


def select(url: sa.URL, text: str, caps: Caps) -> Answer:
    """The answer to one SELECT; nothing in the database can be changed by it.

    Raises:
        SpecError: it does not read, is no single statement, names what is not there, or takes more than it may.
    """
    if not text.strip(" \t\r\n;"):
        raise SpecError('query: an empty statement; write one such as "SELECT study, trial, top1 FROM trials"')
    if "\0" in text or not _encodable(text):
        raise SpecError("query: a statement holds no NUL and no broken characters")
    if url.get_backend_name() == "sqlite":
        from automc.stores.select_sqlite import select_sqlite

        return select_sqlite(url, text, caps)
    from automc.stores.select_postgresql import select_postgresql

    return select_postgresql(url, text, caps)


class Gathering:
    """Rows as they come, until a cap."""

    def __init__(self, columns: Iterable[str], caps: Caps) -> None:
        self.columns, self.rows, self.full = _distinct(columns), list[tuple[Any, ...]](), False
        self._caps, self._bytes = caps, 0

    def add(self, row: Iterable[Any]) -> None:
        """Keep a row, or find that there are too many. Raises SpecError for more bytes than an answer may have."""
        if len(self.rows) >= self._caps.rows:
            self.full = True
            return
        values = tuple(_plain(value) for value in row)
        self._bytes += sum(len(value) for value in values if isinstance(value, str))
        if self._bytes > MAX_BYTES:
            raise SpecError(f"query: the answer holds more than {MAX_BYTES >> 20} MB; select fewer columns or rows")
        self.rows.append(values)

    def answer(self) -> Answer:
        """What was kept."""
        return Answer(self.columns, self.rows, self.full)


def too_slow(caps: Caps) -> SpecError:
    """For a statement that was ended."""
    return SpecError(f"query: ended after {caps.seconds:g} s; narrow it, or give it more seconds")


def not_reading() -> SpecError:
    """For a statement that would do something."""
    return SpecError("query: only SELECT (or WITH ... SELECT, or VALUES) is allowed; nothing was changed")


def fault(said: str, names: Mapping[str, Iterable[str]]) -> SpecError:
    """A database's complaint in one line, with the nearest name where it misses a table or column.

    Args:
        names: columns of each table and view.
    """
    line = " ".join((said.strip().splitlines() or ["failed"])[0].split())[:300]
    table = re.search(r'no such table: (?:\w+\.)?(\w+)|relation "(?:\w+\.)?(\w+)" does not exist', line)
    column = re.search(r'no such column: "?(?:\w+\.)?(\w+)|column "?(?:\w+\.)?(\w+)"? does not exist', line)
    if table:
        name = next(filter(None, table.groups()))
        return SpecError(f"query: {line}{nearest(name, names)} (views: {', '.join(VIEWS)})")
    if column:
        name, known = next(filter(None, column.groups())), {c for columns in names.values() for c in columns}
        holders = [table for table, columns in names.items() if name in columns]
        hint = f" (it is in {', '.join(holders)})" if holders else nearest(name, sorted(known))
        return SpecError(f"query: {line}{hint}")
    return SpecError(f"query: {line}")


def _distinct(columns: Iterable[str]) -> list[str]:
    """The names, a second ``x`` as ``x_2``, so that a row can be a mapping."""
    found: list[str] = []
    for name in columns:
        count, own = 1, name
        while own in found:
            count += 1
            own = f"{name}_{count}"
        found.append(own)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return float(value) if hasattr(value, "__float__") else str(value)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
