"""Counts of trials and sums of their seconds are read from indexes that have all they need."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.drop_index("ix_automc_trial_state", "automc_trial")
    columns = ["study_id", "state", "reason", "twin", "samples", "seconds"]
    op.create_index("ix_automc_trial_tally", "automc_trial", columns)
    op.create_index("ix_automc_trial_spent", "automc_trial", ["study_id", "place", "twin", "seconds"])
