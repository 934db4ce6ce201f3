"""The pipeline that joint search has to beat: a pruning search, then a search of bits on what it found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from automc.core.budget import Budget
from automc.core.metrics import Constraint, Objective, losses
from automc.core.policy import Site, Value
from automc.core.ports import Proposal, Proposer
from automc.core.space import SearchSpace
from automc.core.study import StudySpec
from automc.core.trial import Trial
from automc.proposers.feasible import FeasibleProposer
from automc.proposers.members import member

PRUNED = Constraint.parse("macs_ratio <= 0.5")
"""What the first half is for: the usual budget of a pruning search, chosen by hand, as it is there."""


@dataclass
class _Stage:
    """A search of some of the decisions with the others fixed."""

    space: SearchSpace
    proposer: Proposer


class Sequential:
    """AMC prunes with half of the evaluations (bits at their most), HAQ then finds bits for the best it found.

    Args:
        spec: the joint study. trials: evaluations of both together.
    """

    def __init__(self, spec: StudySpec, space: SearchSpace, trials: int) -> None:
        self._spec, self._space, self._half = spec, space, trials // 2
        self._first = self._stage("amc", "prune", {}, (spec.objectives[0],), (PRUNED,))
        self._second: _Stage | None = None
        self._told: list[Trial] = []

    def ask(self, numbers: range) -> list[Proposal]:
        return [self._ask(number) for number in numbers]

    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            self._told.append(trial)
            stage = self._first if trial.number < self._half else self._later()
            stage.proposer.tell([trial])

    def _ask(self, number: int) -> Proposal:
        stage = self._first if number < self._half else self._later()
        proposal = stage.proposer.ask(range(number, number + 1))[0]
        return proposal._replace(policy=self._space.policy(proposal.policy))

    def _later(self) -> _Stage:
        if self._second is None:
            best = min((t for t in self._told[: self._half] if t.measurement), key=self._loss)
            pruned = {site: value for site, value in best.policy.items() if site.operator == "prune"}
            spec = self._spec
            self._second = self._stage("haq", "quantize", pruned, spec.objectives, spec.constraints)
        return self._second

    def _loss(self, trial: Trial) -> tuple[float, float]:
        metrics = trial.measurement.metrics if trial.measurement else {}
        return PRUNED.violation(metrics), losses(self._spec.objectives, metrics)[0]

    def _stage(
        self,
        name: str,
        operator: str,
        known: dict[Site, Value],
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
    ) -> _Stage:
        most = {d.site: d.domain.decode(1.0) for d in self._space.decisions if d.site.operator != operator}
        free = tuple(d for d in self._space.decisions if d.site.operator == operator)
        space = replace(self._space, decisions=free, fixed={**self._space.fixed, **most, **known})
        shared = (space, objectives, constraints, self._spec.seed)
        return _Stage(space, FeasibleProposer(member(name, *shared), space, Budget(space, constraints)))
