"""HAQ: bit widths by DDPG, two steps a layer (Wang et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, cast

import numpy as np

from automc.core.analytic import layer_weights
from automc.core.budget import Budget
from automc.core.layers import Layer
from automc.core.metrics import Constraint, Objective
from automc.core.policy import Policy, Value
from automc.core.signature import Within
from automc.core.space import Decision, SearchSpace
from automc.errors import SpecError
from automc.proposers.ddpg.agent import Agent, AgentSettings, Floats
from automc.proposers.ddpg.episode import (
    REWARDS,
    Turn,
    Walk,
    in_order,
    nearest,
    refuse_others,
    refuse_unpredicted,
    scaled,
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

WEIGHTS, ACTIVATIONS = "weight_bits", "activation_bits"


class HAQProposer(EpisodeProposer):
    """HAQ. An episode visits the layers in order, first the weights of a layer, then its input.

    An action ``a`` in [0, 1] is ``round(low - 0.5 + a (high - low + 1))`` bits, moved to the nearest of the domain.
    First and last layer get ``ends`` bits whatever the actor says. After the episode bits go down, one value of the
    domain at a time, from the last layer's input to the first layer's weights and again from the last, until the budget
    is kept: the study's analytic constraints and, where it minimises a cost, the bound that ``Targets`` has for the
    trial's number (the actor does not know it: HAQ is made for one budget).

    The reward is 0.1 x the metric in points. HAQ takes it relative to the original network's, which a proposer does not
    know; the difference is a constant, and the agent subtracts a moving average of the rewards from them anyway. As in
    the code there is one update for every step that is added, after ``warmup`` episodes, and the replay holds 128
    episodes. It replays the bits that the policy has, after they went down; the code replays the actor's answers, and
    the states they led to (``proposed``).

    The state has the code's 10 features: depthwise or not, channels in and out, stride, kernel, weights, size of the
    input's feature map, index, last action in bits over ``high``, and 1 at weights or 0 at inputs.

    Args:
        low, high: least and most bits, where the domain has them. ends: bits of the first and the last layer, or the
            nearest that the domain has; 0 for no such rule.
        episodes: how many the replay holds.
        others: see AgentSettings.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        replay: Replay = "executed",
        low: Annotated[int, Within(1, 32)] = 2,
        high: Annotated[int, Within(1, 32)] = 8,
        ends: Annotated[int, Within(0, 32)] = 8,
        warmup: Warmup = 20,
        sigma: Sigma = 0.5,
        decay: Decay = 0.99,
        episodes: Count = 128,
        hidden: Units = 300,
        actor_rate: Rate = 1e-4,
        critic_rate: Rate = 1e-3,
        batch: Count = 64,
        updates: Annotated[int, Within(0, 10_000)] = 0,
        priority: Priority = 0.0,
    ) -> None:
        if low >= high:
            raise SpecError(f"proposer.settings.low: haq: must be below high, which is {high}, not {low}")
        refuse_others("haq", space, [("quantize", WEIGHTS), ("quantize", ACTIVATIONS)])
        refuse_unpredicted("haq", constraints)
        budget = Budget(space, constraints)
        task = task_of("haq", objectives)
        targets = Targets(space, objectives, constraints, budget)
        environment = _Quantizing(
            space, budget, targets, (low, high, ends), lambda metrics: REWARDS["accuracy_points"](task, metrics)
        )
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
        beyond = f"haq: the first and the last layer have {ends} bits, as 'ends' says, which is above 'high' {high}"
        self.remarks = (*targets.remarks, *([beyond] if environment.most > high else ()))
        found = Agent(environment.features, 1, agent, seed)
        super().__init__(environment, found, seed, budget, replay)


class Bits:
    """What an action means at a decision.

    Args:
        limits: least and most bits. pinned: bits that it has whatever the action, or None.

    Raises:
        SpecError: the domain has no value within the limits.
    """

    def __init__(self, decision: Decision, limits: tuple[int, int], pinned: int | None) -> None:
        allowed = sorted(decision.domain.values(2), key=float)
        self.values = [v for v in allowed if limits[0] <= float(v) <= limits[1]]
        if pinned is not None:
            self.values = [nearest(allowed, pinned)]
        if not self.values:
            has = ", ".join(map(str, allowed))
            raise SpecError(
                f"proposer.settings.high: haq: {decision.site} has no value from {limits[0]} to {limits[1]} bits "
                f"(it has: {has}); move 'low' or 'high'"
            )
        self._low, self._high = float(self.values[0]), float(self.values[-1])

    def value(self, action: float) -> Value:
        """Args: action: in [0, 1]."""
        return nearest(self.values, round(self._low - 0.5 + action * (self._high - self._low + 1)))

    def action(self, value: Value) -> float:
        """One, in [0, 1], that means this value or, of one that is not allowed here, the nearest."""
        number = float(nearest(self.values, float(value)))
        return (number - self._low + 0.5) / (self._high - self._low + 1)

    def below(self, value: Value) -> Value | None:
        """The next lower value; None at the least."""
        place = self.values.index(value)
        return self.values[place - 1] if place else None


