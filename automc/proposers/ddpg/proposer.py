"""Ask and tell over an environment that an agent walks: what all agents of this package share."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from automc.core.budget import Budget
from automc.core.policy import Policy
from automc.core.ports import Proposal
from automc.core.signature import MOST, OneOf, Within
from automc.core.trial import Trial, TrialState
from automc.errors import StoreError
from automc.proposers.ddpg.agent import Agent, Episode, Floats
from automc.proposers.ddpg.memory import packed, unpacked

Choose = Callable[[int, Floats], NDArray[np.float64]]
"""The actions, in [0, 1], that the agent wants at a step (from 0) in a state."""

Replay = Annotated[str, OneOf(("executed", "proposed"))]
Warmup = Annotated[int, Within(0, MOST)]
Sigma = Annotated[float, Within(0, 1)]
Decay = Annotated[float, Within(0, 1, above=True)]
Units = Annotated[int, Within(1, 4096)]
Rate = Annotated[float, Within(0, 1, above=True, below=True)]
Count = Annotated[int, Within(1, 10_000)]
Priority = Annotated[float, Within(0, 1)]
"""Settings of agents, and what each may be."""


class Environment(Protocol):
    """What an agent walks through; it has no memory of its own.

    Attributes:
        features, actions, steps: length of a state, actions of a step, steps of an episode.
    """

    features: int
    actions: int
    steps: int

    def play(self, choose: Choose, number: int) -> Policy:
        """One episode, for the ``number``-th aim."""
        ...

    def retrace(self, policy: Policy, number: int, proposed: Floats | None = None) -> tuple[Floats, Floats] | None:
        """The states, shape (steps, features), and the actions that were executed, shape (steps, actions), of the
        episode that gave a policy; None where its decisions are not those of the space.

        Args:
            proposed: the actor's own actions, of the same shape, to be returned in their place.
        """
        ...

    def reward(self, metrics: Mapping[str, float]) -> float:
        """What an episode is worth; not finite where the metrics do not say."""
        ...


class EpisodeProposer:
    """Trials are episodes, whoever proposed them: states and actions follow from the policy.

    An episode is played by the actor that learned all trials told so far; with ``n`` trials under way at a time it is
    ``n - 1`` episodes behind. Complete and hopeless trials teach, in the order they are told; failed and stopped ones
    do not. A policy that was measured again with more effort is no new episode: the steps in the replay get the
    figures of its highest rung, as every later episode of that policy does.

    Args:
        budget: the one the environment keeps; it learns from the trials how far predicted bytes are off.
        replay: ``executed`` for the actions that the policy has, ``proposed`` for the actor's own before the budget
            moved them, where the trial remembers them.
    """

    measures: tuple[str, ...] = ()

    def __init__(
        self, environment: Environment, agent: Agent, seed: int, budget: Budget, replay: str = "executed"
    ) -> None:
        self.environment, self.agent = environment, agent
        self._seed, self._budget, self._replay = seed, budget, replay
        self._known: dict[str, _Known] = {}

    def ask(self, numbers: range) -> list[Proposal]:
        return [self._ask(number) for number in numbers]

    def tell(self, trials: Sequence[Trial]) -> None:
        self._budget.learn(trials)
        for trial in trials:
            if (trial.state is TrialState.COMPLETE or trial.hopeless) and trial.measurement is not None:
                self._learn(trial, trial.measurement.metrics)

    def state(self) -> bytes:
        """See core.ports.Stateful."""
        tensors, facts = self.agent.memory()
        known = [[name, *of] for name, of in self._known.items()]
        return packed(tensors, {"agent": facts, "known": known, "bytes": self._budget.learned})

    def restore(self, state: bytes) -> None:
        """See core.ports.Stateful."""
        tensors, facts = unpacked(state)
        try:
            known = {str(n): _Known(int(owner), int(rung), float(reward)) for n, owner, rung, reward in facts["known"]}
            off = None if facts["bytes"] is None else float(facts["bytes"])
            own = facts["agent"]
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"not the memory of this proposer: {error}") from error
        self.agent.recall(tensors, own)
        self._known, self._budget.learned = known, off

    def _ask(self, number: int) -> Proposal:
        shape = (self.environment.steps, self.environment.actions)
        draws = np.random.default_rng([self._seed, number]).random(shape)
        sigma, wanted = self.agent.sigma, np.zeros(shape)

        def choose(step: int, state: Floats) -> NDArray[np.float64]:
            wanted[step] = actions = self.agent.act(state, draws[step], sigma)
            return actions

        policy = self.environment.play(choose, number)
        memo: dict[str, Any] = {"aim": number}
        if self._replay == "proposed":
            memo["actions"] = wanted.tolist()
        return Proposal(policy, json.dumps(memo))

    def _learn(self, trial: Trial, metrics: Mapping[str, float]) -> None:
        reward = self.environment.reward(metrics)
        if not math.isfinite(reward):
            return
        memo = _read(trial.memo)
        aim = memo.get("aim")
        number = aim if isinstance(aim, int) and aim >= 0 else max(trial.number, 0)
        traced = self.environment.retrace(trial.policy, number, self._proposed(memo))
        if traced is None:
            return
        name = trial.policy.fingerprint
        known = self._known.setdefault(name, _Known(len(self._known), trial.rung, reward))
        if trial.rung > known.rung:
            self._known[name] = known._replace(rung=trial.rung, reward=reward)
            self.agent.correct(known.owner, reward)
            return
        self.agent.learn(Episode(*traced, known.reward), known.owner)

    def _proposed(self, memo: Mapping[str, Any]) -> Floats | None:
        """The actor's own actions, where they are wanted and the trial remembers them."""
        if self._replay != "proposed":
            return None
        try:
            found = np.asarray(memo.get("actions"), dtype=np.float32)
        except (TypeError, ValueError):
            return None
        right = found.shape == (self.environment.steps, self.environment.actions)
        return found if right and bool(((found >= 0) & (found <= 1)).all()) else None


class _Known(NamedTuple):
    """Of a policy that was learned: the owner of its steps in the replay, and its highest rung and the reward there."""

    owner: int
    rung: int
    reward: float


def _read(memo: str) -> dict[str, Any]:
    try:
        data = json.loads(memo or "{}")
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}
