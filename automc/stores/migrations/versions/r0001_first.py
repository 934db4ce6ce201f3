"""The first schema: studies, policies, trials, metrics, reports, leases, events, and two views."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# Written out, not taken from METRICS: a revision must build the same schema for ever.
_METRICS = (
    "top1", "loss", "agreement", "params", "macs", "bops", "size_bytes", "latency_ms",
    "params_ratio", "macs_ratio", "bops_ratio", "size_ratio", "latency_ratio",
)  # fmt: skip


def upgrade() -> None:
    _studies()
    _trials()
    _numbers("automc_metric", sa.Column("name", sa.Text, nullable=False))
    _numbers(
        "automc_point",
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("step", sa.BigInteger, nullable=False),
    )
    _leases_and_events()
    op.execute(_TRIALS)
    op.execute(_LAYERS[op.get_bind().dialect.name])


def _of_study(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["study_id"], ["automc_study.id"], name=f"fk_{table}_study_id")


def _studies() -> None:
    op.create_table(
        "automc_study",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("facts", sa.Text, nullable=False),
        sa.Column("created", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_automc_study"),
        sa.UniqueConstraint("name", name="uq_automc_study_name"),
    )
    op.create_table(
        "automc_revision",
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("created", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("study_id", "revision", name="pk_automc_revision"),
        _of_study("automc_revision"),
    )


def _trials() -> None:
    op.create_table(
        "automc_policy",
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("json", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name="pk_automc_policy"),
    )
    op.create_table(
        "automc_trial",
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("policy", sa.String(64), nullable=False),
        sa.Column("memo", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("rung", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("twin", sa.Integer),
        sa.Column("realized", sa.Text),
        sa.Column("artifact", sa.String(64)),
        sa.Column("seconds", sa.Double),
        sa.Column("created", sa.Text, nullable=False),
        sa.Column("started", sa.Text),
        sa.Column("finished", sa.Text),
        sa.PrimaryKeyConstraint("study_id", "number", name="pk_automc_trial"),
        _of_study("automc_trial"),
        sa.ForeignKeyConstraint(["policy"], ["automc_policy.fingerprint"], name="fk_automc_trial_policy"),
        sa.CheckConstraint(
            "state IN ('waiting', 'running', 'complete', 'stopped', 'failed')", name=op.f("ck_automc_trial_state")
        ),
    )
    op.create_index("ix_automc_trial_state", "automc_trial", ["study_id", "state"])
    op.create_index("ix_automc_trial_policy", "automc_trial", ["policy"])


def _numbers(table: str, *keys: sa.Column[int] | sa.Column[str]) -> None:
    op.create_table(
        table,
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        *keys,
        sa.Column("value", sa.Double),
        sa.Column("kind", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("study_id", "number", *(key.name for key in keys), name=f"pk_{table}"),
        sa.ForeignKeyConstraint(
            ["study_id", "number"], ["automc_trial.study_id", "automc_trial.number"], name=f"fk_{table}_study_id"
        ),
        sa.CheckConstraint("kind IN ('finite', 'nan', '+inf', '-inf')", name=op.f(f"ck_{table}_kind")),
        sa.CheckConstraint("(kind = 'finite') = (value IS NOT NULL)", name=op.f(f"ck_{table}_value")),
        sqlite_with_rowid=False,
    )


def _leases_and_events() -> None:
    op.create_table(
        "automc_lease",
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("fence", sa.Integer, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("machine", sa.Text, nullable=False),
        sa.Column("born", sa.Text, nullable=False),
        sa.Column("token", sa.Text),
        sa.Column("renewed", sa.Double, nullable=False),
        sa.Column("stop_asked", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("study_id", name="pk_automc_lease"),
        _of_study("automc_lease"),
    )
    op.create_table(
        "automc_event",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        _of_study("automc_event"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_automc_event_study", "automc_event", ["study_id", "id"])


_TRIALS = f"""
CREATE VIEW automc_trials AS
SELECT s.name AS study, t.number AS trial, t.state, t.rung, t.reason, t.message, t.attempts, t.twin,
       {", ".join(f"MAX(CASE WHEN m.name = '{name}' THEN m.value END) AS {name}" for name in _METRICS)},
       t.seconds, t.artifact, t.policy, t.created, t.started, t.finished
FROM automc_trial t
JOIN automc_study s ON s.id = t.study_id
LEFT JOIN automc_metric m ON m.study_id = t.study_id AND m.number = t.number
GROUP BY s.id, t.study_id, t.number
"""

# A policy is {operator: {layer: {setting: value}}}. PostgreSQL gives the value as text: cast it as you need.
_LAYERS = {
    "sqlite": """
CREATE VIEW automc_trial_layers AS
SELECT s.name AS study, t.number AS trial, o.key AS operator, l.key AS layer, v.key AS setting, v.value AS value
FROM automc_trial t
JOIN automc_study s ON s.id = t.study_id
JOIN automc_policy p ON p.fingerprint = t.policy
JOIN json_each(p.json) o
JOIN json_each(o.value) l
JOIN json_each(l.value) v
""",
    "postgresql": """
CREATE VIEW automc_trial_layers AS
SELECT s.name AS study, t.number AS trial, o.key AS operator, l.key AS layer, v.key AS setting, v.value AS value
FROM automc_trial t
JOIN automc_study s ON s.id = t.study_id
JOIN automc_policy p ON p.fingerprint = t.policy
CROSS JOIN LATERAL jsonb_each(p.json::jsonb) o
CROSS JOIN LATERAL jsonb_each(o.value) l
CROSS JOIN LATERAL jsonb_each_text(l.value) v
""",
}
