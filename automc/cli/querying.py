"""Commands that ask the trial database: lists of trials, and SQL."""

from __future__ import annotations

import shlex

from automc.app import options as o
from automc.cli.app import app, connected, opened_at, shown, talk


@app.command()
def trials(
    name: o.Name,
    where: o.Where = None,
    columns: o.Columns = "",
    sort: o.Sort = "",
    limit: o.Limit = None,
    after: o.After = "",
    form: o.Form = o.Format.TABLE,
    output: o.Output = None,
    storage: o.Storage = None,
    server: o.Server = None,
    as_json: o.Json = False,
) -> None:
    """List trials; filter, sort, page, write JSON, CSV or Parquet."""
    from automc.app import frames, listing, report

    study = opened_at(name, storage, server)
    wanted = listing.names(columns)
    frame = study.trials(where, listing.names(sort), limit, wanted, after)
    cursor = frame.attrs[listing.AFTER]
    if as_json:
        shown(True, {"trials": frame, "after": cursor or None}, str)
    else:
        fitting = wanted or report.trial_columns(study.spec, list(frame.columns), f"{where or ''} {sort}")
        frames.write(frame, form.value, fitting, output)
    if cursor:
        talk(f"more trials follow; the next page: the same command with --after {shlex.quote(cursor)}")


@app.command()
def query(
    sql: o.Sql,
    rows: o.Rows = 10_000,
    seconds: o.Within = 10.0,
    form: o.Form = o.Format.TABLE,
    output: o.Output = None,
    storage: o.Storage = None,
    server: o.Server = None,
    as_json: o.Json = False,
) -> None:
    """Ask in SQL; it can read only.

    Views: trials, front (a row a trial, metrics as columns), trial_layers (a row a decision), metrics (a row a metric).
    """
    from automc.app import frames, listing

    if server is None:
        frame = listing.ask(sql, o.storage_of(storage), rows, seconds)
    else:
        frame = connected(storage, server).query(sql, rows, seconds)
    more = frame.attrs[listing.MORE]
    if as_json:
        shown(True, {"rows": frame, "more": more}, str)
    else:
        frames.write(frame, form.value, list(frame.columns), output, "no rows")
    if more:
        talk(f"cut after {rows:,} rows; there are more (--rows)")
