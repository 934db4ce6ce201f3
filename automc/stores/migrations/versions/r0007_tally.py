"""Counts of trials, sums of their seconds and columns of all of them are read from indexes that have what they need."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.drop_index("ix_automc_trial_state", "automc_trial")
    columns = ["study_id", "state", "reason", "twin", "samples", "seconds"]
    op.create_index("ix_automc_trial_tally", "automc_trial", columns)
    columns = ["study_id", "place", "twin", "seconds", "state", "rung", "number"]
    op.create_index("ix_automc_trial_spent", "automc_trial", columns)
