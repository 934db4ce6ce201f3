"""What revision 0004 finds out about older studies: attempts, layers, and how the front came to be.

Written out, not taken from the core: a revision must do the same for ever.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa

Row = dict[str, Any]


def fill(connection: sa.Connection) -> None:
    connection.execute(sa.text(_ATTEMPTS), {"late": False})
    studies = sa.text(
        "SELECT s.id, s.facts, r.spec FROM automc_study s "
        "JOIN automc_revision r ON r.study_id = s.id AND r.revision = s.revision"
    )
    for study_id, facts, spec in connection.execute(studies).all():
        _insert(connection, "automc_front_change", list(_changes(connection, study_id, json.loads(spec))))
        table = json.loads(facts).get("layers")
        if isinstance(table, Mapping):
            _network(connection, study_id, json.loads(spec)["model"], table)


# Of the attempts before the last one nothing is known.
_ATTEMPTS = """
INSERT INTO automc_attempt
    (study_id, number, attempt, state, reason, message, log, host, pid, started, finished, seconds, fence, late)
SELECT study_id, number, attempts, CASE WHEN twin IS NULL THEN state ELSE 'waiting' END, reason, message, '', '',
       NULL, started, CASE WHEN twin IS NULL THEN finished END, NULL, NULL, :late
FROM automc_trial WHERE attempts > 0
"""


def _changes(connection: sa.Connection, study_id: int, spec: Mapping[str, Any]) -> Iterator[Row]:
    """The complete trials in the order of finishing, each against the front so far."""
    front: dict[int, list[float]] = {}
    for place, number, metrics in _measured(connection, study_id):
        if not all(_holds(text, metrics) for text in spec["constraints"]):
            continue
        new = [
            -metrics.get(metric, -math.inf) if way == "maximize" else metrics.get(metric, math.inf)
            for metric, way in spec["objectives"].items()
        ]
        equal = next((n for n, point in front.items() if point == new), None)
        if not all(map(math.isfinite, new)) or (equal is not None and equal < number):
            continue
        if any(_beats(point, new) for point in front.values()):
            continue
        gone = [n for n, point in front.items() if n == equal or _beats(new, point)]
        for n in gone:
            del front[n]
        front[number] = new
        row = {"study_id": study_id, "place": place}
        yield from ({**row, "number": n, "entered": False} for n in gone)
        yield {**row, "number": number, "entered": True}


def _beats(a: list[float], b: list[float]) -> bool:
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


def _holds(constraint: str, metrics: Mapping[str, float]) -> bool:
    metric, sign, bound = constraint.split()
    value = metrics.get(metric, math.nan)
    return value <= float(bound) if sign == "<=" else value >= float(bound)


def _measured(connection: sa.Connection, study_id: int) -> Iterator[tuple[int, int, dict[str, float]]]:
    """Place, number and metrics; NaN is left out, so that it is as good as not measured."""
    rows = connection.execute(
        sa.text(
            "SELECT t.place, t.number, m.name, m.value, m.kind FROM automc_trial t "
            "JOIN automc_metric m ON m.study_id = t.study_id AND m.number = t.number "
            "WHERE t.study_id = :study AND t.state = 'complete' AND m.kind <> 'nan' ORDER BY t.place"
        ),
        {"study": study_id},
    )
    last: tuple[int, int] | None = None
    metrics: dict[str, float] = {}
    for place, number, name, value, kind in rows:
        if last is not None and last != (place, number):
            yield *last, metrics
            metrics = {}
        last = place, number
        metrics[name] = value if value is not None else float(kind)
    if last is not None:
        yield *last, metrics


def _network(connection: sa.Connection, study_id: int, model: Mapping[str, Any], table: Mapping[str, Any]) -> None:
    layers = table["layers"]
    shape = _json(table["input_shape"])
    sums = {name: sum(layer[name] for layer in layers) for name in ("params", "macs")}
    row = {"study_id": study_id, "name": model["name"], "weights": model["weights"], "input_shape": shape}
    _insert(connection, "automc_model", [row | sums])
    same = ("name", "kind", "in_channels", "out_channels", "params", "macs", "reason")
    lists = ("kernel", "stride", "out_shape")
    _insert(
        connection,
        "automc_layer",
        [
            {"study_id": study_id, "position": layer["index"], "group_name": layer["group"]}
            | {name: layer[name] for name in same}
            | {name: _json(layer[name]) for name in lists}
            for layer in layers
        ],
    )


def _json(shape: list[int]) -> str:
    return json.dumps(shape, separators=(",", ":"))


def _insert(connection: sa.Connection, table: str, rows: list[Row]) -> None:
    if rows:
        connection.execute(sa.table(table, *map(sa.column, rows[0])).insert(), rows)
