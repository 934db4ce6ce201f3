"""Commands that search: from a study file, or on with a study that exists."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from automc.app import options as o
from automc.cli.app import app, connected, shown, talk
from automc.errors import SpecError

if TYPE_CHECKING:
    from automc.app.study import Study


@app.command()
def init(output: o.NewFile = Path("study.yaml"), as_json: o.Json = False) -> None:
    """Write a commented study file to start from."""
    from automc.app.frames import save
    from automc.app.template import TEMPLATE

    save(output, TEMPLATE.encode(), fresh=True)
    shown(as_json, {"written": output}, lambda: f"wrote {output}; next: automc check {output}")


@app.command()
def check(file: o.File, overrides: o.Set = None, as_json: o.Json = False) -> None:
    """Check a study file: layers, space, cost. Writes nothing."""
    _check(file, overrides or [], as_json)


@app.command()
def search(
    file: o.File,
    name: o.StudyName = None,
    trials: o.Trials = None,
    workers: o.Workers = None,
    address: o.Address = None,
    seed: o.Seed = None,
    storage: o.Storage = None,
    overrides: o.Set = None,
    origins: o.From = None,
    dry_run: o.DryRun = False,
    as_json: o.Json = False,
) -> None:
    """Search as a study file says; resumable at any moment.

    Ctrl-C finishes the running trials and ends; a second Ctrl-C quits at once, and what ran waits for a resume.
    """
    from automc.app import runs
    from automc.app.config import read_study

    storage = storage or os.environ.get("AUTOMC_STORAGE")
    budget = {"budget_trials": trials, "workers_count": workers, "workers_address": address}
    changes = o.overrides(overrides, name=name, seed=seed, storage=storage, **budget)
    if dry_run:
        _check(file, changes, as_json, origins)
    else:
        _run(runs.start(read_study(file, changes), origins or ()), as_json)


@app.command()
def resume(
    name: o.Name,
    workers: o.Workers = None,
    address: o.Address = None,
    storage: o.Storage = None,
    server: o.Server = None,
    as_json: o.Json = False,
) -> None:
    """Go on with a study that was stopped, killed or, in another terminal, paused."""
    from automc.app import asking, runs

    if server is not None:
        _of_server({"--workers": workers, "--address": address})
        state = connected(storage, server).open_study(name).resume()
        shown(as_json, {"study": name, "state": state}, lambda: f"study {name} goes on at {server}: {state}")
        return
    storage = o.storage_of(storage)
    if workers is None and address is None and asking.lift(name, storage):
        shown(as_json, {"study": name, "lifted": True}, lambda: f"study {name} goes on where it was paused")
    else:
        _run(runs.resume(name, storage, workers, address), as_json)


@app.command()
def extend(
    name: o.Name,
    trials: o.MoreTrials = None,
    seconds: o.Seconds = None,
    proposer: o.Proposer = None,
    changes: o.Set = None,
    origins: o.From = None,
    backfill: o.Backfill = False,
    workers: o.Workers = None,
    address: o.Address = None,
    storage: o.Storage = None,
    server: o.Server = None,
    as_json: o.Json = False,
) -> None:
    """Go on with more trials or time, another proposer, space or aim.

    Says what of the trials so far is reused, what is excluded and why, and what changed.
    """
    from automc.app import revisions, runs

    if server is not None:
        _of_server({"--set": changes, "--workers": workers, "--address": address})
        more = {"seconds": seconds, "proposer": proposer, "from": origins or [], "backfill": backfill}
        made = connected(storage, server).open_study(name).extend(trials, **more)
        shown(as_json, made, lambda: f"study {name} goes on at {server}; {revisions.told(made['earlier'])}")
        return
    study = runs.extend(
        name,
        trials,
        proposer,
        o.storage_of(storage),
        workers,
        address=address,
        seconds=seconds,
        changes=changes or (),
        warm_start=origins or (),
        backfill=backfill,
    )
    _run(study, as_json)


def _of_server(given: Mapping[str, object]) -> None:
    """Raises SpecError where an option was given that only goes with a database."""
    if wrong := [option for option, value in given.items() if value]:
        raise SpecError(f"{wrong[0]} and --server: it goes with a database; leave it out, or send it by automc.connect")


def _check(file: Path, changes: list[str], as_json: bool, origins: list[str] | None = None) -> None:
    from automc.app import report, runs
    from automc.app.config import read_study

    checked = runs.check(read_study(file, changes), origins or ())
    shown(as_json, report.check_data(checked), lambda: report.check_text(checked))


def _run(study: Study, as_json: bool) -> None:
    """Search with a live view on stderr, then print the study; an unfinished one says how to go on."""
    import shlex

    from automc.app import live, report
    from automc.app.board import Board
    from automc.core.search import Ending

    board = Board(study.spec, study.baseline, study.counted())
    if board.done >= board.total:
        more = shlex.join(["automc", "extend", study.name, "--trials", f"+{board.total}", "--storage", study.storage])
        talk(f"study {study.name} has all its {board.total} trials; for more: {more}")
    with live.watch(board, study.layers, sys.stderr) as listener:
        ending = study.run(listener)
    shown(as_json, study.summary(), lambda: report.study_text(study))
    if ending is not Ending.DONE:
        again = shlex.join(["automc", "resume", study.name, "--storage", study.storage])
        talk(f"{ending.value} after {board.done} of {board.total} trials; go on with: {again}")
    if ending is Ending.INTERRUPTED:
        raise typer.Exit(130)
