"""The command line: a thin skin over the Python API. Every error of automc ends here, as one line and a status."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from automc.app import options as o
from automc.errors import AutomcError

if TYPE_CHECKING:
    from automc.app.study import Study

HELP = """Search how much to compress every layer of a trained PyTorch model: channels, bits and distillation, jointly.

A study (one search) lives in a database: what was measured is kept, and it can be resumed and extended at any time."""

EPILOG = """\b
Exit codes
  0    done
  1    automc failed in a way of its own
  2    a study file, option or filter breaks a rule
  3    a model or a data set cannot be used
  4    a policy cannot be applied or measured
  5    the trial database cannot be used, or has no such study or trial
  6    the worker pool cannot be started
  7    an exported file is not what was promised
  70   a bug in automc (AUTOMC_DEBUG=1 shows the traceback)
  130  interrupted; the study can be resumed
  141  nobody reads the output any more"""

app = typer.Typer(
    name="automc",
    help=HELP,
    epilog=EPILOG,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        import automc

        print(f"automc {automc.__version__}")
        raise typer.Exit()


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def init(output: o.NewFile = Path("study.yaml"), as_json: o.Json = False) -> None:
    """Write a commented study file to start from."""
    from automc.app.frames import save
    from automc.app.template import TEMPLATE

    save(output, TEMPLATE.encode(), fresh=True)
    _show(as_json, {"written": output}, lambda: f"wrote {output}; next: automc check {output}")


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
    budget = {"budget_trials": trials, "workers_count": workers}
    changes = o.overrides(overrides, name=name, seed=seed, storage=storage, **budget)
    if dry_run:
        _check(file, changes, as_json, origins)
    else:
        _run(runs.start(read_study(file, changes), origins or ()), as_json)


@app.command()
def resume(name: o.Name, workers: o.Workers = None, storage: o.Storage = None, as_json: o.Json = False) -> None:
    """Go on with a study that was stopped or killed."""
    from automc.app import runs

    _run(runs.resume(name, o.storage_of(storage), workers=workers), as_json)


@app.command()
def extend(
    name: o.Name,
    trials: o.MoreTrials,
    proposer: o.Proposer = None,
    changes: o.SetProposer = None,
    origins: o.From = None,
    workers: o.Workers = None,
    storage: o.Storage = None,
    as_json: o.Json = False,
) -> None:
    """Add trials to a study, also with another proposer."""
    from automc.app import runs

    more = {"changes": changes or (), "warm_start": origins or ()}
    _run(runs.extend(name, trials, proposer, o.storage_of(storage), workers, **more), as_json)


@app.command()
def stop(name: o.Name, storage: o.Storage = None, as_json: o.Json = False) -> None:
    """Ask a running search to finish its trials and end."""
    from automc.app import runs

    asked = runs.stop(name, o.storage_of(storage))
    said = "was asked to finish its running trials and end" if asked else "is not being searched; nothing to stop"
    _show(as_json, {"study": name, "asked": asked}, lambda: f"study {name} {said}")


@app.command()
def studies(storage: o.Storage = None, as_json: o.Json = False) -> None:
    """List the studies of a database."""
    from automc.app import frames, runs

    frame = runs.studies(o.storage_of(storage))
    _show(as_json, frame, lambda: frames.frame_text(frame, list(frame.columns)) if len(frame) else "no studies yet")


@app.command()
def show(name: o.Name, storage: o.Storage = None, as_json: o.Json = False) -> None:
    """Show a study: counts, failures, best values, front."""
    from automc.app import report

    study = _open(name, storage)
    _show(as_json, study.summary(), lambda: report.study_text(study))


@app.command()
def trials(
    name: o.Name,
    where: o.Where = None,
    sort: o.Sort = "",
    limit: o.Limit = None,
    form: o.Form = o.Format.TABLE,
    output: o.Output = None,
    storage: o.Storage = None,
    as_json: o.Json = False,
) -> None:
    """List trials; filter, sort, write JSON, CSV or Parquet."""
    from automc.app import frames, report

    study = _open(name, storage)
    frame = study.trials(where=where, sort=[key for key in sort.split(",") if key], limit=limit)
    columns = report.trial_columns(study.spec, list(frame.columns), f"{where or ''} {sort}")
    frames.write(frame, "json" if as_json else form.value, columns, output)


@app.command()
def trial(ref: o.Ref, storage: o.Storage = None, as_json: o.Json = False) -> None:
    """Show a trial: metrics, and its policy by layer."""
    from automc.app import report

    name, number = o.split_ref(ref)
    study = _open(name, storage)
    found = study.trial(number)
    _show(as_json, report.trial_data(found), lambda: report.trial_text(found, study.layers, study.baseline))


@app.command()
def pareto(
    name: o.Name,
    x: o.X = None,
    y: o.Y = None,
    pick: o.Pick = None,
    plot: o.Plot = None,
    storage: o.Storage = None,
    as_json: o.Json = False,
) -> None:
    """Show the front: what no other trial beats."""
    from automc.app import charts, frames, report

    study = _open(name, storage)
    frame = study.pareto(pick=pick)
    axes = charts.pick_axes(study.spec, x, y)
    chart = charts.chart(study.spec, study.records(), study.front(), study.baseline, axes)
    if plot:
        frames.save(plot, charts.png(chart))
        _talk(f"wrote {plot}")
    columns = report.trial_columns(study.spec, list(frame.columns), " ".join(axes))
    _show(as_json, frame, lambda: report.front_text(frame, columns, chart))


@app.command()
def export(
    ref: o.Ref,
    output: o.NewFolder,
    formats: o.Formats = "onnx,safetensors",
    storage: o.Storage = None,
    as_json: o.Json = False,
) -> None:
    """Write a trial's model and prove it is as promised.

    The model is rebuilt from its policy, repaired, written, loaded in a fresh process and measured there.
    """
    from automc.app import report

    name, number = o.split_ref(ref)
    proof = _open(name, storage).export(number, output, [part.strip() for part in formats.split(",")])
    _show(as_json, proof.to_data(), lambda: report.proof_text(proof))
    proof.require()


@app.command()
def verify(folder: o.Folder, as_json: o.Json = False) -> None:
    """Repeat the proof of an exported folder."""
    from automc.app import report, runs

    proof = runs.verify(folder)
    _show(as_json, proof.to_data(), lambda: report.proof_text(proof))
    proof.require()


@app.command()
def profile(
    model: o.Model,
    shape: o.Shape = "",
    weights: o.Weights = None,
    arguments: o.Arguments = None,
    as_json: o.Json = False,
) -> None:
    """Show a model's layers, their cost, groups and blocks."""
    from automc.app import runs
    from automc.app.space_report import layers_text
    from automc.core.study import ModelSpec

    spec = ModelSpec(model, o.settings(arguments), str(weights) if weights else None)
    layers = runs.profile(spec, o.shape(shape))
    _show(as_json, layers.to_data(), lambda: layers_text(layers))


