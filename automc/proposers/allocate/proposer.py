"""Allocation as a proposer: solve for an aim, learn from what was measured, solve again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Annotated

import numpy as np

from automc.core.budget import Budget
from automc.core.metrics import Constraint, Objective
from automc.core.policy import Policy, Site, Value
from automc.core.ports import Proposal
from automc.core.sensitivity import MEASURES
from automc.core.signature import OneOf, Within
from automc.core.space import SearchSpace
from automc.core.trial import Trial, TrialState
from automc.errors import SpecError
from automc.proposers.allocate.free import Free
from automc.proposers.allocate.model import DamageModel
from automc.proposers.allocate.refit import Evidence, Posterior, prior, refitted
from automc.proposers.allocate.solve import Solution, neighbours, solve
from automc.proposers.allocate.tables import Floats, Indices, Tables
from automc.proposers.fresh import fresh
from automc.proposers.targets import Targets
from automc.proposers.threads import one_thread

FIRST = 16
"""Proposals of a sweep before coefficients are varied: a first front."""

_TRIES = 4


class AllocateProposer:
    """Least predicted damage under the bounds of an aim (see Targets), solved over the whole network.

    The first proposals are those of the measured table. Trials then refit its weights (see ``refit``), and of every
    four proposals three are solved for weights drawn from what is known of them (Thompson sampling; the coefficient
    search of AMQ and HAWQ-V3's table), so that allocations around the optimum are tried. Of a policy measured on
    several rungs the highest counts; every rung has its own curve. Hopeless trials count like complete ones.

    Args:
        measure: of the sensitivity table: ``loss``, ``error`` or ``trace`` (HAWQ-V2).
        spread: times the deviation of drawn weights; 0 always solves for the mean, until its policies are told.
        gap: a solution for the mean weights that is not proved to be within this share of the optimum is solved
            exactly, in seconds instead of milliseconds; 1 never does.

    Raises:
        SpecError: nothing to allocate, or nothing that limits the cost.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        measure: Annotated[str, OneOf(tuple(MEASURES))] = "loss",
        spread: Annotated[float, Within(0, 1000)] = 1.0,
        gap: Annotated[float, Within(0, 1)] = 0.02,
    ) -> None:
        self._space, self._seed, self._spread, self._gap = space, seed, spread, gap
        self.measures = (measure,)
        self._budget = Budget(space, constraints)
        self._targets = Targets(space, objectives, constraints, self._budget)
        self.remarks = self._targets.remarks
        self.model = DamageModel(space, measure)
        if not self.model.axes:
            raise SpecError(
                "proposer allocate: the space has nothing to allocate (a ratio or bits); add a decision or use tpe"
            )
        self._free = Free(space, self.model.axes)
        self._memory = _Memory(self.model, self._free)
        self._seen: set[Policy] = set()

    def ask(self, numbers: range) -> list[Proposal]:
        with one_thread():
            return [self._ask(number) for number in numbers]

    def tell(self, trials: Sequence[Trial]) -> None:
        self._budget.learn(trials)
        self._targets.tell(trials)
        for trial in trials:
            if all(d.site in trial.policy and d.domain.holds(trial.policy[d.site]) for d in self._space.decisions):
                self._seen.add(trial.policy)
                self._memory.take(trial, self._targets.task)

    @cached_property
    def tables(self) -> Tables:
        """Costs of the space; built at the first ask, in about a second for a hundred layers."""
        return Tables(self._space, free=self._free.defaults)

    def _ask(self, number: int) -> Proposal:
        bounds = [self._tight(bound) for bound in self._targets.at(number)]
        known = self._memory.posterior()
        found: Solution | None = None
        for attempt in range(_TRIES):
            draw = np.random.default_rng([self._seed, number, attempt])
            sure = not attempt and self._means(number)
            spread = None if sure else self._spread * draw.standard_normal(known.size)
            # What is surely known gives one policy; what was thought before any trial gives others.
            thought = known if attempt < 2 else self._memory.prior._replace(mean=known.mean)
            weights, coefficients = thought.weights(len(self.model.axes), spread)
            damages, free = self.model.weighted(weights).damages, self._free.values(coefficients)
            found = self._solution(damages, bounds, sure)
            policy = self._policy(free, found.choice)
            if policy not in self._seen:
                return Proposal(policy, _memo(found, self.tables.exact))
        assert found is not None
        near = self._neighbour(found.choice, damages, bounds, free)
        if near in self._seen:
            near = fresh(self._space, self._budget, near, self._seen.__contains__, draw, self._targets.at(number))
        return Proposal(near, _memo(found, exact=False))

    def _means(self, number: int) -> bool:
        return not self._spread or number % 4 == 0 or (bool(self._targets.swept) and number < FIRST)

    def _solution(self, damages: Sequence[Floats], bounds: Sequence[Constraint], sure: bool) -> Solution:
        found = solve(self.tables, damages, bounds)
        if sure and found.damage - found.bound > self._gap * max(abs(found.damage), 1e-12):
            return solve(self.tables, damages, bounds, exact=True)
        return found

    def _policy(self, free: Mapping[Site, Value], choice: Indices) -> Policy:
        """Moved into the bounds of the study where the tables could not keep them."""
        policy = self._space.policy({**free, **self.tables.policy_values(choice)})
        if self._budget.holds(policy):
            return policy
        return self._space.decode(self._budget.fit(self._space.encode(policy)))

    def _neighbour(
        self, choice: Indices, damages: Sequence[Floats], bounds: Sequence[Constraint], free: Mapping[Site, Value]
    ) -> Policy:
        """The least damage one value away, within the bounds, that was not told; the choice itself if all were."""
        for other in neighbours(self.tables, damages, bounds, choice):
            policy = self._policy(free, other)
            if policy not in self._seen:
                return policy
        return self._policy(free, choice)

    def _tight(self, bound: Constraint) -> Constraint:
        """Bytes are predicted nearly: with the budget's margin."""
        margin = self._budget.margin(bound.metric)
        return replace(bound, bound=bound.bound / margin if bound.sign == "<=" else bound.bound * max(margin, 1.0))