class _Quantizing:
    """See HAQProposer."""

    actions = 1

    def __init__(
        self,
        space: SearchSpace,
        budget: Budget,
        targets: Targets,
        limits: tuple[int, int, int],
        reward: Callable[[Mapping[str, float]], float],
    ) -> None:
        low, high, ends = limits
        self._space, self._targets, self.reward, self._most = space, targets, reward, high
        self._decisions = sorted(in_order(space), key=lambda d: _place(space, d))
        layers = [space.layers.layer(d.site.layer) for d in self._decisions]
        last = len(space.layers.layers) - 1
        pinned = [ends if ends and layer.index in (0, last) else None for layer in layers]
        self._bits = [Bits(d, (low, high), pin) for d, pin in zip(self._decisions, pinned, strict=True)]
        self.most = max(float(bits.values[-1]) for bits in self._bits)
        turns = [Turn(d, bits.value) for d, bits in zip(self._decisions, self._bits, strict=True)]
        self._walk = Walk(space, turns, budget)
        self._states = scaled([_row(layer) for layer in layers])
        self._states[:, -1] = [d.site.setting == WEIGHTS for d in self._decisions]
        self.features, self.steps = self._states.shape[1], len(layers)
        self._walk.start(budget.constraints)
        if not self._walk.keeps():
            raise SpecError(
                f"proposer haq: {' and '.join(map(str, budget.constraints))} cannot be kept with {low} bits everywhere "
                f"and {ends} in the first and last layer; set 'ends' to 0 or let 'low' be smaller"
            )

    def play(self, choose: Choose, number: int) -> Policy:
        _, chosen = self._along(lambda step, state: self._bits[step].value(float(choose(step, state)[0])))
        values = self._lowered(chosen, self._targets.at(number))
        return self._space.policy({d.site: value for d, value in zip(self._decisions, values, strict=True)})

    def retrace(self, policy: Policy, number: int, proposed: Floats | None = None) -> tuple[Floats, Floats] | None:
        values = values_of(self._decisions, policy)
        if values is None:
            return None
        if proposed is not None:
            states, _ = self._along(lambda step, _: self._bits[step].value(float(proposed[step, 0])))
            return states, proposed
        states, chosen = self._along(lambda step, _: values[self._decisions[step].site])
        actions = [[bits.action(value)] for bits, value in zip(self._bits, chosen, strict=True)]
        return states, np.array(actions, dtype=np.float32)

    def _along(self, decide: Callable[[int, Floats], Value]) -> tuple[Floats, list[Value]]:
        """The states on the way, and what was decided there."""
        states, chosen, last = self._states.copy(), list[Value](), 1.0
        for step in range(self.steps):
            states[step, -2] = last
            chosen.append(decide(step, states[step]))
            last = float(chosen[-1]) / self._most
        return states, chosen

    def _lowered(self, chosen: Sequence[Value], bounds: Sequence[Constraint]) -> list[Value]:
        """Bits taken away from the last step to the first, again and again, until the bounds are kept."""
        values, walk = list(chosen), self._walk
        walk.start([c for c in bounds if c.sign == "<="])
        for value in values:
            walk.take(value)
        while not walk.keeps():
            less = [bits.below(value) for bits, value in zip(self._bits, values, strict=True)]
            lowered = [step for step in reversed(range(self.steps)) if less[step] is not None]
            if not lowered:
                break
            for step in lowered:
                values[step] = cast(Value, less[step])
                walk.change(step, values[step])
                if walk.keeps():
                    break
        return values


def _place(space: SearchSpace, decision: Decision) -> tuple[int, bool]:
    return space.layers.layer(decision.site.layer).index, decision.site.setting == ACTIVATIONS


def _row(layer: Layer) -> list[float]:
    """The last two, which change, are the last action and the flag."""
    stride, kernel = (layer.stride or (0,))[0], (layer.kernel or (1,))[0]
    side = [size * max(stride, 1) for size in layer.out_shape[1:]]
    weights = layer_weights(layer)
    depthwise = layer.kind == "depthwise"
    return [
        depthwise,
        layer.in_channels,
        layer.out_channels,
        stride,
        kernel,
        weights,
        float(np.prod(side)),
        layer.index,
        1,
        1,
    ]