def _check(file: Path, changes: list[str], as_json: bool, origins: list[str] | None = None) -> None:
    from automc.app import report, runs
    from automc.app.config import read_study

    checked = runs.check(read_study(file, changes), origins or ())
    _show(as_json, report.check_data(checked), lambda: report.check_text(checked))


def _run(study: Study, as_json: bool) -> None:
    """Search with a live view on stderr, then print the study; an unfinished one says how to go on."""
    import shlex

    from automc.app import live, report
    from automc.app.board import Board
    from automc.core.search import Ending

    board = Board(study.spec, study.baseline, study.records())
    with live.watch(board, study.layers, sys.stderr) as listener:
        ending = study.run(listener)
    _show(as_json, study.summary(), lambda: report.study_text(study))
    if ending is not Ending.DONE:
        again = shlex.join(["automc", "resume", study.name, "--storage", study.storage])
        _talk(f"{ending.value} after {board.done} of {board.total} trials; go on with: {again}")
    if ending is Ending.INTERRUPTED:
        raise typer.Exit(130)


def _open(name: str, storage: str | None) -> Study:
    from automc.app import runs

    return runs.open_study(name, o.storage_of(storage))


def _show(as_json: bool, data: Any, text: Callable[[], str]) -> None:
    from automc.app.tables import to_json

    print(to_json(data) if as_json else text())


def _talk(text: str) -> None:
    from automc.app.driving import talk

    talk(text)


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code. The only place where errors are caught."""
    words = list(sys.argv[1:] if args is None else args)
    try:
        command = typer.main.get_command(app)
        with command.make_context("automc", words or ["--help"]) as context:
            command.invoke(context)
        sys.stdout.flush()
        return 0
    except typer.Exit as ending:
        return ending.exit_code
    except typer.TyperException as error:
        where = getattr(getattr(error, "ctx", None), "command_path", "automc")
        print(f"{where}: {' '.join(error.format_message().split())}", file=sys.stderr)
        return 2
    except AutomcError as error:
        for line in str(error).splitlines() or [type(error).__name__]:
            _talk(line)
        return error.exit_code
    except KeyboardInterrupt:
        _talk("interrupted")
        return 130
    except BrokenPipeError:
        # Python flushes stdout once more at exit and would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if os.environ.get("AUTOMC_DEBUG"):
            raise
        said = " ".join(f"{type(error).__name__}: {error}".split())
        _talk(f"internal error ({said}); rerun with AUTOMC_DEBUG=1 for the traceback")
        return 70


if __name__ == "__main__":
    sys.exit(main())