class _Memory:
    """What was told, and the posterior: found anew when what was told has grown by a sixteenth, so that it depends on
    the trials alone and not on when they were told."""

    def __init__(self, model: DamageModel, free: Free) -> None:
        self._model, self._free = model, free
        self._rows: list[tuple[Policy, int, float]] = []
        self._features: list[tuple[Floats, Floats]] = []
        self.prior = prior(model, free.width)
        self._known: tuple[int, Posterior] = (0, self.prior)

    def take(self, trial: Trial, task: Objective | None) -> None:
        """Keep a trial that says how its policy does the task."""
        if task is None or trial.measurement is None:
            return
        if trial.state is not TrialState.COMPLETE and not trial.hopeless:
            return
        loss = task.loss(trial.measurement.metrics)
        if math.isfinite(loss):
            self._rows.append((trial.policy, trial.rung, loss))

    def posterior(self) -> Posterior:
        size = due = 0
        while due <= len(self._rows):
            size, due = due, due + max(1, due // 16)
        if size != self._known[0]:
            self._known = size, refitted(self.prior, self._evidence(size))
        return self._known[1]

    def _evidence(self, size: int) -> Evidence:
        fresh = [row[0] for row in self._rows[len(self._features) : size]]
        pairs = zip(self._model.features(fresh), self._free.features(fresh), strict=True)
        self._features += pairs
        highest: dict[Policy, int] = {}
        for i, (policy, rung, _) in enumerate(self._rows[:size]):
            if policy not in highest or rung > self._rows[highest[policy]][1]:
                highest[policy] = i
        rows = list(highest.values())
        return Evidence(
            np.array([self._features[i][0] for i in rows]),
            np.array([self._features[i][1] for i in rows]),
            np.array([self._rows[i][2] for i in rows]),
            np.array([self._rows[i][1] for i in rows], dtype=np.int64),
        )


def allocate(
    space: SearchSpace,
    model: DamageModel,
    bounds: Sequence[Constraint],
    free: Mapping[Site, Value] | None = None,
    tables: Tables | None = None,
) -> Policy:
    """The policy with the least predicted damage under bounds of core.budget.ANALYTIC, solved exactly where it can be.

    Args:
        free: values of decisions that are not allocated (their defaults). tables: built before, for many calls.

    Raises:
        SpecError: no policy was found that keeps the bounds.
    """
    values = {**Free(space, model.axes).defaults, **(free or {})}
    tables = tables or Tables(space, free=values)
    found = solve(tables, model.damages, bounds, exact=True)
    policy = space.policy({**values, **tables.policy_values(found.choice)})
    if Budget(space, ()).holds(policy, [b for b in bounds if not b.metric.startswith("size")]) and found.holds:
        return policy
    raise SpecError(f"allocate: no policy was found that keeps {', '.join(map(str, bounds))}; move the bounds")


def _memo(found: Solution, exact: bool) -> str:
    """Of what was solved: its predicted damage, the bound proved, and whether it is the optimum of the model."""
    data = {"damage": found.damage, "bound": min(found.bound, found.damage), "proved": found.proved and exact}
    return json.dumps(data)
