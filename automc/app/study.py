"""A study in its database: search on, ask, take a model away."""

from __future__ import annotations

import inspect
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from automc.app import catalog, driving, latencies, warm
from automc.app.confidence import Audit, audit, median_errors, savings
from automc.core.budget import Budget
from automc.core.hopeless import Doubt
from automc.core.layers import LayerTable
from automc.core.memory import RememberingProposer
from automc.core.metrics import Objective, losses
from automc.core.pareto import covered, front, knee
from automc.core.ports import Proposer, Stopper
from automc.core.rules import nearest, resolve
from automc.core.search import Ending, Listener, Search
from automc.core.space import SearchSpace
from automc.core.study import StudySpec
from automc.core.trial import Trial, TrialState
from automc.errors import SpecError, UnknownTrial
from automc.operators import OPERATORS
from automc.proposers.feasible import FeasibleProposer
from automc.stores import TrialDatabase

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from automc.evaluation.evaluator import NetworkEvaluator
    from automc.export.proof import Proof


OBJECT = "python:object"
"""What a spec says in the place of a model or data that was given as an object."""


class Study:
    """One study in one database. Everything is read from the database when it is asked for.

    Args:
        model, data, task: the objects a study was started with, where its spec cannot rebuild them (a Python object
            instead of a name), as ``automc.search`` takes them.
    """

    def __init__(self, name: str, store: TrialDatabase, storage: str, **objects: Any) -> None:
        self.name, self.storage = name, storage
        self.store = store
        self._objects = {key: value for key, value in objects.items() if value is not None}
        if isinstance(self._objects.get("data"), Mapping):
            from automc.evaluation.readers.user import as_data

            self._objects["data"] = as_data("data", self._objects["data"])

    @property
    def spec(self) -> StudySpec:
        """The revision in force."""
        return self.store.spec(self.name)

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """Plain data found before the first trial: layer table, space, baseline metrics, trials of other studies."""
        return self.store.facts(self.name)

    @cached_property
    def layers(self) -> LayerTable:
        """The layer table of the original model."""
        return LayerTable.from_data(self.facts["layers"])

    def revise(self, spec: StudySpec, facts: Mapping[str, Any] | None = None) -> None:
        """Put a new revision in force and, with it, new facts."""
        self.store.revise(spec, facts)
        for known in ("facts", "layers"):
            self.__dict__.pop(known, None)

    @property
    def baseline(self) -> dict[str, float]:
        """The original model's metrics."""
        return dict(self.facts["baseline"])

    @cached_property
    def evaluator(self) -> NetworkEvaluator:
        """Model, data and measurement, rebuilt from the spec."""
        found: NetworkEvaluator = prepared(self.spec, self._objects, self.store.latencies)
        latencies.keep(self.store, found)
        return found

    @property
    def space(self) -> SearchSpace:
        """The search space, made of the model anew.

        Raises:
            SpecError: it is not the space the study began with.
        """
        spec = self.spec
        table = replace(self.evaluator.table, sensitivity=self.layers.sensitivity)
        space = resolve(spec.rules, spec.order, table, OPERATORS, spec.orders)
        if json.loads(json.dumps(space.to_data())) != self.facts["space"]:
            raise SpecError(
                f"study {self.name!r}: model or operators give another space than when it began; start a new study"
            )
        return space

    def records(self) -> list[Trial]:
        """All trials, in order of number."""
        return list(self.store.trials(self.name))

    def trial(self, number: int) -> Trial:
        """One trial. Raises UnknownTrial."""
        found = self.store.query(self.name, f"number == {number}")
        if not found:
            raise UnknownTrial(f"study {self.name!r} has no trial {number}")
        return found[0]

    def trials(self, where: str | None = None, sort: Sequence[str] = (), limit: int | None = None) -> pd.DataFrame:
        """One row a trial: number, state, rung, reason, its metrics, seconds, twin, fingerprint.

        Args:
            where: a filter such as ``"top1 >= 0.95 and size_ratio < 0.2"``.
            sort: columns, ``-`` in front for descending.
        """
        return _frame(self.store.query(self.name, where or "", tuple(sort), limit))

    def front(self) -> list[Trial]:
        """The feasible, undominated, complete trials."""
        spec = self.spec
        return front(self.records(), spec.objectives, spec.constraints)

    def pareto(self, pick: str | None = None) -> pd.DataFrame:
        """The front as ``trials`` would show it, or the one member that ``pick`` names (see ``picked``)."""
        members = self.front()
        return _frame([self.picked(pick)] if pick else members)

    def picked(self, pick: str = "knee") -> Trial:
        """One member of the front.

        Args:
            pick: ``knee``; ``max:METRIC`` or ``min:METRIC``; or a filter: of the members it holds for, the
                best by the first objective that the filter does not speak of (``top1 >= 0.95`` gives the
                smallest of them, ``size_ratio <= 0.1`` the most accurate).

        Raises:
            SpecError: no such rule. UnknownTrial: the front is empty, or the filter holds for none of it.
        """
        spec, members = self.spec, self.front()
        if not members:
            raise UnknownTrial(f"study {self.name!r} has no front yet: no complete trial meets its constraints")
        if pick == "knee":
            return members[knee(np.array([losses(spec.objectives, _metrics(t)) for t in members]))]
        side, colon, metric = pick.partition(":")
        if colon and side in ("max", "min"):
            objective = Objective(metric, "maximize" if side == "max" else "minimize")
            known = [t for t in members if metric in _metrics(t)]
            if not known:
                measured = ", ".join(_metrics(members[0]))
                raise SpecError(f"pick {pick!r}: this study did not measure {metric} (it has: {measured})")
            return min(known, key=lambda t: objective.loss(_metrics(t)))
        if not any(sign in pick for sign in "<>=! "):
            rules = "knee, max:METRIC, min:METRIC or a filter such as 'size_ratio <= 0.1'"
            raise SpecError(f"pick {pick!r}: no such rule{nearest(pick, ['knee'])} (allowed: {rules})")
        fitting = {t.number for t in self.store.query(self.name, pick)}
        chosen = [t for t in members if t.number in fitting]
        if not chosen:
            raise UnknownTrial(f"study {self.name!r}: no member of the front has {pick}")
        named = {_quantity(word) for word in re.findall(r"\w+", pick)}
        by = next((o for o in spec.objectives if _quantity(o.metric) not in named), spec.objectives[0])
        return min(chosen, key=lambda t: by.loss(_metrics(t)))

    def best(self, pick: str = "knee") -> nn.Module:
        """The compressed model of ``picked(pick)``, repaired at the last rung, in eval mode.

        Raises:
            SpecError: as ``picked``, or the study has no network (a synthetic evaluator).
        """
        policy = self.picked(pick).policy
        return networked(self).build(policy, len(self.spec.rungs) - 1)

    def summary(self) -> dict[str, Any]:
        """Counts, failures by reason, best values, front size, share of the box the front covers, baseline, errors."""
        spec, records, members = self.spec, self.records(), self.front()
        saved = savings(records)
        counts = Counter(t.state for t in records)
        return {
            "study": self.name,
            "storage": self.storage,
            "revision": spec.revision,
            "proposer": spec.proposer.name,
            "budget": spec.budget.trials,
            "counts": {state.value: counts[state] for state in TrialState},
            "failures": dict(Counter(t.reason for t in records if t.state is TrialState.FAILED)),
            "answered_from_store": sum(t.twin is not None for t in records),
            "best": {o.metric: min(map(_metrics, members), key=o.loss)[o.metric] for o in spec.objectives if members},
            "front": [t.number for t in members],
            "covered": covered(members, spec.objectives, spec.constraints, self.baseline),
            "baseline": self.baseline,
            "seconds": sum(t.measurement.seconds for t in records if t.measurement and t.twin is None),
            "median_errors": median_errors(records),
            "prediction_error": latencies.prediction_error(records),
            "warm_start": warm.summary(self.facts),
            "inputs": {**asdict(saved), "share": saved.share, "doubt": _doubt(spec) if saved.stopped else None},
        }

    def audit(self) -> Audit:
        """Prove the early stops: measure every hopeless trial on all inputs and compare the fronts (see ``Audit``)."""
        return audit(self)

    def run(self, listener: Listener | None = None) -> Ending:
        """Search until the budget is spent, somebody asks for a stop, or Ctrl-C.

        Raises:
            LeaseHeld: another driver searches this study. SpecError: the model is not the one it began with.
        """
        with driving.Tenure(self.store, self.name) as tenure, driving.interrupts() as asked:
            spec, space = self.spec, self.space
            proposer, stopper = built(spec, space)
            lasting = RememberingProposer(proposer, self.store, self.name, warm.told(self.facts, space), driving.talk)
            try:
                with driving.executor(self.evaluator, spec.workers) as executor:
                    search = Search(spec, space, (lasting, stopper), executor, self.store, listener)
                    ending = search.run(lambda: asked.is_set() or tenure.over)
                    lasting.keep()
                    return ending
            except KeyboardInterrupt:  # before the first trial or after the last: nothing was running
                return Ending.INTERRUPTED

    def export(self, number: int, folder: Path, formats: Sequence[str] = ("onnx", "safetensors")) -> Proof:
        """Build a trial's model, repair it at the last rung, write it, load it in a fresh process and measure it.

        Raises:
            SpecError: the trial has no measurement. ProofError: the file is not what was promised.
        """
        from automc.app.delivery import deliver

        trial = self.trial(number)
        if trial.measurement is None:
            raise SpecError(f"trial {self.name}/{number} is {trial.state.value}: only a measured trial can be exported")
        return deliver(self, trial, Path(folder), tuple(formats))

    def close(self) -> None:
        """Close the database."""
        self.store.close()


