"""AMC: channel pruning by DDPG, layer by layer (He et al., ECCV 2018), as its paper and its code have it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import numpy as np

from automc.core.analytic import layer_weights
from automc.core.budget import Budget
from automc.core.layers import Layer
from automc.core.ledger import Ledger
from automc.core.metrics import Constraint, Objective
from automc.core.policy import Policy, Value
from automc.core.signature import OneOf, Within
from automc.core.space import Decision, SearchSpace
from automc.errors import SpecError
from automc.proposers.ddpg.agent import Agent, AgentSettings, Floats
from automc.proposers.ddpg.episode import (
    REWARDS,
    Turn,
    Walk,
    in_order,
    refuse_others,
    refuse_unpredicted,
    scaled,
    snapped,
    task_of,
    values_of,
)
from automc.proposers.ddpg.proposer import (
    Choose,
    Count,
    Decay,
    EpisodeProposer,
    Priority,
    Rate,
    Replay,
    Sigma,
    Units,
    Warmup,
)
from automc.proposers.targets import Targets

GUARANTEED = ("error_macs", "error_params")
"""Rewards that weigh accuracy against cost by themselves, so that no budget is needed."""

Decide = Callable[[int, Floats], Value]


class AMCProposer(EpisodeProposer):
    """AMC. An episode visits the groups in the order of their first layer; an action is the share of channels kept.

    With the reward ``accuracy`` every action is clamped so that the budget can still be met when all later groups keep
    ``lower``: the study's analytic constraints and, where it minimises a cost, the bound that ``Targets`` has for the
    trial's number. The actor does not know the bound, as AMC's does not: AMC is made for one. The rewards
    ``error_macs`` and ``error_params``, -error x ln(MACs or parameters), need none (the accuracy-guaranteed mode).

    As in the code, updates begin after ``warmup`` episodes and there is one for every step that is added; the reward
    baseline is a moving average over batches, and the replay holds 100 episodes. It replays the executed action, which
    is the share that the policy keeps; the code replays the actor's answer before the clamp (``proposed``). Another
    difference: group by group, layers whose channels are coupled are decided once, at the first, while the code repeats
    the action at the others.

    Args:
        variant: the state. ``code`` has 10 features: index, linear or not, channels in and out, stride, kernel,
            weights, MACs saved while later groups keep ``lower``, MACs of later layers, last action. ``paper`` has 11:
            index, channels out and in, height and width of the input, stride, kernel, MACs, MACs saved so far, MACs of
            later layers, last action. The layer is the first that loses inputs.
        lower: least share of channels that may be kept.
        episodes: how many the replay holds.
        others: see AgentSettings.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        variant: Annotated[str, OneOf(("code", "paper"))] = "code",
        reward: Annotated[str, OneOf(("accuracy", *GUARANTEED))] = "accuracy",
        replay: Replay = "executed",
        lower: Annotated[float, Within(0, 1, below=True)] = 0.2,
        warmup: Warmup = 100,
        sigma: Sigma = 0.5,
        decay: Decay = 0.95,
        episodes: Count = 100,
        hidden: Units = 300,
        actor_rate: Rate = 1e-4,
        critic_rate: Rate = 1e-3,
        batch: Count = 64,
        updates: Annotated[int, Within(0, 10_000)] = 0,
        priority: Priority = 0.0,
    ) -> None:
        refuse_others("amc", space, [("prune", "prune_ratio")])
        refuse_unpredicted("amc", constraints)
        budget = Budget(space, constraints)
        task = task_of("amc", objectives)
        targets = None if reward in GUARANTEED else Targets(space, objectives, constraints, budget)
        environment = _Pruning(space, budget, targets, (variant, lower), lambda m: REWARDS[reward](task, m))
        agent = AgentSettings(
            hidden=hidden,
            actor_rate=actor_rate,
            critic_rate=critic_rate,
            batch=batch,
            capacity=episodes * environment.steps,
            warmup=warmup,
            sigma=sigma,
            decay=decay,
            updates=updates,
            priority=priority,
        )
        self.remarks = targets.remarks if targets else ()
        found = Agent(environment.features, 1, agent, seed)
        super().__init__(environment, found, seed, budget, replay)


