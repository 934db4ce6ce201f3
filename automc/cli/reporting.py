"""Commands that say what a study found: two trials compared, what mattered, a report, the live view."""

from __future__ import annotations

import shlex
import sys

from automc.app import options as o
from automc.cli.app import app, connected, opened, opened_at, shown, talk


@app.command()
def compare(
    first: o.Ref,
    second: o.OtherRef,
    everything: o.All = False,
    storage: o.Storage = None,
    server: o.Server = None,
    as_json: o.Json = False,
) -> None:
    """Compare two trials: metrics, and policies by layer."""
    from automc.app import comparing

    refs = [o.split_ref(ref) for ref in (first, second)]
    studies = {name: opened_at(name, storage, server) for name, _ in refs}
    trials = [(studies[name], studies[name].trial(number)) for name, number in refs]
    found = comparing.compare(trials[0], trials[1])
    data = comparing.comparison_data(found, everything)
    shown(as_json, data, lambda: comparing.comparison_text(found, everything))


@app.command()
def importance(
    name: o.Name,
    metric: o.Metric = None,
    limit: o.Limit = None,
    storage: o.Storage = None,
    server: o.Server = None,
    as_json: o.Json = False,
) -> None:
    """Show which decisions mattered for a metric."""
    from automc.app import importance as mattered

    if server is None:
        study = opened(name, storage)
        found = mattered.mattered(study, metric or study.spec.objectives[0].metric)
    else:
        found = mattered.importance_of(connected(storage, server).open_study(name).importance(metric))
    shown(as_json, mattered.importance_data(found), lambda: mattered.importance_text(found, limit or 20))


@app.command()
def report(
    name: o.Name,
    output: o.Output = None,
    form: o.ReportForm = None,
    pick: o.Pick = None,
    storage: o.Storage = None,
    as_json: o.Json = False,
) -> None:
    """Write a study as one file: HTML that needs nothing else, or Markdown."""
    from automc.app.frames import save
    from automc.app.reporting import report as reports
    from automc.app.reporting.found import find

    chosen = form or (o.ReportFormat.MARKDOWN if str(output).endswith(".md") else o.ReportFormat.HTML)
    document = reports.document(find(opened(name, storage), pick or "knee"))
    if output is None:
        shown(as_json, document, lambda: reports.WRITERS[chosen.value](document).rstrip("\n"))
        return
    save(output, reports.WRITERS[chosen.value](document).encode())
    shown(as_json, {"study": name, "written": output}, lambda: f"wrote {output}")


@app.command()
def watch(name: o.Name, storage: o.Storage = None, as_json: o.Json = False) -> None:
    """Watch a running search from any terminal; Ctrl-C leaves the search alone."""
    from automc.app import report as texts
    from automc.app import watching

    study = opened(name, storage)
    driver = study.store.driver(name)
    if driver is not None:
        talk(f"study {name} is searched by pid {driver.pid} on host {driver.host}; Ctrl-C leaves it alone")
    try:
        board = watching.watch(study, sys.stderr if as_json else sys.stdout)
    except KeyboardInterrupt:
        talk(f"left; the search of {name} goes on")
        return
    shown(as_json, study.summary(), lambda: texts.study_text(study))
    done = f"{board.done} of {board.total} trials are done"
    again = shlex.join(["automc", "resume", name, "--storage", study.storage])
    talk(f"nobody searches study {name}; {done}" + (f"; go on with: {again}" if board.done < board.total else ""))
