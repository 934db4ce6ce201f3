"""Commands that read the trial database."""

from __future__ import annotations

from automc.app import options as o
from automc.cli.app import app, connected, opened_at, shown, talk


@app.command()
def studies(storage: o.Storage = None, server: o.Server = None, as_json: o.Json = False) -> None:
    """List the studies of a database."""
    from automc.app import frames, runs

    frame = runs.studies(o.storage_of(storage)) if server is None else connected(storage, server).studies()
    shown(as_json, frame, lambda: frames.frame_text(frame, list(frame.columns)) if len(frame) else "no studies yet")


@app.command()
def show(name: o.Name, storage: o.Storage = None, server: o.Server = None, as_json: o.Json = False) -> None:
    """Show a study: counts, failures, best values, front."""
    from automc.app import report

    study = opened_at(name, storage, server)
    shown(as_json, study.summary(), lambda: report.study_text(study))


@app.command()
def trial(ref: o.Ref, storage: o.Storage = None, server: o.Server = None, as_json: o.Json = False) -> None:
    """Show a trial: metrics, and its policy by layer."""
    from automc.app import report

    name, number = o.split_ref(ref)
    study = opened_at(name, storage, server)
    found = study.trial(number)
    shown(as_json, report.trial_data(found), lambda: report.trial_text(found, study.layers, study.baseline))


@app.command()
def pareto(
    name: o.Name,
    x: o.X = None,
    y: o.Y = None,
    pick: o.Pick = None,
    at: o.At = None,
    plot: o.Plot = None,
    storage: o.Storage = None,
    server: o.Server = None,
    as_json: o.Json = False,
) -> None:
    """Show the front: what no other trial beats."""
    from automc.app import charts, frames, report

    study = opened_at(name, storage, server)
    frame = study.pareto(pick, at)
    axes = charts.pick_axes(study.spec, x, y)
    remote = None if server is None else connected(storage, server).open_study(name)
    chart = remote.chart(*axes) if remote else charts.of(study, axes, at)
    if plot:
        frames.save(plot, charts.png(chart))
        talk(f"wrote {plot}")
    columns = report.trial_columns(study.spec, list(frame.columns), " ".join(axes))
    shown(as_json, frame, lambda: report.front_text(frame, columns, chart))
