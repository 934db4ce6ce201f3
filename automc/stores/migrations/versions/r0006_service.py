"""The service: tokens, audit, requests that may be repeated, drivers to keep running, enqueued policies, exports."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("automc_study", sa.Column("deleted", sa.Text))
    _tokens()
    _studies()


def _tokens() -> None:
    op.create_table(
        "automc_token",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("created", sa.Text, nullable=False),
        sa.Column("expires", sa.Text),
        sa.Column("revoked", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_automc_token"),
        sa.UniqueConstraint("sha256", name="uq_automc_token_sha256"),
        sa.CheckConstraint("scope IN ('read', 'write', 'admin')", name=op.f("ck_automc_token_scope")),
    )
    op.create_table(
        "automc_audit",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=True),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("token", sa.String(16), nullable=False),
        sa.Column("client", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_automc_audit"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "automc_request",
        sa.Column("token", sa.String(16), nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("created", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("token", "key", name="pk_automc_request"),
        _of_study("automc_request"),
    )


def _studies() -> None:
    op.create_table(
        "automc_care",
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("note", sa.Text, nullable=False, server_default=""),
        sa.Column("edition", sa.Integer, nullable=False, server_default="0"),
        sa.Column("wanted", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("fence", sa.Integer, nullable=False, server_default="0"),
        sa.Column("starts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("said", sa.Text, nullable=False, server_default=""),
        sa.PrimaryKeyConstraint("study_id", name="pk_automc_care"),
        _of_study("automc_care"),
    )
    op.create_table(
        "automc_wish",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=True),
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("policy", sa.Text, nullable=False),
        sa.Column("rung", sa.Integer, nullable=False),
        sa.Column("created", sa.Text, nullable=False),
        sa.Column("number", sa.Integer),
        sa.PrimaryKeyConstraint("id", name="pk_automc_wish"),
        _of_study("automc_wish"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_automc_wish_study", "automc_wish", ["study_id", "number"])
    op.create_table(
        "automc_operation",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("formats", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("result", sa.Text, nullable=False, server_default=""),
        sa.Column("said", sa.Text, nullable=False, server_default=""),
        sa.Column("created", sa.Text, nullable=False),
        sa.Column("finished", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_automc_operation"),
        _of_study("automc_operation"),
        sa.CheckConstraint("state IN ('queued', 'running', 'done', 'failed')", name=op.f("ck_automc_operation_state")),
    )
    op.create_index("ix_automc_operation_state", "automc_operation", ["state"])


def _of_study(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["study_id"], ["automc_study.id"], name=f"fk_{table}_study_id")
