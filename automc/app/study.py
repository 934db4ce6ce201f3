"""A study in its database: search on, ask, take a model away."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automc.app import bookmarks, catalog, driving, identity, latencies, listing, picking, revisions, warm
from automc.app.confidence import Audit, audit, median_errors, savings
from automc.core.budget import Budget
from automc.core.hopeless import Doubt
from automc.core.layers import LayerTable
from automc.core.memory import RememberingProposer
from automc.core.metrics import Objective
from automc.core.pareto import covered, front
from automc.core.ports import Proposer, Stopper
from automc.core.revision import Reading
from automc.core.rules import resolve
from automc.core.search import Ending, Listener, Search
from automc.core.space import SearchSpace
from automc.core.study import StudySpec
from automc.core.tally import by_state, failures
from automc.core.trial import Trial
from automc.errors import SpecError, UnknownTrial
from automc.operators import OPERATORS
from automc.proposers.feasible import FeasibleProposer
from automc.stores import TrialDatabase
from automc.stores.paging import Listing

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from automc.evaluation.evaluator import NetworkEvaluator
    from automc.export.proof.proving import Proof


TYPICAL = 500
"""So many trials tell what a typical one is like."""

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

    def evaluator_of(self, spec: StudySpec) -> Any:
        """As ``evaluator``, for a revision to come."""
        return prepared(spec, self._objects, self.store.latencies)

    @property
    def space(self) -> SearchSpace:
        """The search space, made of the model anew.

        Raises:
            SpecError: model, data or operators are not those the study began with.
        """
        return self.space_of(self.evaluator)

    def space_of(self, evaluator: Any) -> SearchSpace:
        """The search space in force, made of an evaluator's network. Raises as ``space``."""
        spec = self.spec
        table = replace(evaluator.table, sensitivity=self.layers.sensitivity)
        space = resolve(spec.rules, spec.order, table, OPERATORS, spec.orders)
        if json.loads(json.dumps(space.to_data())) != self.facts["space"]:
            raise SpecError(
                f"study {self.name!r}: model or operators give another space than when it began; start a new study"
            )
        identity.check(self.name, self.facts, evaluator)
        return space

    def reading(self, trials: Iterable[Trial] | None = None) -> Reading:
        """How the revision in force reads trials; needs no model.

        Args:
            trials: all of the study's, where they are at hand; otherwise they are read if they are needed.
        """
        specs = self.store.revisions(self.name)
        last = specs[-1]
        return Reading(
            specs,
            lambda: resolve(last.rules, last.order, self.layers, OPERATORS, last.orders),
            _Records(self) if trials is None else trials,
            OPERATORS,
        )

    def counted(self) -> list[Trial]:
        """All trials as the revision in force reads them: excluded ones failed, with the reason ``excluded``."""
        records = self.records()
        return list(map(self.reading(records), records))

    def sample(self, most: int) -> tuple[list[Trial], int]:
        """Trials as ``counted`` has them: all, or of more than ``most`` an even choice; and how many were left out."""
        total = sum(count.number for count in self.store.tally(self.name))
        found = list(map(self.reading(), listing.some(self, total, most)))
        return found, total - len(found)

    def records(self) -> list[Trial]:
        """All trials, in order of number."""
        return list(self.store.trials(self.name))

    def trial(self, number: int) -> Trial:
        """One trial. Raises UnknownTrial."""
        found = self.store.trials(self.name, numbers=[number])
        if not found:
            raise UnknownTrial(f"study {self.name!r} has no trial {number}")
        return found[0]

    def trials(
        self,
        where: str | None = None,
        sort: Sequence[str] = (),
        limit: int | None = None,
        columns: Sequence[str] = (),
        after: str = "",
    ) -> pd.DataFrame:
        """One row a trial: number, state, rung, reason, its metrics, seconds, twin, fingerprint.

        Args:
            where: a filter such as ``"top1 >= 0.95 and size_ratio < 0.2"``; see stores/filters.py.
            sort: columns, ``-`` in front for descending.
            limit: at most so many. Where more follow, ``attrs["after"]`` of the frame is a cursor, else "".
            columns: which, and in which order; all when empty.
            after: the cursor of the page before, of the same ``sort``.

        Raises:
            SpecError: a filter, name or cursor breaks a rule.
        """
        return listing.listed(self.store, self.name, Listing(where or "", tuple(sort), limit, after, tuple(columns)))

    def query(self, sql: str, rows: int | None = None, seconds: float | None = None) -> pd.DataFrame:
        """The answer to one SELECT over the database's views, of all its studies; see ``listing.answer``."""
        return listing.answer(self.store, sql, rows, seconds)

    def front(self, at: int | None = None) -> list[Trial]:
        """The feasible, undominated, complete trials of those that the revision in force can use, as stored.

        Args:
            at: the front as it was recorded when so many trials had finished.

        Raises:
            SpecError: so many have not finished.
        """
        if at is not None:
            return listing.front_at(self, at)
        if self.reading().changeless:
            return listing.current_front(self)
        spec, records = self.spec, self.records()
        seen = list(map(self.reading(records), records))
        return [records[member.number] for member in front(seen, spec.objectives, spec.constraints)]

    def pareto(self, pick: str | None = None, at: int | None = None) -> pd.DataFrame:
        """The front (of ``at``, see ``front``) as ``trials`` would show it, or the member that ``pick`` names."""
        members = self.front(at)
        return listing.frame_of([self.picked(pick, members)] if pick else members)

    def picked(
        self, pick: str = "knee", members: Sequence[Trial] | None = None, best: Objective | None = None
    ) -> Trial:
        """One member of the front.

        Args:
            members: the front, where it is known already.
            pick: ``knee``; ``max:METRIC`` or ``min:METRIC``; or a filter: of the members it holds for, the
                best by the first objective that the filter does not speak of (``top1 >= 0.95`` gives the
                smallest of them, ``size_ratio <= 0.1`` the most accurate).
            best: of the members that the filter ``pick`` holds for ("" for all), the best by this metric.

        Raises:
            SpecError: no such rule. UnknownTrial: the front is empty, or the filter holds for none of it.
        """
        return picking.picked(self, pick, self.front() if members is None else members, best)

    def best(self, pick: str = "knee") -> nn.Module:
        """The compressed model of ``picked(pick)``, repaired at the last rung, in eval mode.

        Raises:
            SpecError: as ``picked``, or the study has no network (a synthetic evaluator).
        """
        policy = self.picked(pick).policy
        return networked(self).build(policy, len(self.spec.rungs) - 1)

    def summary(self) -> dict[str, Any]:
        """Counts, failures by reason, best values, front size, share of the box the front covers, baseline, errors.

        Median errors are those of all trials, or, of very many, of an even choice of ``TYPICAL``.
        """
        spec, members, counts, read = self.spec, self.front(), self.store.tally(self.name), self.reading()
        states, saved = by_state(counts), savings(counts)
        typical = listing.some(self, sum(states.values()), TYPICAL)
        return {
            "study": self.name,
            "storage": self.storage,
            "revision": spec.revision,
            "proposer": spec.proposer.name,
            "budget": spec.budget.trials,
            "counts": {state.value: number for state, number in states.items()},
            "failures": failures(counts),
            "answered_from_store": sum(count.number for count in counts if count.answered),
            "best": {
                o.metric: min(map(picking.measured, members), key=o.loss)[o.metric] for o in spec.objectives if members
            },
            "front": [t.number for t in members],
            "covered": covered(members, spec.objectives, spec.constraints, self.baseline),
            "baseline": self.baseline,
            "seconds": sum(count.seconds for count in counts if not count.answered),
            "median_errors": median_errors(typical),
            "prediction_error": latencies.prediction_error(typical),
            "warm_start": warm.summary(self.facts),
            "revisions": revisions.listed(self.store.revisions(self.name), self.layers),
            "earlier": revisions.account(() if read.changeless else self.records(), read, spec.first_trial),
            "inputs": {**asdict(saved), "share": saved.share, "doubt": _doubt(spec) if saved.stopped else None},
        }

    def audit(self) -> Audit:
        """Prove the early stops: measure every hopeless trial on all inputs and compare the fronts (see ``Audit``)."""
        return audit(self)

    def run(self, listener: Listener | None = None) -> Ending:
        """Search until the budget is spent, somebody asks for its end, or Ctrl-C.

        Raises:
            LeaseHeld: another driver searches this study. SpecError: the model is not the one it began with.
        """
        try:
            with driving.Interrupts() as ctrl_c, driving.Tenure(self.store, self.name, ctrl_c.raise_now) as tenure:
                return self._searched(ctrl_c, tenure, listener)
        except KeyboardInterrupt:  # before the first trial or after the last: nothing was running
            return Ending.INTERRUPTED

    def _searched(self, ctrl_c: driving.Interrupts, tenure: driving.Tenure, listener: Listener | None) -> Ending:
        spec, space = self.spec, self.space
        proposer, stopper = built(spec, space)
        read = self.reading()
        lasting = RememberingProposer(proposer, self.store, self.name, warm.told(self.facts, space), driving.talk)
        evaluator = bookmarks.placed(self.evaluator, self.storage, self.name)
        with driving.executor(evaluator, spec.workers, spec.rungs) as executor:
            tidy = bookmarks.Tidy(evaluator, listener)
            search = Search(spec, space, (lasting, stopper), executor, self.store, tidy, read)
            ending = search.run(lambda: tenure.word.or_stronger(ctrl_c.word), lambda: tenure.wishes)
            lasting.keep()
            return ending

    def export(self, number: int, folder: Path, formats: Sequence[str] = ("onnx", "packed")) -> Proof:
        """Build a trial's model, repair it at the last rung, write it, load it in a fresh process and measure it.

        Where the proof did not pass, the files are in ``rejected/`` beside the folder. Raises as ``delivery.deliver``.
        """
        from automc.app.delivery import deliver

        return deliver(self, self.trial(number), Path(folder), tuple(formats)).proof

    def close(self) -> None:
        """Close the database."""
        self.store.close()


class _Records:
    """All trials of a study, read when somebody asks for the first."""

    def __init__(self, study: Study) -> None:
        self._study = study

    def __iter__(self) -> Iterator[Trial]:
        return iter(self._study.records())


def networked(study: Study) -> NetworkEvaluator:
    """The study's evaluator, where it has a network to build.

    Raises:
        SpecError: it has not (a synthetic evaluator), or its model or data are not those the study began with.
    """
    if not hasattr(study.evaluator, "build"):
        name = study.spec.evaluator.name
        raise SpecError(f"study {study.name!r} has evaluator {name}: there is no network to build or export")
    identity.check_digests(study.name, study.facts, study.evaluator)
    found: NetworkEvaluator = bookmarks.placed(study.evaluator, study.storage, study.name)
    return found


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


def _doubt(spec: StudySpec) -> float:
    return float(spec.evaluator.settings.get("doubt", Doubt().doubt))
