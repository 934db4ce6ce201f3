"""The evaluator as a Ray Tune trainable: for a Tune set-up with its own searchers, schedulers and loggers.

    import automc
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    ready = automc.tune.prepare("study.yaml")
    tuner = tune.Tuner(
        automc.tune.trainable(ready),
        param_space=automc.tune.param_space(ready),
        tune_config=tune.TuneConfig(metric="top1", mode="max", num_samples=50, scheduler=ASHAScheduler(max_t=2)),
    )
    results = tuner.fit()
    policy = ready.policy(results.get_best_result().config)

What Tune measures so is in Tune's results, not in a trial database; a study with the proposer ``tune`` is the other way
round.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automc.app import latencies
from automc.app.config import StudyFile, read_study, study_from
from automc.app.study import prepared
from automc.core.metrics import Constraint
from automc.core.policy import Policy, Value
from automc.core.rules import resolve
from automc.core.space import Choice, Domain, SearchSpace
from automc.core.study import StudySpec
from automc.errors import SpecError
from automc.operators import OPERATORS


@dataclass(frozen=True)
class Prepared:
    """A study's model, data and space, built once; it travels to Tune's workers.

    Attributes:
        evaluator: see core.ports.Evaluator.
    """

    spec: StudySpec
    evaluator: Any
    space: SearchSpace

    def policy(self, config: Mapping[str, Any]) -> Policy:
        """The policy of one of Tune's configurations; a number between two steps of a range counts as the nearest.

        Raises:
            SpecError: a decision is missing, or a value is none of its choice.
        """
        values = {}
        for decision in self.space.decisions:
            name = str(decision.site)
            if name not in config:
                raise SpecError(f"tune: the configuration lacks {name}; take param_space from automc.tune.param_space")
            values[decision.site] = _snapped(name, decision.domain, config[name])
        return self.space.policy(values)

    def measured(self, policy: Policy, rung: int) -> dict[str, Any]:
        """The metrics on one rung, and ``violation``: the shares of the bounds that are broken, summed; 0 for none.

        Raises: as core.ports.Evaluator.
        """
        found = self.evaluator.evaluate(policy, rung, lambda step, value: True)
        broken = sum(_beyond(constraint, found.metrics) for constraint in self.spec.constraints)
        return {"seconds": found.seconds, **found.metrics, "violation": broken, "rung": rung}


def prepare(study: str | Path | Mapping[str, Any] | StudyFile | StudySpec | Prepared, **objects: Any) -> Prepared:
    """Build what a study names.

    Args:
        study: a study file, what one says as a mapping, a StudyFile, or a StudySpec.
        objects: model, data or task as Python objects, as for ``automc.open_study``.

    Raises:
        SpecError, ModelError, DataError: what is wrong, in one line.
    """
    if isinstance(study, Prepared):
        return study
    if isinstance(study, (str, Path)):
        study = read_study(Path(study))
    elif isinstance(study, Mapping):
        study = study_from(study, "automc.tune")
    spec, storage = (study, "memory:") if isinstance(study, StudySpec) else (study.spec, study.storage)
    evaluator = prepared(spec, objects, latencies.known_in(storage))
    return Prepared(spec, evaluator, resolve(spec.rules, spec.order, evaluator.table, OPERATORS, spec.orders))


def param_space(study: Any, **objects: Any) -> dict[str, Any]:
    """A study's space in Tune's words, a domain a decision: ``uniform`` or ``loguniform`` for ranges, else ``choice``.

    Args:
        study, objects: see ``prepare``.
    """
    tune = _tune()
    return {str(d.site): _domain(tune, d.domain) for d in prepare(study, **objects).space.decisions}


def trainable(study: Any, **objects: Any) -> type[Any]:
    """A class for ``tune.Tuner``: each of its steps measures the policy on the next rung, and it is done at the last.

    So a scheduler such as ASHA (``max_t``: the number of rungs) decides after each rung who goes on. Model and data
    travel once a node. With ``reuse_actors`` (TuneConfig) they are unpacked once a worker; that is much faster. A
    policy that cannot be measured is an error of its Tune trial.

    Args:
        study, objects: see ``prepare``.
    """
    tune = _tune()
    from automc.app.tune_steps import Evaluation

    found: type[Any] = tune.with_parameters(Evaluation, ready=prepare(study, **objects))
    return found


def _tune() -> Any:
    """Ray Tune. Raises SpecError where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module("ray.tune")
    except ImportError as error:
        raise SpecError(f"automc.tune: ray[tune] is not whole ({error}); pip install 'automc[tune]'") from error


def _domain(tune: Any, domain: Domain) -> Any:
    if isinstance(domain, Choice) or domain.low == domain.high:
        return tune.choice(domain.values(1))
    return (tune.loguniform if domain.log else tune.uniform)(domain.low, domain.high)


def _snapped(name: str, domain: Domain, value: Any) -> Value:
    if isinstance(domain, Choice):
        if not domain.holds(value):
            raise SpecError(f"tune: {name} must be one of {domain}, not {value!r}")
        return domain.normal(value)
    number = min(max(float(value), domain.low), domain.high)
    return domain.normal(number) if domain.step is None else domain.decode(domain.encode(number))


def _beyond(constraint: Constraint, metrics: Mapping[str, float]) -> float:
    """Share of the bound by which a constraint is broken; 0 where it is kept."""
    value = metrics[constraint.metric]
    excess = value - constraint.bound if constraint.sign == "<=" else constraint.bound - value
    return max(excess, 0.0) / max(abs(constraint.bound), 1e-12)
