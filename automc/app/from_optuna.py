"""An Optuna study as a study: its trials become the first ones of a study that a study file describes.

The study file says model, data, space, objectives; the Optuna study brings what was measured. A parameter is a decision
named as ``to_optuna`` names it, a user attribute under the name of a metric is that metric. The study can be resumed
and extended like any other.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from automc.app import database, driving, runs
from automc.app.config import read_study
from automc.app.optuna_storage import STATES, names, opened
from automc.core.metrics import METRICS, Measurement
from automc.core.pareto import front
from automc.core.policy import Policy
from automc.core.ports import Outcome, Proposal
from automc.core.rules import nearest
from automc.core.space import SearchSpace
from automc.core.store import Store
from automc.core.study import StudySpec
from automc.core.trial import HOPELESS, REASONS, Trial, TrialState
from automc.errors import OutOfSpace, SpecError, StoreError
from automc.stores import open_store
from automc.stores.archive import Archive
from automc.stores.steps import study_exists

_STATES = {theirs: ours for ours, theirs in STATES.items()}
_DONE = (TrialState.COMPLETE, TrialState.STOPPED, TrialState.FAILED)
_OF_STOPPED = (*HOPELESS, "behind")


@dataclass(frozen=True)
class _Read:
    """A trial to be: what is asked, and what came of it."""

    policy: Policy
    rung: int
    state: TrialState
    measurement: Measurement | None
    reason: str
    message: str


def import_study(
    storage: str, file: Path, target: str, study: str | None = None, renamed: str | None = None
) -> list[str]:
    """Make a study of a study file and the trials of an Optuna study, whole or not at all. Returns its name.

    Args:
        study: of the Optuna storage; may be left out where it has one.

    Raises:
        SpecError: the study file, or a trial that does not fit it: parameters, values, objectives, constraints.
        StoreError: no such Optuna storage or study. StudyExists: the name is taken.
    """
    study_file = read_study(file, [f"name={json.dumps(renamed)}"] if renamed is not None else [])
    spec = study_file.spec
    _free(storage, spec.name)
    where, trials = _trials(target, study, spec)
    with tempfile.TemporaryDirectory(prefix="automc-import-") as folder:
        stage = str(Path(folder) / "staged.db")
        with closing(runs.start(replace(study_file, storage=stage))) as fresh:
            space = fresh.space
            read = [_read(where, trial, spec, space) for trial in trials]
            left = read.count(None)
            if left:
                driving.talk(f"{where}: {left} trials that have no parameters yet are left out")
            _add(fresh.store, spec, [trial for trial in read if trial is not None])
        with closing(Archive(stage)) as archive:
            return database.take_in(storage, archive, where)


def _free(storage: str, name: str) -> None:
    """Raises StudyExists, before anything is measured for nothing."""
    taken = False
    with suppress(StoreError), closing(open_store(storage, create=False)) as store:
        taken = any(summary.spec.name == name for summary in store.studies())
    if taken:
        raise study_exists(name)


def _trials(target: str, study: str | None, spec: StudySpec) -> tuple[str, list[FrozenTrial]]:
    """The trials in order of number, behind what to call the study in messages."""
    with opened(target, create=False) as storage:
        known = names(storage)
        if study is None and len(known) != 1:
            raise StoreError(
                f"--optuna {target}: has {len(known)} studies ({', '.join(known[:8])}); name one with --study"
            )
        name = known[0] if study is None else study
        if name not in known:
            raise StoreError(f"--optuna {target}: no study {name!r}{nearest(name, known)} ({', '.join(known[:8])})")
        found = optuna.load_study(study_name=name, storage=storage)
        where = f"Optuna study {name!r}"
        _check_aims(where, found, spec)
        return where, sorted(found.get_trials(deepcopy=False), key=lambda trial: trial.number)


def _check_aims(where: str, found: optuna.Study, spec: StudySpec) -> None:
    theirs = [direction.name.lower() for direction in found.directions]
    ours = [objective.direction for objective in spec.objectives]
    metrics = [objective.metric for objective in spec.objectives]
    named = found.metric_names or metrics
    if theirs != ours or list(named) != metrics:
        said = ", ".join(f"{n}: {d}" for n, d in zip(named, theirs, strict=False))
        raise SpecError(
            f"{where}: has the objectives {said or len(theirs)}, and the study file "
            f"{', '.join(map(str, spec.objectives))}; they must be the same, in the same order"
        )


def _read(where: str, trial: FrozenTrial, spec: StudySpec, space: SearchSpace) -> _Read | None:
    """A trial in automc's words; None where it has nothing to say yet. Raises SpecError."""
    here, state = f"{where}: trial {trial.number}", _STATES[trial.state]
    if state not in _DONE and not trial.params:
        return None
    policy = _policy(here, trial.params, space)
    attributes = trial.user_attrs
    rung = attributes.get("rung", 0)
    if not isinstance(rung, int) or not 0 <= rung < len(spec.rungs):
        raise SpecError(f"{here}: rung must be from 0 to {len(spec.rungs) - 1}, not {rung!r}")
    reason, message = (str(attributes.get(key, "")) for key in ("reason", "message"))
    measured = _measured(here, trial, spec) if state in (TrialState.COMPLETE, TrialState.STOPPED) else None
    if state is TrialState.FAILED:
        reason = reason if reason in REASONS and reason not in _OF_STOPPED else "error"
    elif state is TrialState.STOPPED:
        reason = reason if reason in _OF_STOPPED else "behind"
    else:
        reason = message = ""
    return _Read(policy, rung, state if state in _DONE else TrialState.WAITING, measured, reason, message)


