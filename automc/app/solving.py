"""What-if budgets, answered from the database: the best trial that keeps them, or the policy that would."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from automc.app.picking import measured
from automc.app.study import Study
from automc.core.budget import ANALYTIC
from automc.core.metrics import METRICS, Constraint, losses
from automc.core.policy import Policy
from automc.core.rules import resolve
from automc.core.trial import Trial, TrialState
from automc.errors import SpecError
from automc.operators import OPERATORS
from automc.stores.columns import feasible

if TYPE_CHECKING:
    from automc.app.predicting import Prediction


@dataclass(frozen=True)
class Answer:
    """The best that is known under bounds.

    Attributes:
        bounds: that were asked for, and those of the study on other metrics.
        predicted: nothing of this was measured: ``policy`` is what allocation over the study's sensitivities gives.
        trial: the number of the one that was measured; None of a prediction.
        metrics: measured, or predicted. errors: their standard errors, or the deviations of the predictions.
        rung: on which it was measured, or for which it is predicted; None where trials of all rungs taught.
        kept: whether each bound holds, as far as it was measured or predicted; None where nothing is known.
        remarks: what else is to be known, a line each.
    """

    bounds: tuple[Constraint, ...]
    predicted: bool
    trial: int | None
    policy: Policy
    metrics: Mapping[str, float]
    errors: Mapping[str, float] = field(default_factory=dict)
    kept: Mapping[str, bool | None] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    rung: int | None = None

    def to_data(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "predicted": self.predicted,
            "trial": self.trial,
            "rung": self.rung,
            "bounds": [str(bound) for bound in self.bounds],
            "kept": dict(self.kept),
            "metrics": dict(self.metrics),
            "errors": dict(self.errors),
            "policy": json.loads(self.policy.to_json()),
            "fingerprint": self.policy.fingerprint,
            "remarks": list(self.remarks),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Answer:
        """What ``to_data`` made plain."""
        told = {name: data[name] for name in ("predicted", "trial", "rung", "metrics", "errors", "kept")}
        bounds = tuple(Constraint.parse(text) for text in data["bounds"])
        policy = Policy.from_json(json.dumps(data["policy"]))
        return cls(bounds=bounds, policy=policy, remarks=tuple(data["remarks"]), **told)


def solve(study: Study, asked: Sequence[Constraint]) -> Answer:
    """Answer from the database alone, without the model.

    The bounds of the study hold as well, but for those on a metric that is asked about. Of the complete trials that
    keep all, the best by the first objective, then by the next, is the answer. Where there is none, the answer is the
    policy with the least predicted damage under the bounds.

    Raises:
        SpecError: no bound, a metric that this study does not have, or no policy of the space can keep a bound.
    """
    spec = study.spec
    if not asked:
        raise SpecError("solve: give a bound, such as --max size_bytes=60kB")
    named = {bound.metric for bound in asked}
    bounds = (*asked, *(c for c in spec.constraints if c.metric not in named))
    best = _recorded(study, bounds) if study.reading().changeless else None
    trials = [] if best else study.counted()
    known = [t for t in trials if t.state is TrialState.COMPLETE]
    keeping = [t for t in known if all(bound.violation(measured(t)) == 0.0 for bound in bounds)]
    if best or keeping:
        best = best or min(keeping, key=lambda t: (losses(spec.objectives, measured(t)), t.number))
        found = best.measurement
        assert found is not None
        kept = {str(bound): True for bound in bounds}
        return Answer(bounds, False, best.number, best.policy, found.metrics, found.errors, kept, (), best.rung)
    _require_known(study, asked, known)
    return _predicted(study, bounds, trials)


def _recorded(study: Study, bounds: Sequence[Constraint]) -> Trial | None:
    """The best complete trial that keeps the bounds, by columns of the metrics that decide it."""
    aims = [o.metric for o in study.spec.objectives]
    known = study.store.numbers(study.name, list(dict.fromkeys([*aims, *(b.metric for b in bounds)])))
    columns = np.array([known.values[name] for name in aims])
    kept = feasible(known, bounds) & np.isfinite(columns).all(axis=0)
    rows = np.flatnonzero(kept)
    if not len(rows):
        return None
    signs = [1.0 if o.direction == "minimize" else -1.0 for o in study.spec.objectives]
    ordered = np.lexsort([known.number[rows], *(s * c[rows] for s, c in zip(signs[::-1], columns[::-1], strict=True))])
    return study.trial(int(known.number[rows[ordered[0]]]))


def _require_known(study: Study, asked: Sequence[Constraint], known: Sequence[Trial]) -> None:
    """Every metric that is asked about was measured, or follows from the policy."""
    names = {name for trial in known for name in measured(trial)}
    for bound in asked:
        if bound.metric not in names and bound.metric not in ANALYTIC:
            listed = ", ".join(sorted(names)) or "nothing yet"
            raise SpecError(f"solve: study {study.name!r} did not measure {bound.metric} (it has: {listed})")


def _predicted(study: Study, bounds: Sequence[Constraint], trials: Sequence[Trial]) -> Answer:
    """The allocation of the sensitivity table, corrected by the trials."""
    from automc.app.predicting import Prediction, measure_of
    from automc.proposers.allocate import AllocateProposer

    spec = study.spec
    space = resolve(spec.rules, spec.order, study.layers, OPERATORS, spec.orders)
    prediction = Prediction(space, trials)
    limits, remarks = _limits(bounds, prediction)
    if not space.layers.sensitivity:
        remarks.append("this study has no table of sensitivities: what decisions damage is by formulas")
    task = [o for o in spec.objectives if METRICS[o.metric].sampled]
    try:
        proposer = AllocateProposer(space, task, limits, spec.seed, measure_of(space), spread=0.0)
        proposer.tell(trials)
        (proposal,) = proposer.ask(range(len(trials), len(trials) + 1))
    except SpecError as error:
        said = str(error).splitlines()[0].partition("constraints[")
        reason = said[2].partition("]: ")[2] or said[0]
        raise SpecError(f"solve: no trial keeps {', '.join(map(str, bounds))}, and {reason}") from error
    metrics, errors = prediction.metrics(proposal.policy)
    if prediction.beyond(proposal.policy):
        remarks.append("more damage is predicted than any trial had: what is read off trials is a guess here")
    kept = {str(bound): bound.violation(metrics) == 0.0 if bound.metric in metrics else None for bound in bounds}
    return Answer(tuple(bounds), True, None, proposal.policy, metrics, errors, kept, tuple(remarks), prediction.rung)


def _limits(bounds: Sequence[Constraint], prediction: Prediction) -> tuple[list[Constraint], list[str]]:
    """Upper bounds on what allocation can keep, those on times and energies as bounds on the cost that goes with
    them; and what was left out.
    """
    limits, remarks = [], []
    for bound in bounds:
        if bound.metric in ANALYTIC:
            limits.append(bound)
        elif METRICS[bound.metric].sampled:
            continue  # the least damage under the others is the most that can be done for it
        elif bound.sign == "<=" and (found := prediction.in_costs(bound.metric, bound.bound)) is not None:
            limits.append(Constraint(found[0], "<=", found[1]))
            remarks.append(f"{bound} was taken for {found[0]} <= {found[1]:,.0f}, which the trials' line gives")
        else:
            remarks.append(f"{bound} cannot be foretold from the trials, and was left out")
    return limits, remarks
