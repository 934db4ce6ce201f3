"""Attempts, the order of finishing, changes of the front, exported files, model and layers; control words."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from automc.stores.migrations.r0004_fill import fill

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("automc_trial", sa.Column("place", sa.Integer))
    op.execute(_PLACES)
    op.create_index("ix_automc_trial_place", "automc_trial", ["study_id", "place"], unique=True)
    op.drop_column("automc_lease", "stop_asked")
    op.execute(_CONTROL)
    _points()
    _attempts()
    _front_and_files()
    _network()
    fill(op.get_bind())


# With its check in place: SQLite cannot add a check to a table that exists, but a column that brings its own.
_CONTROL = """
ALTER TABLE automc_lease ADD COLUMN control TEXT DEFAULT 'go' NOT NULL
CONSTRAINT ck_automc_lease_control CHECK (control IN ('go', 'pause', 'stop', 'cancel'))
"""

_PLACES = """
UPDATE automc_trial SET place = o.place FROM (
    SELECT study_id, number, row_number() OVER (PARTITION BY study_id ORDER BY finished, number) AS place
    FROM automc_trial WHERE finished IS NOT NULL
) AS o
WHERE o.study_id = automc_trial.study_id AND o.number = automc_trial.number
"""


def _of_trial(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["study_id", "number"], ["automc_trial.study_id", "automc_trial.number"], name=f"fk_{table}_study_id"
    )


def _points() -> None:
    """A copy instead of a rename, so that the constraints have the table's name."""
    op.create_table(
        "automc_metric_point",
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("step", sa.BigInteger, nullable=False),
        sa.Column("value", sa.Double),
        sa.Column("kind", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("study_id", "number", "attempt", "step", name="pk_automc_metric_point"),
        _of_trial("automc_metric_point"),
        sa.CheckConstraint("kind IN ('finite', 'nan', '+inf', '-inf')", name=op.f("ck_automc_metric_point_kind")),
        sa.CheckConstraint("(kind = 'finite') = (value IS NOT NULL)", name=op.f("ck_automc_metric_point_value")),
        sqlite_with_rowid=False,
    )
    op.execute(
        "INSERT INTO automc_metric_point (study_id, number, attempt, step, value, kind) "
        "SELECT study_id, number, attempt, step, value, kind FROM automc_point"
    )
    op.drop_table("automc_point")


def _attempts() -> None:
    op.create_table(
        "automc_attempt",
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("state", "reason", "message", "log", "host")),
        sa.Column("pid", sa.Integer),
        sa.Column("started", sa.Text),
        sa.Column("finished", sa.Text),
        sa.Column("seconds", sa.Double),
        sa.Column("fence", sa.Integer),
        sa.Column("late", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("study_id", "number", "attempt", name="pk_automc_attempt"),
        _of_trial("automc_attempt"),
        sa.CheckConstraint(
            "state IN ('waiting', 'running', 'complete', 'stopped', 'failed')", name=op.f("ck_automc_attempt_state")
        ),
        sqlite_with_rowid=False,
    )


def _front_and_files() -> None:
    op.create_table(
        "automc_front_change",
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("study_id", "place", "number")),
        sa.Column("entered", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("study_id", "place", "number", name="pk_automc_front_change"),
        _of_trial("automc_front_change"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "automc_artifact",
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("format", sa.Text, nullable=False),
        sa.Column("file", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("proof", sa.Text, nullable=False),
        sa.Column("created", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("study_id", "number", "sha256", name="pk_automc_artifact"),
        _of_trial("automc_artifact"),
        sqlite_with_rowid=False,
    )


def _network() -> None:
    op.create_table(
        "automc_model",
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("weights", sa.Text),
        sa.Column("input_shape", sa.Text, nullable=False),
        sa.Column("params", sa.BigInteger, nullable=False),
        sa.Column("macs", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("study_id", name="pk_automc_model"),
        sa.ForeignKeyConstraint(["study_id"], ["automc_study.id"], name="fk_automc_model_study_id"),
    )
    op.create_table(
        "automc_layer",
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("name", "kind")),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("in_channels", "out_channels")),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("kernel", "stride", "out_shape")),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("params", "macs")),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("group_name", "reason")),
        sa.PrimaryKeyConstraint("study_id", "position", name="pk_automc_layer"),
        sa.ForeignKeyConstraint(["study_id"], ["automc_model.study_id"], name="fk_automc_layer_study_id"),
        sqlite_with_rowid=False,
    )
