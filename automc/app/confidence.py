"""How sure a study's numbers are: standard errors, what early stops saved, and the proof that they cost nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from automc.core.metrics import Constraint, Objective
from automc.core.pareto import front
from automc.core.tally import Count
from automc.core.trial import Trial, TrialState

if TYPE_CHECKING:
    from automc.app.study import Study


@dataclass(frozen=True)
class Savings:
    """Inputs run for the scores of a study, and not run, because the first ones showed a policy to be hopeless.

    Attributes:
        trials: scored by running inputs. inputs: of the search split. run: evaluations of one input, all trials.
        stopped: trials that were found hopeless. saved: evaluations of one input that this saved.
    """

    trials: int
    inputs: int
    run: int
    stopped: int
    saved: int

    @property
    def share(self) -> float:
        """Of all evaluations that would have been run, those that were saved; 0 where there were none."""
        return self.saved / (self.run + self.saved) if self.saved else 0.0


def hopeless(count: int) -> str:
    """So many of them, in words."""
    return f"{count:,} hopeless {'trial' if count == 1 else 'trials'}"


def savings(counts: Sequence[Count]) -> Savings:
    """What the early stops of these trials saved; answers from the store count neither way."""
    scored = [count for count in counts if count.samples and not count.answered]
    inputs = max((count.samples for count in scored if not count.hopeless), default=0)
    stopped = [count for count in scored if count.hopeless]
    return Savings(
        trials=sum(count.number for count in scored),
        inputs=inputs,
        run=sum(count.number * count.samples for count in scored),
        stopped=sum(count.number for count in stopped),
        saved=sum(count.number * max(inputs - count.samples, 0) for count in stopped),
    )


def median_errors(trials: Sequence[Trial]) -> dict[str, float]:
    """The median standard error of each task metric over the complete trials."""
    found: dict[str, list[float]] = {}
    for trial in trials:
        if trial.state is TrialState.COMPLETE and trial.measurement:
            for name, error in trial.measurement.errors.items():
                found.setdefault(name, []).append(error)
    return {name: median(errors) for name, errors in found.items()}


@dataclass(frozen=True)
class Audit:
    """The front of a search with early stops beside the one it would have had without.

    Attributes:
        stopped: numbers of the trials that were found hopeless, all of them now measured in full.
        front, full_front: numbers of the members, with the early stops and without.
        estimates: of each stopped trial and objective, (estimate when it was stopped, value on all inputs).
    """

    stopped: tuple[int, ...]
    front: tuple[int, ...]
    full_front: tuple[int, ...]
    estimates: Mapping[int, Mapping[str, tuple[float, float]]]

    @property
    def unchanged(self) -> bool:
        return self.front == self.full_front


def audit(study: Study) -> Audit:
    """Measure every hopeless trial of a study on all inputs, and compare the fronts. Changes nothing in the study.

    Raises:
        NotFinite, CompressionError, EvaluationError: as the evaluation of a policy.
    """
    spec, records = study.spec, study.counted()
    full: dict[int, Trial] = {}
    estimates: dict[int, dict[str, tuple[float, float]]] = {}
    for trial in records:
        if trial.hopeless and trial.measurement:
            found = study.evaluator.evaluate(trial.policy, trial.rung, lambda step, value: True)
            full[trial.number] = replace(trial, state=TrialState.COMPLETE, measurement=found)
            names = [o.metric for o in spec.objectives if o.metric in found.metrics]
            before = trial.measurement.metrics
            estimates[trial.number] = {name: (before[name], found.metrics[name]) for name in names if name in before}
    aims = spec.objectives, spec.constraints
    return Audit(
        tuple(full), _members(records, *aims), _members([full.get(t.number, t) for t in records], *aims), estimates
    )


def _members(
    trials: Sequence[Trial], objectives: Sequence[Objective], constraints: Sequence[Constraint]
) -> tuple[int, ...]:
    return tuple(trial.number for trial in front(trials, objectives, constraints))
