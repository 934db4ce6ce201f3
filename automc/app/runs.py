"""Starting, checking, resuming and extending studies."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from automc.app import driving, findings, latencies, warm
from automc.app.effort_schema import restaffed
from automc.app.paths import rooted
from automc.app.remarks import remarks
from automc.app.study import Study, built, prepared
from automc.app.study_schema import DEFAULT_STORAGE
from automc.core.layers import LayerTable
from automc.core.space import SearchSpace
from automc.core.study import ModelSpec, StudySpec
from automc.core.transfer import Setup
from automc.core.trial import TrialState
from automc.errors import SpecError, StoreError
from automc.stores import TrialDatabase, open_store
from automc.stores.steps import study_exists

if TYPE_CHECKING:
    import pandas as pd

    from automc.app.config import StudyFile
    from automc.export.proof.proving import Proof


def start(
    study_file: StudyFile,
    warm_start: Sequence[str | Study] = (),
    into: Callable[[str], TrialDatabase] = open_store,
    **objects: Any,
) -> Study:
    """Create a study; ``run`` searches. Everything is built and checked before anything is written.

    Args:
        warm_start: studies whose trials and sensitivities are reused: ``NAME``, ``NAME@STORAGE`` or an open study.
        into: opens the database of a URL, which is made where it is missing.

    Raises:
        StudyExists: the name is taken. UnknownStudy: to start from. SpecError, ModelError, DataError: what is wrong, in
            one line.
    """
    spec = rooted(study_file.spec)
    origins = warm.origins(warm_start, study_file.storage)
    evaluator, setup = _checked(study_file, objects)
    _free(spec.name, study_file.storage)
    for line in remarks(spec, setup.space):
        driving.talk(line)
    facts = findings.facts(spec, setup, evaluator, origins)
    store = into(study_file.storage)
    store.create(spec, facts)
    study = Study(spec.name, store, study_file.storage, **objects)
    study.evaluator = evaluator
    latencies.keep(store, evaluator)
    return study


@dataclass(frozen=True)
class Checked:
    """What ``check`` found: the layer table, the space, the original model's metrics.

    Attributes:
        seconds_per_evaluation: measured time of evaluating one random policy at the first rung.
        probes: how many policies are measured before the first trial, because the proposer asks for sensitivities.
        seconds_per_probe: measured time of one of these; 0 without any.
        warm_start: what would be reused of each study to start from, see ``warm.summary``.
        remarks: what a user should know, see ``remarks.remarks``.
    """

    spec: StudySpec
    table: LayerTable
    space: SearchSpace
    baseline: Mapping[str, float]
    seconds_per_evaluation: float
    probes: int = 0
    seconds_per_probe: float = 0.0
    warm_start: Sequence[Mapping[str, Any]] = ()
    remarks: Sequence[str] = ()


def check(study_file: StudyFile, warm_start: Sequence[str | Study] = (), **objects: Any) -> Checked:
    """Validate a study down to one real evaluation and one probe; writes nothing. Raises like ``start``."""
    spec, origins = study_file.spec, warm.origins(warm_start, study_file.storage)
    evaluator, setup = _checked(study_file, objects)
    space = setup.space
    policy = space.decode(np.random.default_rng(spec.seed).random(len(space)).tolist())
    measurement = evaluator.evaluate(policy, 0, lambda step, value: True)
    plan = findings.planned(spec, setup, evaluator, origins)
    pace = findings.seconds_per_probe(evaluator, plan)
    reused = warm.summary({warm.KEY: warm.entries(origins, spec, setup)})
    found = (spec, evaluator.table, space, evaluator.baseline, measurement.seconds)
    return Checked(*found, len(plan.probes), pace, reused, remarks(spec, space))


def open_study(name: str, storage: str = DEFAULT_STORAGE, **objects: Any) -> Study:
    """A study that exists. Raises UnknownStudy (with the nearest name), StoreError (no such database)."""
    study = Study(name, open_store(storage, create=False), storage, **objects)
    study.spec  # noqa: B018  (asks the database, which refuses an unknown name)
    return study


def resume(
    name: str,
    storage: str = DEFAULT_STORAGE,
    workers: int | str | None = None,
    address: str | None = None,
    **objects: Any,
) -> Study:
    """A study to go on with; ``run`` continues where it was left.

    Args:
        workers: how many from now on, or ``auto``. address: of the Ray cluster they are on, ``local`` for a Ray of its
            own.
    """
    study = open_study(name, storage, **objects)
    spec = study.spec
    try:
        chosen = restaffed(spec.workers, workers, address)
    except SpecError as error:
        raise SpecError(f"study {name!r}: {error}") from error
    if chosen != spec.workers:
        study.revise(replace(spec, workers=chosen, revision=spec.revision + 1))
    return study


def extend(
    name: str,
    trials: int | None = None,
    proposer: str | Mapping[str, Any] | None = None,
    storage: str = DEFAULT_STORAGE,
    workers: int | str | None = None,
    *,
    address: str | None = None,
    seconds: float | None = None,
    space: str | Mapping[str, Any] | None = None,
    objectives: Mapping[str, str] | None = None,
    constraints: Sequence[str] | None = None,
    stopper: str | Mapping[str, Any] | None = None,
    changes: Sequence[str] = (),
    warm_start: Sequence[str | Study] = (),
    backfill: bool = False,
    **objects: Any,
) -> Study:
    """A new revision of a study: more trials or time, another proposer, space or aim. ``run`` then searches on.

    Trials that the revision cannot use (see ``core.revision.Reading``) stay in the database and are told to no
    proposer. What it needs is measured before it is in force; if that fails, nothing has changed.

    Args:
        trials: how many more. seconds: of one search from now on. workers, address: as for ``resume``.
        proposer, space, objectives, constraints, stopper: what a study file says under these keys, in the place of what
            it said; None for no change.
        changes: of single keys, as in ``proposer.settings.population=30``.
        warm_start: as for ``start``; added to what the study was started from.
        backfill: measure the front again for metrics that the revision needs and older trials lack.

    Raises:
        SpecError: trials below 1, what may not change, what is wrong, or no change at all. EvaluationError: a backfill
            found other metrics than are stored. LeaseHeld: the study is being searched. UnknownStudy: to start from.
    """
    from automc.app import revising

    study = open_study(name, storage, **objects)
    if trials is not None and trials < 1:
        raise SpecError(f"extend: trials must be at least 1, not {trials}")
    given = {"space": space, "objectives": objectives, "constraints": constraints, "stopper": stopper}
    sections = {key: value for key, value in {"proposer": proposer, **given}.items() if value is not None}
    single = {"workers.count": workers, "workers.address": address, "budget.seconds": seconds}
    texts = [*(f"{key}={json.dumps(value)}" for key, value in single.items() if value is not None), *changes]
    revising.extend(study, revising.Wish(trials, sections, texts, warm_start, backfill))
    return study


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


def _free(name: str, storage: str) -> None:
    """Whether a study may have this name, before minutes are spent on measuring for it. Raises StudyExists."""
    try:
        store = open_store(storage, create=False)
    except StoreError:
        return  # no such database yet; whatever else is wrong with it, creating the study will tell
    try:
        taken = any(found.spec.name == name for found in store.studies())
    finally:
        store.close()
    if taken:
        raise study_exists(name)


def _checked(study_file: StudyFile, objects: Mapping[str, Any]) -> tuple[Any, Setup]:
    from automc.app.config import check_space

    try:
        evaluator = prepared(study_file.spec, objects, latencies.known_in(study_file.storage))
        space = check_space(study_file, evaluator.table)
        built(study_file.spec, space)
        findings.measurable(study_file.spec, evaluator.baseline)
    except SpecError as error:
        raise SpecError(study_file.placed(str(error))) from error
    return evaluator, Setup(space, evaluator.baseline, study_file.spec.rungs)


def verify(folder: Path) -> Proof:
    """Repeat the proof of an exported folder, in a fresh process, from the folder alone.

    Raises:
        ProofError: the folder cannot be measured: a file is missing, changed or unreadable.
    """
    from automc.export.proof.proving import verify_fresh

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