def networked(study: Study) -> NetworkEvaluator:
    """The study's evaluator, where it has a network to build.

    Raises:
        SpecError: it has not (a synthetic evaluator).
    """
    if not hasattr(study.evaluator, "build"):
        name = study.spec.evaluator.name
        raise SpecError(f"study {study.name!r} has evaluator {name}: there is no network to build or export")
    return study.evaluator


def prepared(spec: StudySpec, objects: Mapping[str, Any], known: latencies.Known) -> Any:
    """The evaluator that a spec names.

    Args:
        known: latencies of single layers by device; an evaluator that has no use for them is not given them.

    Raises:
        SpecError: model, data or task were given as Python objects, which a database cannot rebuild, and are not given
            again.
    """
    for kind, name in (("model", spec.model.name), ("data", spec.data.name), ("task", spec.task.name)):
        if name == OBJECT and kind not in objects:
            raise SpecError(
                f"study {spec.name!r} was started with its {kind} as a Python object: give it again, as in "
                f"automc.open_study({spec.name!r}, {kind}=...); resume and extend take it too"
            )
    prepare = catalog.part(catalog.EVALUATORS, "evaluator", spec.evaluator.name)
    given = {"known": known} if "known" in inspect.signature(prepare).parameters else {}
    return prepare(spec, **objects, **given)


