"""Memories of proposers: one a study and revision."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "automc_agent_state",
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("told", sa.Integer, nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
        sa.Column("kept", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("study_id", "revision", name="pk_automc_agent_state"),
        sa.ForeignKeyConstraint(["study_id"], ["automc_study.id"], name="fk_automc_agent_state_study_id"),
        sa.CheckConstraint("told >= 0", name=op.f("ck_automc_agent_state_told")),
    )