def _policy(here: str, params: Mapping[str, Any], space: SearchSpace) -> Policy:
    sites = {str(decision.site): decision.site for decision in space.decisions} | {str(s): s for s in space.fixed}
    for name in params:
        if name not in sites:
            raise SpecError(
                f"{here}: parameter {name!r} is no decision of this space{nearest(name, sites)} "
                "(they are named operator(layer).setting, as db export writes them)"
            )
    try:
        return space.policy({sites[name]: value for name, value in params.items()})
    except OutOfSpace as error:
        raise SpecError(f"{here}: {error}") from error


def _measured(here: str, trial: FrozenTrial, spec: StudySpec) -> Measurement:
    attributes = trial.user_attrs
    metrics = {name: _number(here, name, attributes[name]) for name in METRICS if name in attributes}
    seconds = metrics.pop("seconds", math.nan if trial.duration is None else trial.duration.total_seconds())
    if trial.state is optuna.trial.TrialState.COMPLETE:
        metrics |= {o.metric: float(value) for o, value in zip(spec.objectives, trial.values, strict=True)}
        for constraint in spec.constraints:
            if constraint.metric not in metrics and constraint.metric != "seconds":
                raise SpecError(
                    f"{here}: has no {constraint.metric}, which the constraint {constraint} needs; "
                    f"give it as a user attribute {constraint.metric!r}"
                )
    errors = {
        name: _number(here, f"{name}_error", attributes[f"{name}_error"])
        for name in metrics
        if f"{name}_error" in attributes
    }
    samples = attributes.get("samples", 0)
    return Measurement(metrics, {}, None, seconds, errors, samples if isinstance(samples, int) else 0)


def _number(here: str, name: str, value: Any) -> float:
    if isinstance(value, Mapping) and value.get("$float") in ("nan", "+inf", "-inf"):
        return float(value["$float"])
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SpecError(f"{here}: user attribute {name} must be a number, not {str(value)[:40]!r}")
    return float(value)


def _add(store: Store, spec: StudySpec, found: Sequence[_Read]) -> None:
    """Put the trials into a new study, each as if it had been run."""
    members: list[Trial] = []
    for read in found:
        trial = store.add(spec.name, Proposal(read.policy), read.rung)
        if read.state is TrialState.WAITING:
            continue
        trial = store.move(spec.name, trial.to(TrialState.RUNNING))
        told = {"measurement": read.measurement, "reason": read.reason, "message": read.message}
        done: Trial = trial.to(read.state, **told)
        outcome = Outcome(trial.number, trial.attempts, read.state, **told, host="optuna")  # type: ignore[arg-type]
        before, members = members, front([*members, done], spec.objectives, spec.constraints)
        members.sort(key=lambda member: member.number)  # of equal ones, the front has the first it is shown
        old, new = ({member.number for member in some} for some in (before, members))
        store.move(spec.name, done, outcome, dict.fromkeys(old - new, False) | dict.fromkeys(new - old, True))
