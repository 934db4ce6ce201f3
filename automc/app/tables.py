"""How data leaves: aligned text tables, and JSON without NaN."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from automc.core.metrics import METRICS

Row = Mapping[str, Any]

_BY_UNIT = {"ratio": ".4f", "nats": ".4f", "bytes": ",.0f", "count": ",.0f", "ms": ".3f", "s": ".1f"}
_PLAIN_NUMBERS = frozenset({"number", "rung", "seed", "index", "revision", "samples"})


def missing(value: Any) -> bool:
    """True for None and NaN (also pandas' and numpy's)."""
    return value is None or value != value


def cell(column: str, value: Any) -> str:
    """A value as a person reads it: by the unit of the metric its column is named after, else by its type."""
    if missing(value):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return "x".join(str(item) for item in value)
    metric = METRICS.get(column.removesuffix("_error"))
    if metric and not isinstance(value, str):
        return format(value, _BY_UNIT.get(metric.unit, ".4g"))
    if column in _PLAIN_NUMBERS and not isinstance(value, str):
        return str(int(value))
    if isinstance(value, float):
        return format(value, ".4g")
    return str(value)


def table(rows: Sequence[Row], columns: Sequence[str] = (), right: Sequence[str] = ()) -> str:
    """An aligned text table with a heading and a rule under it.

    Args:
        rows: one mapping a row. columns: which, and in which order; those of the first row when empty.
        right: columns to align to the right beside those that hold numbers only.
    """
    names = list(columns) or (list(rows[0]) if rows else [])
    body = [[cell(name, row.get(name)) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[i]) for line in body), 0) for i, name in enumerate(names)]
    to_right = [name in right or all(_number(row.get(name)) for row in rows) for name in names]
    lines = [names, ["-" * width for width in widths], *body]
    return "\n".join(_line(line, widths, to_right) for line in lines)


def pairs(data: Mapping[str, Any]) -> str:
    """``name  value`` lines with the values under each other; the names double as units for ``cell``."""
    width = max((len(name) for name in data), default=0)
    return "\n".join(f"{name:<{width}}  {cell(name, value)}" for name, value in data.items())


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = (text.rjust(w) if r else text.ljust(w) for text, w, r in zip(cells, widths, right, strict=True))
    return "  ".join(padded).rstrip()


def _number(value: Any) -> bool:
    return missing(value) or (not isinstance(value, (str, bool, list, tuple)) and hasattr(value, "__float__"))


def plain(data: Any) -> Any:
    """The same data as JSON can carry it: NaN and infinity become None, frames a list of rows."""
    if is_dataclass(data) and not isinstance(data, type):
        return plain(asdict(data))
    if hasattr(data, "to_dict") and hasattr(data, "columns"):
        return plain(data.to_dict("records"))
    if isinstance(data, Mapping):
        return {str(key): plain(value) for key, value in data.items()}
    if isinstance(data, (list, tuple, set, frozenset)):
        return [plain(item) for item in data]
    if isinstance(data, Enum):
        return data.value
    if isinstance(data, Path):
        return str(data)
    if hasattr(data, "tolist"):
        return plain(data.tolist())
    if isinstance(data, float) and not math.isfinite(data):
        return None
    return data if data is None or isinstance(data, (bool, int, float, str)) else str(data)


def to_json(data: Any) -> str:
    """One JSON document, readable."""
    return json.dumps(plain(data), indent=2, allow_nan=False)
