"""Bounds as people write them: ``size_bytes=60kB``."""

from __future__ import annotations

import math
import re

from automc.core.metrics import Constraint
from automc.errors import SpecError

UNITS: dict[str, dict[str, float]] = {
    "bytes": {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30},
    "ms": {"us": 1e-3, "ms": 1, "s": 1e3},
    "s": {"ms": 1e-3, "s": 1},
    "mJ": {"uJ": 1e-3, "mJ": 1, "J": 1e3},
    "count": {"k": 1e3, "M": 1e6, "G": 1e9},
}
"""By a metric's unit, what may follow a number."""

_AMOUNT = re.compile(r"([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*([A-Za-z]*)\Z")


def bound(text: str, sign: str) -> Constraint:
    """``METRIC=AMOUNT`` as a constraint.

    Args:
        sign: ``<=`` or ``>=``.

    Raises:
        SpecError: another form, an unknown metric, or an amount that is none of this metric's unit.
    """
    metric, equals, amount = (part.strip() for part in text.partition("="))
    if not equals:
        raise SpecError(f"bound {text!r}: must read METRIC=AMOUNT, such as size_bytes=60kB")
    return _of(text, metric, sign, amount)


def constraint(text: str) -> Constraint:
    """``METRIC <= AMOUNT`` or ``METRIC >= AMOUNT``. Raises as ``bound``."""
    sign = next((sign for sign in ("<=", ">=") if sign in text), "")
    if not sign:
        raise SpecError(f"bound {text!r}: must read METRIC <= AMOUNT or METRIC >= AMOUNT, such as size_bytes <= 60kB")
    metric, _, amount = (part.strip() for part in text.partition(sign))
    return _of(text, metric, sign, amount)


def _of(text: str, metric: str, sign: str, amount: str) -> Constraint:
    from automc.core.metrics import METRICS

    found = Constraint.parse(f"{metric} {sign} 0")
    units = {"": 1.0, **UNITS.get(METRICS[metric].unit, {})}
    match = _AMOUNT.match(amount)
    if not match or match[2] not in units:
        allowed = ", ".join(filter(None, units))
        raise SpecError(f"bound {text!r}: must be a number{f' with or without one of {allowed}' if allowed else ''}")
    try:
        value = float(match[1]) * units[match[2]]
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SpecError(f"bound {text!r}: {match[1]!r} is no finite number")
    if METRICS[metric].is_share and not 0 <= value <= 1:
        raise SpecError(f"bound {text!r}: {metric} is a share, from 0 to 1")
    return Constraint(found.metric, sign, value)
