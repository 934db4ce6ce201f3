"""Commands that look after the trial database: automc db ..."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from automc.app import options as o
from automc.cli.app import app, shown
from automc.errors import SpecError, StoreError

if TYPE_CHECKING:
    from automc.stores.looking import Driver, Status

group = typer.Typer(
    name="db",
    help="Look after the trial database: status, copies, checks, studies in and out.",
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(group)

NewCopy = Annotated[Path, typer.Argument(metavar="FILE", help="file to write; must not exist")]
Source = Annotated[Path, typer.Argument(metavar="FILE", help="what db export wrote; with --optuna, a study file")]
Target = Annotated[Path | None, typer.Argument(metavar="FILE", help="file to write, gzipped where it ends in .gz")]
OneStudy = Annotated[str | None, typer.Option("--study", metavar="NAME", help="only this study")]
Renamed = Annotated[str | None, typer.Option("--as", metavar="NEW", help="name of the imported study")]
Optuna = Annotated[str | None, typer.Option(metavar="URL", help="an Optuna storage: a URL, or the file of a journal")]
Dry = Annotated[bool, typer.Option("--dry-run", help="say what would go; delete nothing")]


@group.command()
def status(storage: o.Storage = None, as_json: o.Json = False) -> None:
    """Say where the database is, its schema, its size, what is in it and who searches."""
    from automc.stores.looking import status

    found = status(o.storage_of(storage))
    shown(as_json, found, lambda: _status_text(found))


@group.command()
def backup(file: NewCopy, storage: o.Storage = None, as_json: o.Json = False) -> None:
    """Copy a SQLite database, also while it is searched."""
    from automc.app import database

    size = database.backup(o.storage_of(storage), file)
    shown(as_json, {"file": file, "size_bytes": size}, lambda: f"wrote {file} ({size:,} bytes)")


@group.command()
def verify(storage: o.Storage = None, as_json: o.Json = False) -> None:
    """Check that the database is whole; one line a fault."""
    from automc.app import database

    where = o.storage_of(storage)
    lines = database.verify(where)
    shown(as_json, {"faults": lines}, lambda: "\n".join(lines) or "whole")
    if lines:
        raise StoreError(f"{len(lines)} {'fault' if len(lines) == 1 else 'faults'}; a backup or an export may be whole")


@group.command()
def upgrade(storage: o.Storage = None, as_json: o.Json = False) -> None:
    """Bring the database to this automc's schema, as any other command would; a SQLite file is copied first."""
    from automc.app import database

    done = database.upgrade(o.storage_of(storage))
    kept = f"; as it was before: {done['backup']}" if done["backup"] else ""
    same = done["before"] == done["after"]
    said = "is of schema {after} already" if same else "upgraded from schema {before} to {after}{kept}"
    shown(as_json, done, lambda: f"{done['storage']}: " + said.format(**done, kept=kept))


@group.command()
def gc(dry_run: Dry = False, storage: o.Storage = None, as_json: o.Json = False) -> None:
    """Delete what nothing refers to: rows, repair checkpoints, files."""
    from automc.app import sweeping
    from automc.app.tables import table

    went = sweeping.gc(o.storage_of(storage), dry_run)
    rows = [{"would go" if dry_run else "went": s.what, "count": s.count, "bytes": f"{s.size_bytes:,}"} for s in went]
    shown(as_json, {"dry_run": dry_run, "swept": went}, lambda: table(rows, right=("count", "bytes")))


@group.command("export")
def export(
    file: Target = None,
    study: OneStudy = None,
    optuna: Optuna = None,
    storage: o.Storage = None,
    as_json: o.Json = False,
) -> None:
    """Write studies to a file that any database can import, or to an Optuna storage."""
    if (file is None) == (optuna is None):
        raise SpecError("db export: give a FILE, or --optuna URL")
    from automc.app import database

    if file is not None:
        done = database.export(o.storage_of(storage), file, study)
        text = f"wrote {file}: {', '.join(done['studies']) or 'no study'} ({done['rows']:,} rows)"
        shown(as_json, done, lambda: text)
        return
    from automc.app import to_optuna

    written = to_optuna.export(o.storage_of(storage), str(optuna), study)
    shown(
        as_json,
        {"optuna": optuna, "studies": written},
        lambda: "\n".join(f"wrote {s}: {n} trials" for s, n in written.items()),
    )


@group.command("import")
def import_(
    file: Source,
    renamed: Renamed = None,
    optuna: Optuna = None,
    study: OneStudy = None,
    storage: o.Storage = None,
    as_json: o.Json = False,
) -> None:
    """Add the studies of a file, or, to a study file, the trials of an Optuna study; all or nothing."""
    from automc.app import database

    if optuna is None:
        if study is not None:
            raise SpecError("db import: --study names an Optuna study; it needs --optuna URL")
        names = database.import_file(o.storage_of(storage), file, renamed)
    else:
        from automc.app import from_optuna

        names = from_optuna.import_study(o.storage_of(storage), file, optuna, study, renamed)
    shown(as_json, {"studies": names}, lambda: f"imported {', '.join(names) or 'no study'}")


def _status_text(found: Status) -> str:
    from automc.app.tables import pairs, table

    schema = f"{found.schema} ({'current' if found.current else 'not of this automc; automc db upgrade'})"
    head = {
        "database": found.storage,
        "kind": f"{found.kind} {found.version}",
        "schema": schema,
        "bytes": f"{found.size_bytes:,}",
    }
    studies = [
        {"study": s.study, "trials": sum(s.counts.values()), **s.counts, "driven by": _driven(s.driver)}
        for s in found.studies
    ]
    tables = [{"table": name, "rows": f"{rows:,}"} for name, rows in found.tables.items()]
    head |= {"journal": found.journal} if found.journal else {}
    return "\n\n".join([pairs(head), table(studies) if studies else "no studies yet", table(tables, right=("rows",))])


def _driven(driver: Driver | None) -> str:
    if driver is None:
        return "nobody"
    asked = "" if driver.control == "go" else f", asked to {driver.control}"
    return f"pid {driver.pid} on {driver.host}, heard {driver.heard:.0f} s ago{asked}"
