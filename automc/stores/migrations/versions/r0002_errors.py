"""Standard errors and sample counts of metrics; latencies of single layers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

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


def upgrade() -> None:
    op.execute("DROP VIEW automc_trials")
    op.add_column("automc_trial", sa.Column("samples", sa.Integer, nullable=False, server_default="0"))
    op.add_column("automc_metric", sa.Column("error", sa.Double))
    op.execute(_ERROR_KIND)
    op.create_table(
        "automc_layer_latency",
        sa.Column("device", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("milliseconds", sa.Double, nullable=False),
        sa.Column("rounds", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("device", "key", name="pk_automc_layer_latency"),
        sa.CheckConstraint("milliseconds >= 0", name=op.f("ck_automc_layer_latency_milliseconds")),
        sqlite_with_rowid=False,
    )
    op.execute(_TRIALS)


# With its checks in place: SQLite cannot add a check to a table that exists, but a column that brings its own.
_ERROR_KIND = """
ALTER TABLE automc_metric ADD COLUMN error_kind TEXT
CONSTRAINT ck_automc_metric_error_kind CHECK (error_kind IN ('finite', 'nan', '+inf', '-inf'))
CONSTRAINT ck_automc_metric_error CHECK ((coalesce(error_kind, '') = 'finite') = (error IS NOT NULL))
"""


def _column(name: str, what: str, alias: str) -> str:
    return f"MAX(CASE WHEN m.name = '{name}' THEN m.{what} END) AS {alias}"


_TRIALS = f"""
CREATE VIEW automc_trials AS
SELECT s.name AS study, t.number AS trial, t.state, t.rung, t.reason, t.message, t.attempts, t.twin,
       {", ".join(_column(name, "value", name) for name in (*_WITH_ERROR, *_OTHERS))},
       {", ".join(_column(name, "error", f"{name}_error") for name in _WITH_ERROR)},
       t.samples, t.seconds, t.artifact, t.policy, t.created, t.started, t.finished
FROM automc_trial t
JOIN automc_study s ON s.id = t.study_id
LEFT JOIN automc_metric m ON m.study_id = t.study_id AND m.number = t.number
GROUP BY s.id, t.study_id, t.number
"""
