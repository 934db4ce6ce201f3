"""The application that the commands belong to, and what they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from automc.app import options as o
from automc.errors import SpecError

if TYPE_CHECKING:
    from automc.app.study import Study
    from automc.service.client import Client

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
  6    the worker pool cannot be started, or its cluster is gone
  7    an exported file is not what was promised
  70   a bug in automc (AUTOMC_DEBUG=1 shows the traceback)
  130  interrupted; the study can be resumed
  143  ended by SIGTERM; the study can be resumed
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


def opened(name: str, storage: str | None) -> Study:
    """A study that exists."""
    from automc.app import runs

    return runs.open_study(name, o.storage_of(storage))


def opened_at(name: str, storage: str | None, server: str | None) -> Study:
    """A study of a database, or one of a server, which has all that reading commands ask of one."""
    return opened(name, storage) if server is None else cast("Study", connected(storage, server).open_study(name))


def connected(storage: str | None, server: str) -> Client:
    """A server. Raises SpecError where a database is given too."""
    from automc.service.client import connect

    if storage is not None:
        raise SpecError("--server and --storage: a server has its own database; give one of them")
    return connect(server)


def shown(as_json: bool, data: Any, text: Callable[[], str]) -> None:
    """Print what a command found: one JSON document, or the text."""
    from automc.app.tables import to_json

    print(to_json(data) if as_json else text())


def talk(text: str) -> None:
    """A line for people, on stderr."""
    from automc.app import driving

    driving.talk(text)
