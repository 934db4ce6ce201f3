"""The tables of a study's history (attempts, changes of the front, files) and of its network (model, layers).

For people, and for what is asked about the past: the search itself reads none of them.
"""

from __future__ import annotations

import sqlalchemy as sa

from automc.stores.tables import metadata, of_study, of_trial

attempt = sa.Table(
    "automc_attempt",
    metadata,
    sa.Column("study_id", sa.Integer, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("log", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer),
    sa.Column("started", sa.Text),
    sa.Column("finished", sa.Text),
    sa.Column("seconds", sa.Double),
    sa.Column("fence", sa.Integer),
    sa.Column("late", sa.Boolean, nullable=False),
    of_trial(),
    sa.CheckConstraint("state IN ('waiting', 'running', 'complete', 'stopped', 'failed')", name="state"),
    sqlite_with_rowid=False,
)

front_change = sa.Table(
    "automc_front_change",
    metadata,
    sa.Column("study_id", sa.Integer, primary_key=True),
    sa.Column("place", sa.Integer, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("entered", sa.Boolean, nullable=False),
    of_trial(),
    sqlite_with_rowid=False,
)

artifact = sa.Table(
    "automc_artifact",
    metadata,
    sa.Column("study_id", sa.Integer, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("format", sa.Text, nullable=False),
    sa.Column("file", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("proof", sa.Text, nullable=False),
    sa.Column("created", sa.Text, nullable=False),
    of_trial(),
    sqlite_with_rowid=False,
)

model = sa.Table(
    "automc_model",
    metadata,
    of_study(),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("weights", sa.Text),
    sa.Column("input_shape", sa.Text, nullable=False),
    sa.Column("params", sa.BigInteger, nullable=False),
    sa.Column("macs", sa.BigInteger, nullable=False),
)

layer = sa.Table(
    "automc_layer",
    metadata,
    sa.Column("study_id", sa.Integer, sa.ForeignKey("automc_model.study_id"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("in_channels", sa.Integer, nullable=False),
    sa.Column("out_channels", sa.Integer, nullable=False),
    sa.Column("kernel", sa.Text, nullable=False),
    sa.Column("stride", sa.Text, nullable=False),
    sa.Column("out_shape", sa.Text, nullable=False),
    sa.Column("params", sa.BigInteger, nullable=False),
    sa.Column("macs", sa.BigInteger, nullable=False),
    sa.Column("group_name", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)
