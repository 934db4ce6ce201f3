"""Studies written to an Optuna storage, for optuna-dashboard and whatever else reads one.

A decision is a parameter named as ``str(site)``: ``prune(conv1).prune_ratio``. An objective is an objective, with its
metric's name; a constraint is Optuna's, feasible at 0 and below. Whatever else was measured is a user attribute under
its metric's name, as are ``rung``, ``reason``, ``message``, ``seconds``, ``samples``, ``twin`` and ``fingerprint``.
Stopped trials are PRUNED there, failed ones FAIL.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from automc.app.optuna_storage import STATES, names, opened
from automc.core.history import Attempt
from automc.core.layers import LayerTable
from automc.core.metrics import Constraint, Objective
from automc.core.policy import Site, Value
from automc.core.rules import resolve
from automc.core.space import Choice, Domain, Real
from automc.core.trial import Trial, TrialState
from automc.errors import StoreError
from automc.operators import OPERATORS
from automc.stores import TrialDatabase, open_store
from automc.stores.codec import dumps


def export(storage: str, target: str, study: str | None = None) -> dict[str, int]:
    """Write one study, or all, each whole or not at all. Returns how many trials each has.

    Raises:
        UnknownStudy. StoreError: the storage cannot be written, or has a study of that name.
    """
    with closing(open_store(storage, create=False)) as store, opened(target, create=True) as optuna_storage:
        chosen = [study] if study is not None else [summary.spec.name for summary in store.studies()]
        for name in chosen:
            store.spec(name)
            if name in names(optuna_storage):
                raise StoreError(f"--optuna {target}: has a study {name!r} already; give another storage")
        return {name: _write(store, name, optuna_storage) for name in chosen}


def _write(store: TrialDatabase, name: str, storage: BaseStorage) -> int:
    spec, trials = store.spec(name), store.trials(name)
    domains = _domains(store, name)
    runs = {attempt.number: attempt for attempt in store.attempts(name) if not attempt.late}
    made = next(summary.created for summary in store.studies() if summary.spec.name == name)
    frozen = [
        _frozen(trial, (spec.objectives, spec.constraints), domains, runs.get(trial.number), made) for trial in trials
    ]
    ways = [optuna.study.StudyDirection[objective.direction.upper()] for objective in spec.objectives]
    study = optuna.create_study(study_name=name, storage=storage, directions=ways)
    try:
        study.set_metric_names([objective.metric for objective in spec.objectives])
        study.add_trials(frozen)
    except BaseException:
        optuna.delete_study(study_name=name, storage=storage)
        raise
    return len(frozen)


def _domains(store: TrialDatabase, name: str) -> dict[Site, Domain]:
    """What is decided in any revision, with a domain that holds every revision's values: Optuna knows one a name."""
    layers = LayerTable.from_data(store.facts(name)["layers"])
    found: dict[Site, list[Domain]] = {}
    decided: set[Site] = set()
    for spec in store.revisions(name):
        space = resolve(spec.rules, spec.order, layers, OPERATORS, spec.orders)
        decided |= {decision.site for decision in space.decisions}
        for site, domain in [(d.site, d.domain) for d in space.decisions] + [
            (s, Choice((v,))) for s, v in space.fixed.items()
        ]:
            found.setdefault(site, []).append(domain)
    return {site: _union(domains) for site, domains in found.items() if site in decided}


def _union(domains: Sequence[Domain]) -> Domain:
    first, *others = dict.fromkeys(domains)
    if not others:
        return first
    choices = [domain for domain in domains if isinstance(domain, Choice)]
    if len(choices) == len(domains):
        return Choice(tuple(dict.fromkeys(value for domain in choices for value in domain.options)))
    ends = [float(value) for domain in choices for value in domain.options]
    ends += [end for domain in domains if isinstance(domain, Real) for end in (domain.low, domain.high)]
    return Real(min(ends), max(ends))


def distribution(domain: Domain) -> BaseDistribution:
    """The domain as Optuna has it, with the values themselves."""
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.options)
    if domain.step is None:
        return FloatDistribution(domain.low, domain.high, log=domain.log)
    top = round(domain.low + (int(domain.size) - 1) * domain.step, 10)
    return FloatDistribution(domain.low, top, step=domain.step)


def _frozen(
    trial: Trial,
    aims: tuple[Sequence[Objective], Sequence[Constraint]],
    domains: Mapping[Site, Domain],
    run: Attempt | None,
    made: str,
) -> FrozenTrial:
    objectives, constraints = aims
    metrics = dict(trial.measurement.metrics) if trial.measurement else {}
    values = [metrics.get(objective.metric, math.nan) for objective in objectives]
    complete = trial.state is TrialState.COMPLETE and not any(map(math.isnan, values))
    state = STATES[TrialState.FAILED if trial.state is TrialState.COMPLETE and not complete else trial.state]
    params: dict[str, Value] = {str(site): trial.policy[site] for site in domains if site in trial.policy}
    begun, ended = (run.started if run else None) or made, (run.finished if run else None) or made
    frozen = FrozenTrial(
        number=trial.number,
        trial_id=trial.number,
        state=state,
        value=None,
        values=values if complete else None,
        datetime_start=None if trial.state is TrialState.WAITING else _local(begun),
        datetime_complete=_local(ended) if state.is_finished() else None,
        params=params,
        distributions={str(site): distribution(domain) for site, domain in domains.items() if site in trial.policy},
        user_attrs=_attributes(trial, metrics, {o.metric for o in objectives} if complete else set()),
        system_attrs={},
        intermediate_values={},
    )
    if trial.measurement is not None:
        for constraint in constraints:
            frozen.set_constraint(str(constraint), _excess(constraint, metrics.get(constraint.metric, math.nan)))
    return frozen


def _attributes(trial: Trial, metrics: Mapping[str, float], told: set[str]) -> dict[str, Any]:
    """All but the metrics that were told as values; NaN and infinity as the database writes them."""
    found: dict[str, Any] = {"rung": trial.rung, "fingerprint": trial.policy.fingerprint}
    found |= {"reason": trial.reason} if trial.reason else {}
    found |= {"message": trial.message} if trial.message else {}
    found |= {"twin": trial.twin} if trial.twin is not None else {}
    if trial.measurement is not None:
        measured = trial.measurement
        found |= {"seconds": measured.seconds, "samples": measured.samples}
        found |= {name: value for name, value in metrics.items() if name not in told}
        found |= {f"{name}_error": error for name, error in measured.errors.items()}
    plain: dict[str, Any] = json.loads(dumps(found))
    return plain


def _excess(constraint: Constraint, value: float) -> float:
    """Above 0 where the constraint does not hold. Optuna takes no NaN, and its dashboard no infinity."""
    beyond = value - constraint.bound if constraint.sign == "<=" else constraint.bound - value
    most = sys.float_info.max
    return most if math.isnan(beyond) else min(max(beyond, -most), most)


def _local(text: str) -> datetime:
    """A time of the database as Optuna has it: local, and without saying so."""
    return datetime.fromisoformat(text).astimezone().replace(tzinfo=None)
