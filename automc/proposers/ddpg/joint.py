"""The joint agent (ours): one episode decides every setting of every layer, under one budget."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated

import numpy as np
from scipy.special import ndtr

from automc.core.budget import Budget
from automc.core.metrics import Constraint, Objective
from automc.core.policy import Policy
from automc.core.ports import Proposal
from automc.core.signature import MOST, Within
from automc.core.space import SearchSpace
from automc.core.trial import Trial, TrialState
from automc.errors import OutOfSpace, StoreError
from automc.proposers.ddpg.agent import Agent, AgentSettings, Episode, truncated
from automc.proposers.ddpg.annals import GOALS, Annals, Told
from automc.proposers.ddpg.course import Course, Trace
from automc.proposers.ddpg.credit import Credit
from automc.proposers.ddpg.currencies import bounds
from automc.proposers.ddpg.memory import packed, unpacked
from automc.proposers.ddpg.proposer import Count, Decay, Priority, Sigma, Units, Warmup
from automc.proposers.ddpg.reference import Reference
from automc.proposers.ddpg.senses import Senses, absolute, relative, spread
from automc.proposers.ddpg.steps import Array, steps_of
from automc.proposers.targets import Targets

_ANCHORS, _TRIES = 8, 4
_RATE, _TAU, _FLOOR, _STEPS = 1e-3, 0.02, 0.02, 20_000


class JointProposer:
    """DDPG that walks the layers in order of execution and decides at each all its settings at once.

    A step is a layer; an action has one coordinate for each kind of setting in the space, those that a layer has not
    are masked. Group decisions are taken at the group's first producer, what concerns the whole network (distillation,
    criteria) at the end. What the agent sees is listed at ``Senses``; its actions correct a reference policy that fits
    what is left of the budget (``Reference``): an agent that has learned nothing proposes this policy, so it starts
    where a table of sensitivities leads, or else from a uniform policy. Every step is clamped so that, with all later
    ones at their cheapest, every bound can still be met (``Course``).

    The bounds are part of the state, and each trial number has its own aim (``Targets``), so one agent learns the
    whole front. Every complete or hopeless trial, whoever proposed it, is an episode: of the aim it was asked for, and
    with ``hindsight`` of the aim to cost what it costs (Andrychowicz et al. 2017). Rewards are standardised against
    trials of about the same cost (``Credit``) and counted anew as these become known. A policy that was measured on
    several rungs counts with its highest.

    The agent is as old as the trials it was told: with a window of n, n - 1 behind. More than 4 are not advised.

    Args:
        warmup: policies told before the actor is asked; until then the reference with noise. The first 8 proposals
            (one, where no cost is an objective) are the reference itself.
        sigma, decay: standard deviation of the noise, in parts of a domain, at most: half of it is common to all
            steps of an episode, and an episode has a part of it that is drawn uniformly. Its factor a trial told.
        updates: of the networks, for an episode replayed.
        hidden: units of each of the two hidden layers.
        discount: of what comes later in an episode. The reward belongs to all its steps, so 0 loses nothing.
        caution: how strongly the actor is held to actions that were tried, see AgentSettings.
        priority: exponent of prioritised replay, 0 for none.
        hindsight, sensitivities: 0 to learn without.

    Raises:
        SpecError: nothing limits the cost.
    """

    measures = ("loss",)

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        warmup: Warmup = 24,
        sigma: Sigma = 0.2,
        decay: Decay = 0.995,
        updates: Count = 4,
        hidden: Units = 64,
        discount: Annotated[float, Within(0, 1)] = 0.0,
        caution: Annotated[float, Within(0, MOST)] = 20.0,
        priority: Priority = 0.0,
        hindsight: Annotated[int, Within(0, 1)] = 1,
        sensitivities: Annotated[int, Within(0, 1)] = 1,
    ) -> None:
        self._space, self._seed = space, seed
        self._budget = Budget(space, constraints)
        self._targets = Targets(space, objectives, constraints, self._budget)
        self.remarks = self._targets.remarks
        self._steps = steps_of(space)
        self._course = Course(space, self._budget, self._steps)
        self._annals = Annals(Credit(objectives, constraints))
        self._warmup, self._sigma, self._decay, self._hindsight = warmup, sigma, decay, hindsight
        self._sensed = bool(sensitivities) and bool(space.layers.sensitivity)
        self._settings = AgentSettings(
            hidden=hidden,
            actor_rate=_RATE,
            critic_rate=_RATE,
            tau=_TAU,
            discount=discount,
            capacity=_STEPS,
            baseline=0.0,
            warmup=0,
            updates=updates,
            priority=priority,
            caution=caution,
        )

    @cached_property
    def _aimed(self) -> Array:
        """Which currencies have bounds."""
        found: Array = np.isfinite(bounds(self._targets.at(0), self._course.original)).astype(np.float64)
        return found

    @cached_property
    def _senses(self) -> Senses:
        reference = Reference(self._space, self._budget, self._aimed, self._steps)
        return Senses(self._space, self._steps, reference, self._sensed)

    @cached_property
    def _agent(self) -> Agent:
        return Agent(self._senses.features, self._senses.actions, self._settings, self._seed, mask=0)

    def ask(self, numbers: range) -> list[Proposal]:
        return [self._ask(number) for number in numbers]

    def _ask(self, number: int) -> Proposal:
        """A policy that was told already is left for its neighbours, farther ones with every try."""
        aims = self._targets.at(number)
        for attempt in range(_TRIES):
            draw = np.random.default_rng([self._seed, number, attempt])
            cube = self._played(aims, self._noise(number, float(draw.random())) * 2**attempt, draw)
            policy = self._space.decode(cube.tolist())
            if policy.fingerprint not in self._annals.told:
                break
        return Proposal(policy, json.dumps({"aim": {c.metric: c.bound for c in aims if c not in self._targets.fixed}}))

    def _noise(self, number: int, share: float) -> float:
        anchors = _ANCHORS if self._targets.swept else 1
        age = max(len(self._annals) - self._warmup, 0)
        return 0.0 if number < anchors else max(self._sigma * self._decay**age * share, _FLOOR * (self._sigma > 0))

    def _played(self, aims: Sequence[Constraint], sigma: float, draw: np.random.Generator) -> Array:
        """An episode for these aims; shape (decisions,), a point of the unit cube."""
        senses, learned = self._senses, len(self._annals) >= self._warmup
        trace = self._course.begin(aims)
        common, last = draw.standard_normal(senses.actions), np.full(senses.actions, 0.5)
        for t, step in enumerate(self._steps):
            state, usual = senses.at(trace, t, self._course.upper, last)
            draws = ndtr((common + draw.standard_normal(senses.actions)) / math.sqrt(2))
            calm = np.full(senses.actions, 0.5)
            action = (
                self._agent.act(state.astype(np.float32), draws, sigma) if learned else truncated(calm, sigma, draws)
            )
            own = list(step.coordinates)
            last, done = calm, self._course.take(trace, t, absolute(action, usual)[own])
            last[own] = relative(done, usual[own])
        return trace.cube

    def tell(self, trials: Sequence[Trial]) -> None:
        self._budget.learn(trials)
        self._targets.tell(trials)
        for trial in trials:
            if (trial.state is TrialState.COMPLETE or trial.hopeless) and trial.measurement is not None:
                self._learn(trial)

    def _learn(self, trial: Trial) -> None:
        assert trial.measurement is not None
        figures = self._annals.credit.figures(trial.measurement.metrics)
        try:
            cube = np.array(self._space.encode(Policy({d.site: trial.policy[d.site] for d in self._space.decisions})))
        except (KeyError, OutOfSpace):
            return  # a trial of another space
        if figures is None:
            return
        name = self._space.decode(cube.tolist()).fingerprint
        known = self._annals.told.get(name)
        if known is None:
            self._begin(name, self._course.retraced(cube), self._aims(trial), (trial.rung, figures))
        elif trial.rung > known.rung:
            known.promise = float(self._annals.rewards([known])[0][0])
            known.rung, known.figures = trial.rung, figures
            self._correct([name])
        if self._annals.ripe:
            self._correct(list(self._annals.told))

    def _aims(self, trial: Trial) -> tuple[Constraint, ...]:
        """The bounds that a trial was asked for, where its memo says so; one of another study had others."""
        if trial.number < 0:
            return ()
        try:
            aim = json.loads(trial.memo or "{}")["aim"]
            if isinstance(aim, int):  # as older versions wrote it
                return self._targets.at(max(aim, 0))
            return (*self._targets.fixed, *(Constraint(name, "<=", float(most)) for name, most in aim.items()))
        except (ValueError, TypeError, KeyError, AttributeError):
            return ()

    def _begin(self, name: str, trace: Trace, aims: Sequence[Constraint], outcome: tuple[int, Array]) -> None:
        """A new episode, for each of its goals."""
        goals = [trace.costs]
        if aims:
            asked = np.maximum(bounds(aims, self._course.original), trace.costs)
            goals.append(np.where(np.isfinite(asked), asked, trace.costs))
        aimed = self._aimed > 0
        places = np.array([spread(goal, trace.low[0], trace.high[0])[aimed] for goal in goals])
        told = self._annals.told[name] = Told(trace, places, *outcome)
        owner = GOALS * (len(self._annals) - 1)
        for i, (goal, reward) in enumerate(zip(goals, self._annals.rewards([told])[0], strict=True)):
            if self._hindsight or i or len(goals) == 1:
                states, actions = self._senses.replayed(trace, np.where(aimed, goal * (1 + 1e-9), math.inf))
                self._agent.learn(Episode(states.astype(np.float32), actions.astype(np.float32), reward), owner + i)

    def _correct(self, names: Sequence[str]) -> None:
        """The rewards of these policies, as they are seen now, in the replay."""
        owners = {name: GOALS * i for i, name in enumerate(self._annals.told)}
        rewards = self._annals.rewards([self._annals.told[name] for name in names])
        for name, found in zip(names, rewards, strict=True):
            for i, reward in enumerate(found):
                self._agent.correct(owners[name] + i, float(reward))

    def state(self) -> bytes:
        """See core.ports.Stateful."""
        tensors, facts = self._agent.memory()
        told, names = self._annals.memory()
        learned = {"bytes": self._budget.learned, "cheapest": self._targets.cheapest}
        return packed(tensors | told, {"agent": facts, **learned, **names})

    def restore(self, state: bytes) -> None:
        """See core.ports.Stateful."""
        tensors, facts = unpacked(state)
        annals = Annals(self._annals.credit)
        annals.recall(tensors, facts)
        try:
            off, agent = None if facts["bytes"] is None else float(facts["bytes"]), facts["agent"]
            cheapest = {str(metric): float(least) for metric, least in facts.get("cheapest", {}).items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StoreError(f"not the memory of this proposer: {error}") from error
        self._agent.recall(tensors, agent)
        self._annals, self._budget.learned, self._targets.cheapest = annals, off, cheapest
