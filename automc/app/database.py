"""Looking after a trial database: what is in it, whether it is whole, copies of it, and what it needs no more."""

from __future__ import annotations

import shlex
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from automc.app.study_schema import study_name
from automc.core.history import front_after
from automc.core.layers import LayerTable
from automc.core.proving import wrong_members
from automc.core.revision import Reading
from automc.core.rules import resolve
from automc.core.space import SearchSpace
from automc.core.study import StudySpec
from automc.core.trial import Trial
from automc.errors import AutomcError, StoreError
from automc.operators import OPERATORS
from automc.stores import TrialDatabase, open_store
from automc.stores.archive import Archive, staged
from automc.stores.copying import copy_database
from automc.stores.engine import check_file, parse_url, place, sqlite_file
from automc.stores.exchange import check_new
from automc.stores.looking import found
from automc.stores.schema import backup_path
from automc.stores.tables import HEAD
from automc.stores.verifying import faults


def backup(storage: str, path: Path) -> int:
    """Copy a SQLite database, also while it is searched; the copy is checked. Returns its bytes.

    Raises:
        StoreError: it cannot be read or written, there is such a file already, or it is no SQLite file.
    """
    url = parse_url(storage)
    source = sqlite_file(url)
    if source is None:
        address = url.set(drivername="postgresql").render_as_string(hide_password=True)
        command = shlex.join(["pg_dump", "--format=custom", f"--file={path}", address])
        raise StoreError(
            f"{place(url)}: a server is backed up by its own tool: {command}; or carry the studies away with: "
            "automc db export FILE"
        )
    check_file(url, create=False)
    check_new(path)
    try:
        copy_database(source, path)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{source}: no backup {path}: {error}") from error
    return path.stat().st_size


def upgrade(storage: str) -> dict[str, Any]:
    """Bring a database to the schema of this automc, as opening it does.

    Returns: the schema ``before`` and ``after``, and the ``backup`` of a SQLite file that was made first; None: none.

    Raises:
        StoreError: as ``open_store``.
    """
    with found(storage) as (_, before):
        pass
    open_store(storage, create=False).close()
    source = sqlite_file(parse_url(storage))
    kept = None if source is None or before == HEAD else str(backup_path(source, before))
    return {"storage": place(parse_url(storage)), "before": before, "after": HEAD, "backup": kept}


def verify(storage: str) -> list[str]:
    """One line a fault; none where the database is whole.

    Raises:
        StoreError: it cannot be read at all, or has another schema.
    """
    with found(storage) as (connection, version):
        if version != HEAD:
            raise StoreError(
                f"{place(connection.engine.url)}: has schema {version}, and this automc verifies {HEAD}; "
                "upgrade it with: automc db upgrade"
            )
        lines = list(faults(connection))
    with closing(open_store(storage, create=False)) as store:
        for name in (summary.spec.name for summary in store.studies()) if not lines else ():
            lines += _fronts(store, name)
    return lines


def export(storage: str, path: Path, study: str | None = None) -> Mapping[str, Any]:
    """Write one study or all to a file (see stores/exchange.py): which, and how many rows and bytes that is.

    Raises:
        UnknownStudy, StoreError.
    """
    with closing(Archive(storage, create=False)) as archive:
        names, rows = archive.export(path, study)
    return {"file": path, "studies": names, "rows": rows, "size_bytes": path.stat().st_size}


def import_file(storage: str, path: Path, renamed: str | None = None) -> list[str]:
    """Add the studies of a file, all or none; they are verified first. Returns their names.

    Raises:
        StoreError: the file is not whole, says what cannot be, or a name is taken. SpecError: no name for a study.
    """
    if renamed is not None:
        study_name(renamed)
    with tempfile.TemporaryDirectory(prefix="automc-import-") as folder, closing(staged(path, Path(folder))) as stage:
        return take_in(storage, stage, str(path), renamed)


def take_in(storage: str, stage: Archive, source: str, renamed: str | None = None) -> list[str]:
    """Add the studies of a database that somebody else filled, once it is found whole.

    Args:
        source: where it comes from, for messages.
    """
    lines = verify(stage.file)
    if lines:
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        raise StoreError(f"{source}: nothing was imported, it contradicts itself: {lines[0]}{more}")
    with closing(Archive(storage)) as archive:
        return archive.take_in(stage, source, renamed)


def _fronts(store: TrialDatabase, study: str) -> Iterator[str]:
    """Whether the changes of the front lead to the front: that of the revision in force, or, while no trial of this
    one has finished, of the one before."""
    trials, members = store.trials(study), front_after(store.front_changes(study))
    said: tuple[list[int], list[int]] | None = None
    specs = list(store.revisions(study))
    while specs:
        spec = specs[-1]
        try:
            read = _reading(store, study, specs, trials)
            wrong = wrong_members(members, list(map(read, trials)), spec.objectives, spec.constraints)
        except (AutomcError, KeyError) as error:
            yield f"study {study!r}: its front cannot be looked at: {error}"
            return
        if not any(wrong):
            return
        said = said or wrong
        if any(trial.state.finished and trial.number >= spec.first_trial for trial in trials):
            break
        specs = specs[:-1]
    for numbers, what in zip(
        said or (), ("is missing from the front", "is on the front, and beaten or not eligible"), strict=False
    ):
        yield from (f"trial {study}/{number}: {what}" for number in numbers)


def _reading(store: TrialDatabase, study: str, specs: Sequence[StudySpec], trials: Sequence[Trial]) -> Reading:
    """How the last of these revisions reads the trials; needs no model."""
    spec = specs[-1]

    def space() -> SearchSpace:
        layers = LayerTable.from_data(store.facts(study)["layers"])
        return resolve(spec.rules, spec.order, layers, OPERATORS, spec.orders)

    return Reading(specs, space, trials, OPERATORS)
