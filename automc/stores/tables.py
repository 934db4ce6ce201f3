"""The tables of the trial database, as SQLAlchemy Core knows them.

Migrations build them (``migrations/versions``); a test holds the two together. Those of a study's history and of its
network are in ``more_tables``, those of the service in ``service_tables``. Every name begins with
``automc_``, because the database may be shared with another tool. Times are UTC text in ISO 8601. A number
that may be NaN or infinite is a pair: ``value`` (NULL unless finite) and ``kind`` (finite, nan, +inf, -inf); a
metric's standard error likewise, both NULL where it has none.

A trial's ``place`` is its position in the order of finishing, from 1: the places of ``automc_front_change``. A shape
is a JSON list.

A study that was ``deleted`` (when) is there for nobody until that is taken back.

A trial's ``decisions`` are the values of its policy, packed (decisions.py) in the order of the sites (a JSON list of
operator, layer and setting) of its ``layout``; layout 0 has none.

People who write SQL find views beside the tables: ``automc_trials`` (a row a trial, metrics as columns),
``automc_trial_layers`` (a row for each study, trial, operator, layer, setting), ``automc_front`` (the rows of
``automc_trials`` that are on the front) and ``automc_metrics`` (a row for each study, trial, metric).
"""

from __future__ import annotations

import sqlalchemy as sa

HEAD = "0007"
"""The revision these tables describe."""

VERSION_TABLE = "automc_version"

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

KINDS = ("finite", "nan", "+inf", "-inf")


def _number_checks() -> tuple[sa.CheckConstraint, sa.CheckConstraint]:
    kinds = "kind IN ('finite', 'nan', '+inf', '-inf')"
    return (
        sa.CheckConstraint(kinds, name="kind"),
        sa.CheckConstraint("(kind = 'finite') = (value IS NOT NULL)", name="value"),
    )


def _error_checks() -> tuple[sa.CheckConstraint, sa.CheckConstraint]:
    return (
        sa.CheckConstraint("error_kind IN ('finite', 'nan', '+inf', '-inf')", name="error_kind"),
        sa.CheckConstraint("(coalesce(error_kind, '') = 'finite') = (error IS NOT NULL)", name="error"),
    )


def of_study() -> sa.Column[int]:
    return sa.Column("study_id", sa.Integer, sa.ForeignKey("automc_study.id"), primary_key=True)


def of_trial() -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["study_id", "number"], ["automc_trial.study_id", "automc_trial.number"])


study = sa.Table(
    "automc_study",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("facts", sa.Text, nullable=False),
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("deleted", sa.Text),
)

revision = sa.Table(
    "automc_revision",
    metadata,
    of_study(),
    sa.Column("revision", sa.Integer, primary_key=True),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("created", sa.Text, nullable=False),
)

policy = sa.Table(
    "automc_policy",
    metadata,
    sa.Column("fingerprint", sa.String(64), primary_key=True),
    sa.Column("json", sa.Text, nullable=False),
)

trial = sa.Table(
    "automc_trial",
    metadata,
    of_study(),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("policy", sa.String(64), sa.ForeignKey("automc_policy.fingerprint"), nullable=False),
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
    sa.Column("samples", sa.Integer, nullable=False, server_default="0"),
    sa.Column("place", sa.Integer),
    sa.Column("layout", sa.Integer, nullable=False, server_default="0"),
    sa.Column("decisions", sa.LargeBinary),
    sa.CheckConstraint("state IN ('waiting', 'running', 'complete', 'stopped', 'failed')", name="state"),
    sa.Index("ix_automc_trial_tally", "study_id", "state", "reason", "twin", "samples", "seconds"),
    sa.Index("ix_automc_trial_spent", "study_id", "place", "twin", "seconds", "state", "rung", "number"),
    sa.Index("ix_automc_trial_policy", "policy"),
    sa.Index("ix_automc_trial_place", "study_id", "place", unique=True),
)

layout = sa.Table(
    "automc_layout",
    metadata,
    of_study(),
    sa.Column("layout", sa.Integer, primary_key=True),
    sa.Column("sites", sa.Text, nullable=False),
)

metric = sa.Table(
    "automc_metric",
    metadata,
    sa.Column("study_id", sa.Integer, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Double),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("error", sa.Double),
    sa.Column("error_kind", sa.Text),
    of_trial(),
    *_number_checks(),
    *_error_checks(),
    sa.Index("ix_automc_metric_value", "study_id", "name", "kind", "value", "number"),
    sqlite_with_rowid=False,
)

metric_point = sa.Table(
    "automc_metric_point",
    metadata,
    sa.Column("study_id", sa.Integer, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("step", sa.BigInteger, primary_key=True),
    sa.Column("value", sa.Double),
    sa.Column("kind", sa.Text, nullable=False),
    of_trial(),
    *_number_checks(),
    sqlite_with_rowid=False,
)

layer_latency = sa.Table(
    "automc_layer_latency",
    metadata,
    sa.Column("device", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("milliseconds", sa.Double, nullable=False),
    sa.Column("rounds", sa.Integer, nullable=False),
    sa.CheckConstraint("milliseconds >= 0", name="milliseconds"),
    sqlite_with_rowid=False,
)

agent_state = sa.Table(
    "automc_agent_state",
    metadata,
    of_study(),
    sa.Column("revision", sa.Integer, primary_key=True),
    sa.Column("told", sa.Integer, nullable=False),
    sa.Column("state", sa.LargeBinary, nullable=False),
    sa.Column("kept", sa.Text, nullable=False),
    sa.CheckConstraint("told >= 0", name="told"),
)

lease = sa.Table(
    "automc_lease",
    metadata,
    of_study(),
    sa.Column("fence", sa.Integer, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("machine", sa.Text, nullable=False),
    sa.Column("born", sa.Text, nullable=False),
    sa.Column("token", sa.Text),
    sa.Column("renewed", sa.Double, nullable=False),
    sa.Column("control", sa.Text, nullable=False, server_default="go"),
    sa.CheckConstraint("control IN ('go', 'pause', 'stop', 'cancel')", name="control"),
)

event = sa.Table(
    "automc_event",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("study_id", sa.Integer, sa.ForeignKey("automc_study.id"), nullable=False),
    sa.Column("number", sa.Integer),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Index("ix_automc_event_study", "study_id", "id"),
    sqlite_autoincrement=True,
)