class _Pruning:
    """See AMCProposer."""

    actions = 1

    def __init__(
        self,
        space: SearchSpace,
        budget: Budget,
        targets: Targets | None,
        settings: tuple[str, float],
        reward: Callable[[Mapping[str, float]], float],
    ) -> None:
        variant, lower = settings
        self._space, self._targets, self._paper, self.reward = space, targets, variant == "paper", reward
        self._bounds = budget.constraints
        self._decisions = in_order(space)
        self._walk = Walk(space, [Turn(d, _keeping(d, lower)) for d in self._decisions], budget)
        self._so_far = Ledger(space)
        layers = [_losing_inputs(space, d) for d in self._decisions]
        self._states = scaled([(_paper_row if self._paper else _code_row)(layer) for layer in layers])
        total = max(space.layers.macs, 1)
        self._behind = [sum(o.macs for o in space.layers.layers if o.index > own.index) / total for own in layers]
        self.features, self.steps = self._states.shape[1], len(layers)
        self._walk.start(self._bounds)
        if not self._walk.keeps():
            raise SpecError(
                f"proposer amc: with {lower:g} of the channels of every group {' and '.join(map(str, self._bounds))} "
                "cannot be kept; let the setting 'lower' be smaller"
            )

    def play(self, choose: Choose, number: int) -> Policy:
        turns = self._walk.turns
        self._run(
            self._targets.at(number) if self._targets else self._bounds,
            lambda step, state: turns[step].value(self._walk.clamped(float(choose(step, state)[0]))),
        )
        return self._space.policy(self._walk.values)

    def retrace(self, policy: Policy, number: int, proposed: Floats | None = None) -> tuple[Floats, Floats] | None:
        values = values_of(self._decisions, policy)
        if values is None:
            return None
        states = self._run((), lambda step, _: values[self._decisions[step].site])
        kept = np.array([[1 - float(values[d.site])] for d in self._decisions], dtype=np.float32)
        return states, kept if proposed is None else proposed

    def _run(self, bounds: Sequence[Constraint], decide: Decide) -> Floats:
        """Walk the groups; the states on the way."""
        walk, last = self._walk, 1.0
        states = self._states.copy()
        walk.start(bounds)
        self._so_far.put({d.site: 0.0 for d in self._decisions})
        for step, decision in enumerate(self._decisions):
            left = (self._so_far.costs() if self._paper else walk.costs)["macs_ratio"] if step else 1.0
            states[step, -3:] = 1 - left, self._behind[step], last
            value = decide(step, states[step])
            walk.take(value)
            if self._paper:
                self._so_far.put({decision.site: value})
            last = 1 - float(value)
        return states


def _keeping(decision: Decision, lower: float) -> Callable[[float], Value]:
    """From the share that is kept to the ratio that goes."""
    snap = snapped(decision)
    return lambda keep: snap(1 - max(keep, lower))


def _losing_inputs(space: SearchSpace, decision: Decision) -> Layer:
    """The first layer whose inputs the group's channels are; of a group that feeds none, its first producer."""
    group = space.layers.group(decision.site.layer)
    found = [space.layers.layer(name) for name in group.consumers or group.producers]
    return min(found, key=lambda layer: layer.index)


def _code_row(layer: Layer) -> list[float]:
    linear, stride, kernel = layer.kind == "linear", *_window(layer)
    weights = layer_weights(layer)
    return [layer.index, linear, layer.in_channels, layer.out_channels, stride, kernel, weights, 0, 0, 0]


def _paper_row(layer: Layer) -> list[float]:
    stride, kernel = _window(layer)
    height, width = ([*layer.out_shape[1:], 1, 1])[:2]
    sides = [height * max(stride, 1), width * max(stride, 1)]
    return [layer.index, layer.out_channels, layer.in_channels, *sides, stride, kernel, layer.macs, 0, 0, 0]


def _window(layer: Layer) -> tuple[int, int]:
    """Stride and kernel; 0 and 1 of a linear layer, as the code has it."""
    return (layer.stride or (0,))[0], (layer.kernel or (1,))[0]