def built(spec: StudySpec, space: SearchSpace) -> tuple[Proposer, Stopper]:
    """Proposer and stopper of a spec, which have been told nothing yet.

    Raises:
        SpecError: unknown names or settings; no policy of the space keeps the constraints; the proposer cannot work
            with this space or these objectives.
    """
    budget = Budget(space, spec.constraints)
    shared = (space, spec.objectives, spec.constraints, spec.seed)
    try:
        proposer: Proposer = catalog.build(catalog.PROPOSERS, "proposer", spec.proposer, *shared)
    except SpecError as error:
        said = str(error)
        raise SpecError(said if said.startswith("proposer") else f"proposer {spec.proposer.name}: {said}") from error
    if budget.constraints:
        proposer = FeasibleProposer.around(proposer, space, budget)
    return proposer, catalog.build(catalog.STOPPERS, "stopper", spec.stopper)


def _metrics(trial: Trial) -> Mapping[str, float]:
    return {"seconds": trial.measurement.seconds, **trial.measurement.metrics} if trial.measurement else {}


def _errors(trial: Trial) -> Mapping[str, float]:
    """The standard errors, and of how many inputs."""
    found = trial.measurement
    return {**{f"{name}_error": e for name, e in found.errors.items()}, "samples": found.samples} if found else {}


def _doubt(spec: StudySpec) -> float:
    return float(spec.evaluator.settings.get("doubt", Doubt().doubt))


def _quantity(metric: str) -> str:
    """What a metric measures, whatever its unit: size_bytes and size_ratio are both about size."""
    return re.sub("_(ratio|bytes|ms|mj)$", "", metric)


def _frame(trials: Sequence[Trial]) -> pd.DataFrame:
    import pandas as pd

    rows = [
        {
            "number": t.number,
            "state": t.state.value,
            "rung": t.rung,
            "reason": t.reason,
            **_metrics(t),
            **_errors(t),
            "twin": t.twin,
            "fingerprint": t.policy.fingerprint,
        }
        for t in trials
    ]
    return pd.DataFrame(
        rows, columns=None if rows else ["number", "state", "rung", "reason", "seconds", "twin", "fingerprint"]
    )
