"""Starting, checking, resuming, extending and stopping studies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from automc.app import latencies
from automc.app.paths import rooted
from automc.app.study import Study, built, prepared, sensed
from automc.app.study_schema import DEFAULT_STORAGE
from automc.core.layers import LayerTable
from automc.core.space import SearchSpace
from automc.core.study import ModelSpec, Part, StudySpec
from automc.core.trial import TrialState
from automc.errors import SpecError
from automc.stores import open_store

if TYPE_CHECKING:
    import pandas as pd

    from automc.app.config import StudyFile
    from automc.export.proof import Proof


def start(study_file: StudyFile, **objects: Any) -> Study:
    """Create a study; ``run`` searches. Everything is built and checked before anything is written.

    Raises:
        StudyExists: the name is taken. SpecError, ModelError, DataError: what is wrong, in one line.
    """
    spec = rooted(study_file.spec)
    evaluator, space = _checked(study_file, objects)
    space = sensed(spec, space, evaluator)
    store = open_store(study_file.storage)
    facts = {"layers": space.layers.to_data(), "baseline": evaluator.baseline, "space": space.to_data()}
    store.create(spec, facts)
    study = Study(spec.name, store, study_file.storage, **objects)
    study.evaluator = evaluator
    latencies.keep(store, evaluator)
    return study


@dataclass(frozen=True)
class Checked:
    """What ``check`` found: the layer table, the space, the original model's metrics.

    ``seconds_per_evaluation`` is the measured time of evaluating one random policy at the first rung.
    """

    spec: StudySpec
    table: LayerTable
    space: SearchSpace
    baseline: Mapping[str, float]
    seconds_per_evaluation: float


def check(study_file: StudyFile, **objects: Any) -> Checked:
    """Validate a study down to one real evaluation; writes nothing. Raises like ``start``."""
    evaluator, space = _checked(study_file, objects)
    policy = space.decode(np.random.default_rng(study_file.spec.seed).random(len(space)).tolist())
    measurement = evaluator.evaluate(policy, 0, lambda step, value: True)
    return Checked(study_file.spec, evaluator.table, space, evaluator.baseline, measurement.seconds)


def open_study(name: str, storage: str = DEFAULT_STORAGE, **objects: Any) -> Study:
    """A study that exists. Raises UnknownStudy (with the nearest name), StoreError (no such database)."""
    study = Study(name, open_store(storage, create=False), storage, **objects)
    study.spec  # noqa: B018  (asks the database, which refuses an unknown name)
    return study


def resume(name: str, storage: str = DEFAULT_STORAGE, workers: int | None = None, **objects: Any) -> Study:
    """A study to go on with; ``run`` continues where it was left. ``workers`` changes who evaluates, from now on."""
    study = open_study(name, storage, **objects)
    if workers is not None:
        _revise(study, workers=workers)
    return study


def extend(
    name: str,
    trials: int,
    proposer: str | None = None,
    storage: str = DEFAULT_STORAGE,
    workers: int | None = None,
    **objects: Any,
) -> Study:
    """More trials for a study, also with another proposer, which is told everything known.

    Raises:
        SpecError: trials below 1, or an unknown proposer.
    """
    study = open_study(name, storage, **objects)
    if trials < 1:
        raise SpecError(f"extend: trials must be at least 1, not {trials}")
    _revise(study, workers, trials, proposer)
    return study


def stop(name: str, storage: str = DEFAULT_STORAGE) -> bool:
    """Ask whoever drives the study to drain and end; False when nobody does."""
    study = open_study(name, storage)
    try:
        return study.store.ask_stop(name)
    finally:
        study.close()


def studies(storage: str = DEFAULT_STORAGE) -> pd.DataFrame:
    """One row a study: name, created, proposer, trials finished, budget, failed."""
    import pandas as pd

    store = open_store(storage, create=False)
    rows = [
        {
            "study": found.spec.name,
            "created": found.created,
            "proposer": found.spec.proposer.name,
            "finished": sum(count for state, count in found.counts.items() if state.finished),
            "budget": found.spec.budget.trials,
            "failed": found.counts.get(TrialState.FAILED, 0),
        }
        for found in store.studies()
    ]
    store.close()
    return pd.DataFrame(rows)


def _revise(study: Study, workers: int | None = None, trials: int = 0, proposer: str | None = None) -> None:
    """Put a changed spec in force, once everything it names is known to be there."""
    spec = study.spec
    changed = replace(spec, budget=replace(spec.budget, trials=spec.budget.trials + trials))
    if workers is not None:
        if workers > spec.workers.window:
            raise SpecError(
                f"study {study.name!r}: workers {workers} is above its window {spec.workers.window}, which decides "
                "what each proposal knows: more workers would idle"
            )
        changed = replace(changed, workers=replace(spec.workers, count=workers))
    if proposer is not None:
        changed = replace(changed, proposer=Part(proposer))
    if changed != spec:
        built(changed, study.space)
        # A changed number of workers changes no proposal; only an extension begins anew, knowing all there is.
        first = len(study.records()) if trials else spec.first_trial
        study.store.revise(replace(changed, revision=spec.revision + 1, first_trial=first))


def _checked(study_file: StudyFile, objects: Mapping[str, Any]) -> tuple[Any, SearchSpace]:
    from automc.app.config import check_space

    try:
        evaluator = prepared(study_file.spec, objects, latencies.known_in(study_file.storage))
        space = check_space(study_file, evaluator.table)
        built(study_file.spec, space)
    except SpecError as error:
        raise SpecError(study_file.placed(str(error))) from error
    return evaluator, space


def verify(folder: Path) -> Proof:
    """Repeat the proof of an exported folder, in a fresh process, from the folder alone.

    Raises:
        ProofError: the folder cannot be measured: a file is missing, changed or unreadable.
    """
    from automc.export.proof import verify_fresh

    return verify_fresh(Path(folder))


def profile(model: ModelSpec, input_shape: tuple[int, ...] | None = None) -> LayerTable:
    """The layer table of a model.

    Args:
        input_shape: of one input, without the batch axis; the zoo knows its own.

    Raises:
        ModelError: the model cannot be loaded or traced. SpecError: no shape given for a model that needs one.
    """
    import torch

    from automc.evaluation.entries import ZOO
    from automc.evaluation.zoo import load_model
    from automc.operators.canonical import canonical
    from automc.operators.layers import trace

    network = load_model(model)
    shape = input_shape or (ZOO[model.name].input_shape if model.name in ZOO else None)
    if shape is None:
        raise SpecError(f"profile {model.name}: give the shape of one input, such as --input 3,32,32")
    return trace(canonical(network), torch.zeros(2, *shape)).table
