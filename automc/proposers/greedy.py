"""Greedy descent: one layer's one setting at a time, always the one that hurts least."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from automc.core.budget import Budget, Cube
from automc.core.metrics import Constraint, Objective, losses
from automc.core.policy import Policy
from automc.core.ports import Proposal
from automc.core.signature import Within
from automc.core.space import SearchSpace
from automc.core.trial import Trial, TrialState
from automc.proposers.descent import Descent, Move, Points
from automc.proposers.fresh import fresh
from automc.proposers.targets import Targets

_FLOOR = 0.25
"""No stage goes less far than this share of the first one, so that every descent ends."""

_FINEST, _AHEAD, _IDLE = 5, 8, 32
_SPREAD = 0.5
_REACHED = 1e-9


@dataclass(frozen=True)
class Stage:
    """A point on the way down, and those that may be next.

    Attributes:
        descent: how many descents ended before this one. index: stages before it in this descent; -1 for the stage that
            only measures the start.
        points: the candidates, in the order they are asked, shape (n, decisions). asked: what is evaluated for each.
        likeliest: place of the one that the measured sensitivities prefer.
    """

    descent: int
    index: int
    points: Points
    asked: tuple[Policy, ...]
    likeliest: int


class GreedyProposer:
    """NetAdapt (Yang et al. 2018), with any settings and any resource that follows from the policy.

    A descent begins at the least compressed policy. In each stage every decision that has a cost makes a candidate: the
    current policy, with this decision alone compressed just enough to save the stage's part of the resource. Where one
    decision cannot save so much, all others follow it on the straight way to the cheapest corner. The candidate that
    was measured best becomes current. The resource is the way left to all bounds and, where a cost is an objective, to
    the least the space can reach, in logarithms (see Descent); the part of stage i is ``step * decay^i`` of the whole
    way, and at least a quarter of ``step``. So a study of two objectives gets a front from the stages themselves.

    - Every proposal keeps the study's bounds: what is asked for a point outside lies on the straight way from there to
      the cheapest corner, and the candidates of a stage are compared by what was measured of their projections.
    - Best is: least violation of the constraints that a policy alone does not show, then least loss of the task, then
      the lowest place. The first measurement of a policy counts, whoever asked for it: those of higher rungs come later
      and to some candidates only. Policies that failed, or that a stopper ended, lose against all others.
    - Which trials run at this moment is unknown. The proposal for number n is therefore a candidate whose place is
      congruent to n modulo (trials not told yet + 1): of as many numbers in a row, no two are the same candidate. When
      a stage has none left for n, the number goes to the stage that would follow if nothing better came in. What was
      asked for it counts if that stage comes, and else is a policy that two stages may ask; the store then answers.
    - When the goal is reached, the next descent begins: with half the step (as far as a 32nd), other values for the
      decisions that cost nothing, and another choice of candidates. In each stage one candidate more draws those
      decisions anew.

    Args:
        step: part of the whole way that the first stage goes, in (0, 1]. decay: each stage's part over that of the
            stage before, in (0, 1].
        candidates: how many a stage has at most, those with the least measured damage (sensitivity "loss") per saved
            resource first, or, where nothing was measured, those that can save most; 0 for all, as the paper has it.

    Raises:
        SpecError: nothing limits what a policy costs.
    """

    measures = ("loss",)

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        step: Annotated[float, Within(0, 1, above=True)] = 0.1,
        decay: Annotated[float, Within(0, 1, above=True)] = 0.96,
        candidates: Annotated[int, Within(0, 10_000)] = 6,
    ) -> None:
        self._space, self._objectives, self._seed = space, tuple(objectives), seed
        self._step, self._decay, self._candidates = step, decay, candidates
        self._budget = Budget(space, constraints)
        targets = Targets(space, objectives, constraints, self._budget)
        self._task, self.remarks = targets.task, targets.remarks
        self._unknown = tuple(c for c in constraints if c not in self._budget.constraints)
        self._descent = Descent(space, targets, self._budget)
        self._way = float(self._descent.left(self._descent.start[None])[0])
        self._told: dict[str, tuple[float, ...]] = {}
        self._next = self._count = self._passed = self._before = 0
        self._ahead: dict[tuple[int, int, bytes], Stage] = {}
        self._stage = self._first(0)

    def ask(self, numbers: range) -> list[Proposal]:
        return [self._ask(number) for number in numbers]

    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            if not trial.state.finished:
                continue
            self._count += 1
            self._next = max(self._next, trial.number + 1)
            found = self._worth(trial)
            for name in {_name(trial.policy), _candidate(trial.memo)} - {""}:
                self._told.setdefault(name, found)

    def _worth(self, trial: Trial) -> tuple[float, ...]:
        if (trial.state is not TrialState.COMPLETE and not trial.hopeless) or trial.measurement is None:
            return (math.inf,)
        metrics = trial.measurement.metrics
        excess = sum(c.violation(metrics) / max(abs(c.bound), 1e-12) for c in self._unknown)
        task = self._task.loss(metrics) if self._task else 0.0
        return excess, task, *losses(self._objectives, metrics)

    def _ask(self, number: int) -> Proposal:
        self._advance()
        lanes = max(number - (self._next or self._count), 0) + 1
        stage, earlier, before = self._stage, set[str](), self._before
        for _ in range(_AHEAD):
            # Counted on from stage to stage: else a lane would have nothing where stages are narrower than lanes.
            for place, policy in enumerate(stage.asked, before):
                name = _name(policy)
                if place % lanes == number % lanes and name not in self._told and name not in earlier:
                    at = {"descent": stage.descent, "stage": stage.index, "candidate": name}
                    return Proposal(policy, json.dumps(at))
            earlier.update(map(_name, stage.asked))
            before += len(stage.asked)
            stage = self._after(stage)
        # Nothing new is near: all neighbours of a small space were measured.
        draw = np.random.default_rng([self._seed, number])
        near = self._space.decode(self._budget.fit(draw.random(len(self._space)).tolist()))
        if _name(near) in self._told:
            near = fresh(self._space, self._budget, near, lambda policy: _name(policy) in self._told, draw)
        return Proposal(near)

    def _advance(self) -> None:
        """To the first stage with a candidate that was not told of; a small space may have none, so that there is an
        end, which like all here depends on nothing but what was told.
        """
        while self._passed < len(self._told) + _IDLE and all(_name(p) in self._told for p in self._stage.asked):
            self._before += len(self._stage.asked)
            self._passed += 1
            self._stage = self._after(self._stage)
            self._ahead = {key: s for key, s in self._ahead.items() if key[:2] >= self._place(self._stage)}

    def _place(self, stage: Stage) -> tuple[int, int]:
        return stage.descent, stage.index

    def _after(self, stage: Stage) -> Stage:
        """The stage that follows if what was told of this one is all there will be."""
        known = [place for place, policy in enumerate(stage.asked) if _name(policy) in self._told]
        best = min(known, key=lambda place: (self._told[_name(stage.asked[place])], place), default=stage.likeliest)
        point = stage.points[best]
        key = (stage.descent, stage.index + 1, point.tobytes())
        if key not in self._ahead:
            left = float(self._descent.left(point[None])[0])
            end = left <= _REACHED
            self._ahead[key] = self._first(stage.descent + 1) if end else self._stage_at(*key[:2], point, left)
        return self._ahead[key]

    def _first(self, descent: int) -> Stage:
        start = self._descent.start if descent == 0 else self._redrawn(self._descent.start, descent, -1)
        return Stage(descent, -1, start[None], self._kept(start[None]), 0)

    def _stage_at(self, descent: int, index: int, point: Cube, left: float) -> Stage:
        part = self._step * max(self._decay**index, _FLOOR) / 2 ** min(descent, _FINEST)
        wanted = max(left - part * self._way, 0.0)
        draw = np.random.default_rng([self._seed, descent, index])
        chosen = self._chosen(point, left, wanted, draw if descent else None)
        points = np.repeat(point[None], len(chosen), axis=0)
        for row, move in zip(points, chosen, strict=True):
            row[move.decision] = move.place
        if self._descent.free or not chosen:
            points = np.vstack([points, self._redrawn(point, descent, index)])
        order = draw.permutation(len(points))
        points = self._descent.together(points, wanted)[order]
        return Stage(descent, index, points, self._kept(points), int(order.argmin()))

    def _chosen(self, point: Cube, left: float, wanted: float, draw: np.random.Generator | None) -> list[Move]:
        """Which decisions make a candidate, the most promising first."""
        scored = []
        for move in self._descent.moves(point, wanted):
            score = move.left
            if self._space.layers.sensitivity:
                i, before = move.decision, float(point[move.decision])
                score = (self._damage(i, move.place) - self._damage(i, before)) / (left - move.left)
            scored.append((score * (math.exp(_SPREAD * draw.standard_normal()) if draw else 1.0), move))
        return [move for _, move in sorted(scored)][: self._candidates or None]

    def _damage(self, index: int, place: float) -> float:
        decision = self._space.decisions[index]
        value = decision.domain.decode(place)
        found = 0.0 if isinstance(value, str) else self._space.layers.sensitivity.damage(decision.site, value)
        return min(found, 1e9)  # the difference of two infinite ones is none

    def _redrawn(self, point: Cube, descent: int, index: int) -> Cube:
        """Other values for the decisions that cost nothing."""
        drawn = point.copy()
        draw = np.random.default_rng([self._seed, descent, index + 1, 1])
        drawn[self._descent.free] = draw.random(len(self._descent.free))
        return drawn

    def _kept(self, points: Points) -> tuple[Policy, ...]:
        """What is asked for each point: its projection into the bounds."""
        inside = [self._space.decode(row.tolist()) for row in self._descent.together(points, 0.0, self._descent.bounds)]
        return tuple(
            policy if self._budget.holds(policy) else self._space.decode(self._budget.fit(self._space.encode(policy)))
            for policy in inside
        )


def _name(policy: Policy) -> str:
    return policy.fingerprint[:16]


def _candidate(memo: str) -> str:
    """Of which candidate this is the measurement; what was asked may have been moved into the bounds by others."""
    try:
        data = json.loads(memo or "{}")
    except ValueError:
        return ""
    found = data.get("candidate", "") if isinstance(data, dict) else ""
    return found if isinstance(found, str) else ""
