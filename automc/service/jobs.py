"""The jobs of the builder: plain data in, plain data out. Documents have been vetted before they come here."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from automc.app import revisions, runs
from automc.app.config import StudyFile, study_from
from automc.app.delivery import deliver, known_as
from automc.app.report import check_data
from automc.core.history import Artifact
from automc.errors import SpecError
from automc.stores.blobs import Blobs
from automc.stores.service import ServiceStore

LABEL = "study"
"""Stands in messages where a study file has its name."""


def parsed(document: Mapping[str, Any], storage: str) -> StudyFile:
    """A study that was sent. Raises SpecError, one line a mistake."""
    if "name" not in document:
        raise SpecError("name: is missing; a study is found by it")
    return replace(study_from(document, LABEL), storage=storage)


def check(document: Mapping[str, Any], storage: str, origins: Sequence[str]) -> dict[str, Any]:
    """What ``automc check --json`` says."""
    return check_data(runs.check(parsed(document, storage), origins))


def start(
    document: Mapping[str, Any], storage: str, origins: Sequence[str], request: Mapping[str, str]
) -> dict[str, Any]:
    """Make a study; its driver is wanted from the transaction on that makes it."""

    def into(url: str) -> ServiceStore:
        store = ServiceStore(url)
        store.request, store.drives = request, True
        return store

    with closing(runs.start(parsed(document, storage), origins, into=into)) as made:
        return {"study": made.name}


def extend(
    study: str,
    storage: str,
    trials: int | None,
    seconds: float | None,
    sections: Mapping[str, Any],
    origins: Sequence[str],
    backfill: bool,
) -> dict[str, Any]:
    """Put a revision in force; what it changed, and how it reads the trials before."""
    asked: dict[str, Any] = dict(sections)
    changes = [f"{key}={value}" for key, value in _flat(asked.pop("workers", {}), "workers")]
    with closing(
        runs.extend(
            study,
            trials,
            storage=storage,
            seconds=seconds,
            changes=changes,
            warm_start=origins,
            backfill=backfill,
            **asked,
        )
    ) as made:
        records, spec = made.records(), made.spec
        last = revisions.listed(made.store.revisions(study), made.layers)[-1]
        return {**last, "earlier": revisions.account(records, made.reading(records), spec.first_trial)}


def export(study: str, storage: str, number: int, formats: Sequence[str]) -> dict[str, Any]:
    """Export a trial and keep its files by their content, also those of an export that breaks a promise.

    Returns: the proof, and the files, which are below ``rejected/`` where it did not pass.
    """
    blobs = Blobs.beside(storage)
    with closing(runs.open_study(study, storage)) as opened, tempfile.TemporaryDirectory(prefix="automc-") as scratch:
        written = deliver(opened, opened.trial(number), Path(scratch) / "out", tuple(formats))
        proof, kept = written.proof.to_data(), []
        known = {(file.sha256, file.file) for file in opened.store.artifacts(study, number)}
        for path in sorted(written.folder.iterdir()):
            name, size = known_as(written, path.name), path.stat().st_size
            made = Artifact(blobs.put(path), number, path.suffix.lstrip("."), name, size, proof)
            if (made.sha256, name) not in known:
                opened.store.keep_artifact(study, made)
            kept.append({"file": name, "sha256": made.sha256, "size_bytes": size})
        return {"proof": proof, "files": kept}


def inspect(path: str) -> dict[str, Any]:
    """The shapes of uploaded weights by name. Raises SpecError for anything but safetensors."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            return {name: list(file.get_slice(name).get_shape()) for name in list(file.keys())}
    except (SafetensorError, OSError, ValueError, OverflowError, MemoryError) as error:
        said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise SpecError(f"the upload is no safetensors file: {said}") from None


def _flat(value: Any, path: str) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [pair for key, item in value.items() for pair in _flat(item, f"{path}.{key}")]
    return [(path, json.dumps(value))]
