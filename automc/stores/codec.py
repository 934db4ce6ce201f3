"""Between the core's values and what a database column can hold. MemoryStore uses the same, so that both read alike."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from automc.core.metrics import Measurement
from automc.core.study import StudySpec
from automc.errors import StoreError

LARGEST = 2**31 - 1
"""Number that a column of whole numbers can hold on every database."""

_FLOAT = "$float"


def now_text() -> str:
    """The time now: UTC, ISO 8601, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def split(value: float) -> tuple[float | None, str]:
    """A number as (value, kind): the value is None unless finite; kind is finite, nan, +inf or -inf."""
    number = float(value)
    if math.isfinite(number):
        return number, "finite"
    return None, "nan" if math.isnan(number) else "+inf" if number > 0 else "-inf"


def join(value: float | None, kind: str) -> float:
    """The number that ``split`` took apart."""
    return value if value is not None else float(kind)


def dumps(data: Any) -> str:
    """Strict JSON of plain data; NaN and infinity become ``{"$float": "nan"}``, which SQL can still read as JSON.

    Raises:
        TypeError: something JSON cannot carry.
    """
    return json.dumps(_strict(data), allow_nan=False, separators=(",", ":"), ensure_ascii=False)


def loads(text: str) -> Any:
    """The data that ``dumps`` wrote; tuples come back as lists."""
    return _DECODER.decode(text)


def read_spec(study: str, text: str) -> StudySpec:
    """The spec that ``dumps(spec.to_data())`` wrote.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        return StudySpec.from_data(loads(text))
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise StoreError(f"study {study!r}: its stored spec cannot be read by this automc: {error}") from error


def plain(measurement: Measurement | None) -> Measurement | None:
    """The measurement as it reads back from a store: floats, and plain data in ``realized``.

    Seconds that are not finite become NaN; the error of a metric that is not there is left out.
    """
    if measurement is None:
        return None
    metrics = {name: float(value) for name, value in sorted(measurement.metrics.items())}
    seconds = float(measurement.seconds)
    return Measurement(
        metrics,
        loads(dumps(measurement.realized)),
        measurement.artifact,
        seconds if math.isfinite(seconds) else math.nan,
        {name: float(measurement.errors[name]) for name in metrics if name in measurement.errors},
        int(measurement.samples),
    )


def _strict(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {str(key): _strict(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_strict(value) for value in data]
    if not isinstance(data, (str, int, float)) and hasattr(data, "item"):
        data = data.item()  # a NumPy or torch scalar
    if isinstance(data, float) and not math.isfinite(data):
        return {_FLOAT: split(data)[1]}
    return data


def _hook(found: dict[str, Any]) -> Any:
    return float(found[_FLOAT]) if found.keys() == {_FLOAT} else found


# json.loads would build one anew for every call, which is half the time of reading many trials.
_DECODER = json.JSONDecoder(object_hook=_hook)
