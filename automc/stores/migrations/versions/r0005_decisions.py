"""Packed decisions and an index of metrics, so that filters and lists of many trials are quick; views of both kinds."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

# Written out, not taken from METRICS: a revision must build the same schema for ever.
_WITH_ERROR = (
    "top1", "top5", "top1_worst_class", "loss", "agreement", "mse", "mae", "r2", "teacher_r2", "miou",
    "pixel_accuracy", "map50", "map", "perplexity", "cosine", "score", "latency_ms", "latency_torch_ms",
    "latency_ratio",
)  # fmt: skip
_OTHERS = (
    "params", "params_nonzero", "macs", "bops", "size_bytes", "latency_predicted_ms", "activation_bytes",
    "energy_model_mj", "params_ratio", "params_nonzero_ratio", "macs_ratio", "bops_ratio", "size_ratio",
    "activation_ratio", "latency_predicted_ratio", "energy_model_ratio",
)  # fmt: skip
_AT_ONCE = 1_000


def upgrade() -> None:
    op.create_table(
        "automc_layout",
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("layout", sa.Integer, nullable=False),
        sa.Column("sites", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("study_id", "layout", name="pk_automc_layout"),
        sa.ForeignKeyConstraint(["study_id"], ["automc_study.id"], name="fk_automc_layout_study_id"),
    )
    op.add_column("automc_trial", sa.Column("layout", sa.Integer, nullable=False, server_default="0"))
    op.add_column("automc_trial", sa.Column("decisions", sa.LargeBinary))
    op.create_index("ix_automc_metric_value", "automc_metric", ["study_id", "name", "kind", "value", "number"])
    _pack(op.get_bind())
    op.execute("DROP VIEW automc_trials")
    for view in (_TRIALS, _FRONT, _METRICS):
        op.execute(view)


def _pack(connection: sa.Connection) -> None:
    """Give every trial its layout and its packed decisions."""
    read = sa.text(
        "SELECT t.study_id, t.number, p.json FROM automc_trial t JOIN automc_policy p ON p.fingerprint = t.policy "
        "WHERE t.layout = 0 ORDER BY t.study_id, t.number LIMIT :some"
    )
    write = sa.text(
        "UPDATE automc_trial SET layout = :layout, decisions = :decisions "
        "WHERE study_id = :study_id AND number = :number"
    )
    layouts: dict[tuple[int, str], int] = {}
    while rows := connection.execute(read, {"some": _AT_ONCE}).all():
        packed = []
        for study_id, number, text in rows:
            values = _values(json.loads(text))
            sites = json.dumps([site for site, _ in values], separators=(",", ":"))
            if (study_id, sites) not in layouts:
                layouts[study_id, sites] = 1 + sum(owner == study_id for owner, _ in layouts)
                row = {"study_id": study_id, "layout": layouts[study_id, sites], "sites": sites}
                connection.execute(sa.text("INSERT INTO automc_layout VALUES (:study_id, :layout, :sites)"), row)
            decisions = b"".join(_code(value) for _, value in values)
            key = {"study_id": study_id, "number": number, "layout": layouts[study_id, sites]}
            packed.append({**key, "decisions": decisions})
        connection.execute(write, packed)


def _values(policy: dict[str, dict[str, dict[str, Any]]]) -> list[tuple[list[str], Any]]:
    return sorted(
        ([operator, layer, setting], value)
        for operator, layers in policy.items()
        for layer, settings in layers.items()
        for setting, value in settings.items()
    )


def _code(value: Any) -> bytes:
    if isinstance(value, str):
        digest = int.from_bytes(hashlib.sha256(value.encode()).digest()[:7], "big")
        return ((0xFFF8 << 48) | digest >> 5).to_bytes(8, "big")
    try:
        number = float(value)
    except OverflowError:
        number = float("inf") if value > 0 else float("-inf")
    bits = int.from_bytes(struct.pack(">d", number + 0.0), "big")
    return (bits ^ ((1 << 64) - 1 if bits >> 63 else 1 << 63)).to_bytes(8, "big")


# A column that nobody names costs nothing: each metric is a question of its own.
def _column(name: str, what: str, alias: str) -> str:
    return (
        f"(SELECT m.{what} FROM automc_metric m "
        f"WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = '{name}') AS {alias}"
    )


_ROW = f"""
s.name AS study, t.number AS trial, t.state, t.rung, t.reason, t.message, t.attempts, t.twin,
{", ".join(_column(name, "value", name) for name in (*_WITH_ERROR, *_OTHERS))},
{", ".join(_column(name, "error", f"{name}_error") for name in _WITH_ERROR)},
t.samples, t.seconds, t.artifact, t.policy, t.created, t.started, t.finished
"""

_TRIALS = f"""
CREATE VIEW automc_trials AS
SELECT {_ROW} FROM automc_trial t JOIN automc_study s ON s.id = t.study_id
"""

_FRONT = f"""
CREATE VIEW automc_front AS
SELECT {_ROW} FROM automc_front_change c
JOIN automc_trial t ON t.study_id = c.study_id AND t.number = c.number
JOIN automc_study s ON s.id = c.study_id
WHERE c.entered AND NOT EXISTS (
    SELECT 1 FROM automc_front_change d
    WHERE d.study_id = c.study_id AND d.number = c.number AND d.place > c.place
)
"""

_METRICS = """
CREATE VIEW automc_metrics AS
SELECT s.name AS study, m.number AS trial, m.name AS metric, m.value, m.kind, m.error
FROM automc_metric m JOIN automc_study s ON s.id = m.study_id
"""
