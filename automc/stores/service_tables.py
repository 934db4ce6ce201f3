"""The tables of the service: tokens and what they did, drivers to keep running, enqueued policies, exports.

None of them travels with a study. A search reads only ``automc_wish``.
"""

from __future__ import annotations

import sqlalchemy as sa

from automc.stores.tables import metadata, of_study

STAYS = {"stays": True}
"""In ``info`` of a table that is of this database and of no study that leaves it."""

token = sa.Table(
    "automc_token",
    metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("sha256", sa.String(64), nullable=False, unique=True),
    sa.Column("scope", sa.Text, nullable=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("expires", sa.Text),
    sa.Column("revoked", sa.Text),
    sa.CheckConstraint("scope IN ('read', 'write', 'admin')", name="scope"),
    info=STAYS,
)

audit = sa.Table(
    "automc_audit",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("token", sa.String(16), nullable=False),
    sa.Column("client", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sqlite_autoincrement=True,
    info=STAYS,
)

request = sa.Table(
    "automc_request",
    metadata,
    sa.Column("token", sa.String(16), primary_key=True),
    sa.Column("key", sa.String(200), primary_key=True),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("study_id", sa.Integer, sa.ForeignKey("automc_study.id"), nullable=False),
    sa.Column("created", sa.Text, nullable=False),
    info=STAYS,
)

care = sa.Table(
    "automc_care",
    metadata,
    of_study(),
    sa.Column("note", sa.Text, nullable=False, server_default=""),
    sa.Column("edition", sa.Integer, nullable=False, server_default="0"),
    sa.Column("wanted", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("fence", sa.Integer, nullable=False, server_default="0"),
    sa.Column("starts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("said", sa.Text, nullable=False, server_default=""),
    info=STAYS,
)

wish = sa.Table(
    "automc_wish",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("study_id", sa.Integer, sa.ForeignKey("automc_study.id"), nullable=False),
    sa.Column("policy", sa.Text, nullable=False),
    sa.Column("rung", sa.Integer, nullable=False),
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("number", sa.Integer),
    sa.Index("ix_automc_wish_study", "study_id", "number"),
    sqlite_autoincrement=True,
    info=STAYS,
)

operation = sa.Table(
    "automc_operation",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("study_id", sa.Integer, sa.ForeignKey("automc_study.id"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("formats", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("result", sa.Text, nullable=False, server_default=""),
    sa.Column("said", sa.Text, nullable=False, server_default=""),
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("finished", sa.Text),
    sa.CheckConstraint("state IN ('queued', 'running', 'done', 'failed')", name="state"),
    sa.Index("ix_automc_operation_state", "state"),
    info=STAYS,
)
