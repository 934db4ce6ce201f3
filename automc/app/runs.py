"""Starting, checking, resuming, extending and stopping studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from automc.app import driving, findings, latencies, warm
from automc.app.paths import rooted
from automc.app.study import Study, built, prepared
from automc.app.study_schema import DEFAULT_STORAGE
from automc.core.layers import LayerTable
from automc.core.rules import nearest
from automc.core.space import SearchSpace
from automc.core.study import ModelSpec, Part, StudySpec
from automc.core.transfer import Setup
from automc.core.trial import TrialState
from automc.errors import SpecError, StoreError
from automc.stores import open_store
from automc.stores.steps import study_exists

if TYPE_CHECKING:
    import pandas as pd

    from automc.app.config import StudyFile
    from automc.export.proof import Proof


def start(study_file: StudyFile, warm_start: Sequence[str | Study] = (), **objects: Any) -> Study:
    """Create a study; ``run`` searches. Everything is built and checked before anything is written.

    Args:
        warm_start: studies whose trials and sensitivities are reused: ``NAME``, ``NAME@STORAGE`` or an open study.

    Raises:
        StudyExists: the name is taken. UnknownStudy: to start from. SpecError, ModelError, DataError: what is wrong, in
            one line.
    """
    spec = rooted(study_file.spec)
    origins = warm.origins(warm_start, study_file.storage)
    evaluator, setup = _checked(study_file, objects)
    _free(spec.name, study_file.storage)
    facts = findings.facts(spec, setup, evaluator, origins)
    store = open_store(study_file.storage)
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
    """

    spec: StudySpec
    table: LayerTable
    space: SearchSpace
    baseline: Mapping[str, float]
    seconds_per_evaluation: float
    probes: int = 0
    seconds_per_probe: float = 0.0
    warm_start: Sequence[Mapping[str, Any]] = ()


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
    return Checked(*found, len(plan.probes), pace, reused)


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
    proposer: str | Mapping[str, Any] | None = None,
    storage: str = DEFAULT_STORAGE,
    workers: int | None = None,
    *,
    changes: Sequence[str] = (),
    warm_start: Sequence[str | Study] = (),
    **objects: Any,
) -> Study:
    """More trials for a study, also with another proposer, which is told everything known.

    What the new proposer needs is measured before the revision is in force; if that fails, nothing has changed.

    Args:
        proposer: what a study file says under ``proposer``; None for the one there is.
        changes: of its settings, as in ``proposer.settings.population=30``.
        warm_start: as for ``start``; added to what the study was started from.

    Raises:
        SpecError: trials below 1, an unknown proposer, or one that cannot work with this study. LeaseHeld: it is being
            searched. UnknownStudy: to start from.
    """
    study = open_study(name, storage, **objects)
    if trials < 1:
        raise SpecError(f"extend: trials must be at least 1, not {trials}")
    from automc.app.config import proposer_from

    with driving.Tenure(study.store, name):
        chosen = proposer_from(study.spec.proposer, proposer, changes)
        _revise(study, workers, trials, chosen, warm.origins(warm_start, storage))
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


def _revise(
    study: Study,
    workers: int | None = None,
    trials: int = 0,
    proposer: Part | None = None,
    origins: Sequence[warm.Origin] = (),
) -> None:
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
        changed = replace(changed, proposer=proposer)
    if changed != spec:
        setup = Setup(study.space, study.baseline, spec.rungs)
        facts = findings.facts(changed, setup, study.evaluator, origins, study.facts)
        # A changed number of workers changes no proposal; only an extension begins anew, knowing all there is.
        first = len(study.records()) if trials else spec.first_trial
        study.revise(replace(changed, revision=spec.revision + 1, first_trial=first), facts)


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
        _measurable(study_file.spec, evaluator.baseline)
    except SpecError as error:
        raise SpecError(study_file.placed(str(error))) from error
    return evaluator, Setup(space, evaluator.baseline, study_file.spec.rungs)


def _measurable(spec: StudySpec, baseline: Mapping[str, float]) -> None:
    """Whether what the study asks for is measured. Raises SpecError."""
    wanted = {c.metric: f"constraint {c}" for c in spec.constraints}
    wanted |= {o.metric: f"objectives.{o.metric}" for o in spec.objectives}
    for metric, place in wanted.items():
        if metric not in baseline and metric != "seconds":
            known = ", ".join(baseline)
            raise SpecError(
                f"{place}: evaluator {spec.evaluator.name} measures no {metric} here{nearest(metric, baseline)} "
                f"(it measures: {known})"
            )


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
