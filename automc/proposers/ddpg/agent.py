"""DDPG: an actor and a critic learn from replayed steps (Lillicrap et al. 2016), with the choices of AMC and HAQ.

The actor maps a state to actions in [0, 1], the critic maps a state and actions to what the rest of the episode will
bring. Targets are slow copies of both. For a replayed step (s, a, r, s', going), where going is 0 at an episode's end:

    y = r - baseline + discount * going * critic'(s', actor'(s'))
    critic descends (y - critic(s, a))^2, actor ascends critic(s, actor(s)), targets follow by a share tau

The reward comes at an episode's end and is given to each of its steps; ``baseline`` is the moving average of the mean
rewards of the batches (He et al. 2018). Everything runs in float32 on one thread of the CPU; each draw has a seed of
its own, so what the agent is follows from the episodes it learned, in their order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from torch import Tensor
from torch.nn.functional import linear, relu

from automc.errors import StoreError

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class AgentSettings:
    """How the agent is made and learns; the defaults are AMC's.

    Attributes:
        hidden: units of each of the two hidden layers. actor_rate, critic_rate: of Adam. tau: share by which targets
            follow. discount: of what comes later. batch: steps of an update. capacity: steps that the replay holds.
        baseline: share of a batch's mean reward in the moving average.
        warmup: episodes whose actions are uniform, and after which nothing is learned yet.
        sigma, decay, floor: the noise of the first episode after them, its factor an episode, and its least value.
        updates: after an episode; 0 for one a step.
        priority: exponent of a step's last error in its chance to be replayed (Schaul et al. 2016); 0 is uniform.
        correction: exponent of the weights that correct for this, in [0, 1].
        caution: what the squared distance between the actor's answers and the replayed actions counts in the actor's
            loss, beside the critic's mean over its mean size (TD3+BC, Fujimoto & Gu 2021): with few episodes a critic
            is right only near them.
    """

    hidden: int = 300
    actor_rate: float = 1e-4
    critic_rate: float = 1e-3
    tau: float = 0.01
    discount: float = 1.0
    batch: int = 64
    capacity: int = 10_000
    baseline: float = 0.5
    warmup: int = 100
    sigma: float = 0.5
    decay: float = 0.95
    floor: float = 0.0
    updates: int = 0
    priority: float = 0.0
    correction: float = 0.5
    caution: float = 0.0


class Episode(NamedTuple):
    """``states``, shape (steps, features); ``actions``, shape (steps, actions), in [0, 1]; the reward at the end."""

    states: Floats
    actions: Floats
    reward: float


class Net:
    """A perceptron with two hidden layers; its weights are one flat vector, of which ``parts`` are views."""

    def __init__(self, inputs: int, hidden: int, outputs: int, squashed: bool) -> None:
        self.shapes = ((hidden, inputs), (hidden,), (hidden, hidden), (hidden,), (outputs, hidden), (outputs,))
        self.sizes = [math.prod(shape) for shape in self.shapes]
        self._squashed = squashed

    def drawn(self, generator: torch.Generator) -> Tensor:
        """Fresh weights: uniform within one over the root of a layer's inputs, as torch.nn.Linear has them."""
        fans = [shape[-1] for shape in self.shapes[::2] for _ in range(2)]
        draws = [torch.rand(size, generator=generator) for size in self.sizes]
        return torch.cat([(2 * u - 1) / math.sqrt(fan) for u, fan in zip(draws, fans, strict=True)])

    def parts(self, weights: Tensor) -> list[Tensor]:
        return [part.view(shape) for part, shape in zip(torch.split(weights, self.sizes), self.shapes, strict=True)]

    def __call__(self, parts: Sequence[Tensor], inputs: Tensor) -> Tensor:
        """Shape (batch, inputs) to (batch, outputs)."""
        hidden = relu(linear(relu(linear(inputs, *parts[:2])), *parts[2:4]))
        found = linear(hidden, *parts[4:])
        return torch.sigmoid(found) if self._squashed else found


class Learned:
    """The weights of a net, their slow copy, and Adam's moments (Kingma & Ba 2015); ``now`` and ``slow`` are the parts
    of the first two.
    """

    def __init__(self, net: Net, generator: torch.Generator, rate: float, tau: float) -> None:
        self._rate, self._tau = rate, tau
        weights = net.drawn(generator)
        self.tensors = {"weights": weights, "target": weights.clone()}
        self.tensors |= {"first": torch.zeros_like(weights), "second": torch.zeros_like(weights)}
        self.now, self.slow = net.parts(weights), net.parts(self["target"])
        self.count = 0

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def descend(self, gradient: Tensor) -> None:
        self.count += 1
        first = self["first"].lerp_(gradient, 0.1)
        second = self["second"].mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        scale = (second / (1 - 0.999**self.count)).sqrt_().add_(1e-8)
        self["weights"].addcdiv_(first, scale, value=-self._rate / (1 - 0.9**self.count))

    def follow(self) -> None:
        self["target"].lerp_(self["weights"], self._tau)


class Replay:
    """The last ``capacity`` steps; ``owner`` says whose reward a step has."""

    def __init__(self, capacity: int, features: int, actions: int) -> None:
        self.count = 0
        self._capacity = capacity
        self.tensors = {
            "state": torch.zeros(capacity, features),
            "action": torch.zeros(capacity, actions),
            "next": torch.zeros(capacity, features),
            "reward": torch.zeros(capacity),
            "going": torch.zeros(capacity),
            "owner": torch.zeros(capacity, dtype=torch.int64),
            "priority": torch.zeros(capacity),
        }

    def __len__(self) -> int:
        return min(self.count, self._capacity)

    def add(self, step: Mapping[str, Any]) -> None:
        """A new step is as likely to be replayed as the likeliest."""
        place = self.count % self._capacity
        step = {**step, "priority": max(float(self.tensors["priority"].max()), 1e-3)}
        for name, tensor in self.tensors.items():
            tensor[place] = step[name]
        self.count += 1

    def drawn(self, count: int, settings: AgentSettings, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Places of steps, with replacement, and their weights in the critic's loss, at most 1."""
        if not settings.priority:
            return torch.randint(len(self), (count,), generator=generator), torch.ones(count)
        chances = self.tensors["priority"][: len(self)] ** settings.priority
        chances = chances / chances.sum()
        places = torch.multinomial(chances, count, replacement=True, generator=generator)
        weights = (len(self) * chances[places]) ** -settings.correction
        return places, weights / weights.max()


class Agent:
    """An actor that learns from episodes.

    Attributes:
        episodes: how many were learned.
        baseline: the moving average of rewards; NaN before the first update.

    Args:
        features: length of a state. actions: actions of a step. seed: of the weights and of what is replayed.
        mask: place in a state from which on there is, for each action, 1 where it counts, else 0: the step has no such
            action then, and the actor's answer is taken as 0.5 as the replayed one is. None where all count.
    """

    def __init__(
        self, features: int, actions: int, settings: AgentSettings, seed: int, mask: int | None = None
    ) -> None:
        self.settings, self._seed = settings, seed
        self._counts = None if mask is None else slice(mask, mask + actions)
        self._actor_net = Net(features, settings.hidden, actions, squashed=True)
        self._critic_net = Net(features + actions, settings.hidden, 1, squashed=False)
        generator = generator_of(seed, 0)
        self._actor = Learned(self._actor_net, generator, settings.actor_rate, settings.tau)
        self._critic = Learned(self._critic_net, generator, settings.critic_rate, settings.tau)
        self._replay = Replay(settings.capacity, features, actions)
        self._parts: dict[str, Learned | Replay] = {"actor": self._actor, "critic": self._critic}
        self._parts["replay"] = self._replay
        self.episodes, self.baseline = 0, math.nan

    @property
    def sigma(self) -> float:
        """The noise of the next episode: infinite, so that actions are uniform, while the agent warms up."""
        age = self.episodes - self.settings.warmup
        return math.inf if age < 0 else max(self.settings.sigma * self.settings.decay**age, self.settings.floor)

    def act(self, state: Floats, draws: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
        """The actions of a step, shape (actions,), in [0, 1].

        Args:
            state: shape (features,). draws: shape (actions,), uniform in [0, 1): where in the noise the actions are.
            sigma: of the normal distribution around the actor's answer, truncated to [0, 1]; 0 is no noise.
        """
        if math.isinf(sigma):
            return draws
        with torch.no_grad(), _alone():
            row = torch.from_numpy(np.asarray(state, dtype=np.float32))[None]
            answer: NDArray[np.float64] = self._actor_net(self._actor.now, row)[0].double().numpy()
        return truncated(answer, sigma, draws)

    def learn(self, episode: Episode, owner: int = -1) -> None:
        """Add an episode to the replay and, after the warm-up, update after each step added, as AMC's code does.

        Args:
            owner: a number by which its reward can be corrected later.
        """
        steps = len(episode.states)
        updates = (self.settings.updates or steps) if self.episodes >= self.settings.warmup else 0
        generator = generator_of(self._seed, self.episodes + 1)
        states, actions = (torch.from_numpy(np.array(rows, dtype=np.float32)) for rows in episode[:2])
        with _alone():
            for i in range(steps):
                follows = states[min(i + 1, steps - 1)]
                step = {"state": states[i], "action": actions[i], "next": follows, "reward": episode.reward}
                self._replay.add({**step, "going": float(i + 1 < steps), "owner": owner})
                for _ in range(updates * (i + 1) // steps - updates * i // steps):
                    self._update(generator)
        self.episodes += 1

    def correct(self, owner: int, reward: float) -> None:
        """Put another reward in the place of that of an owner's replayed steps."""
        self._replay.tensors["reward"][self._replay.tensors["owner"] == owner] = reward

    def _answer(self, parts: Sequence[Tensor], states: Tensor) -> Tensor:
        """What the actor does in these states, shape (batch, actions)."""
        actions = self._actor_net(parts, states)
        return actions if self._counts is None else 0.5 + states[:, self._counts] * (actions - 0.5)

    def _update(self, generator: torch.Generator) -> None:
        """One step of critic, actor and targets; the formula is above."""
        places, weights = self._replay.drawn(self.settings.batch, self.settings, generator)
        batch = {name: tensor[places] for name, tensor in self._replay.tensors.items()}
        mean = float(batch["reward"].mean())
        self.baseline = (
            mean if math.isnan(self.baseline) else self.baseline + self.settings.baseline * (mean - self.baseline)
        )
        with torch.no_grad():
            then = torch.cat([batch["next"], self._answer(self._actor.slow, batch["next"])], 1)
            ahead = self._critic_net(self._critic.slow, then)[:, 0]
            wanted = batch["reward"] - self.baseline + self.settings.discount * batch["going"] * ahead
        own = self._critic["weights"].detach().requires_grad_()
        judged = self._critic_net(self._critic_net.parts(own), torch.cat([batch["state"], batch["action"]], 1))
        error = wanted - judged[:, 0]
        self._critic.descend(torch.autograd.grad((weights * error**2).mean(), own)[0])
        own = self._actor["weights"].detach().requires_grad_()
        answer = self._answer(self._actor_net.parts(own), batch["state"])
        value = self._critic_net(self._critic.now, torch.cat([batch["state"], answer], 1))
        self._actor.descend(torch.autograd.grad(self._regret(value, answer - batch["action"]), own)[0])
        self._replay.tensors["priority"][places] = error.detach().abs() + 1e-3
        self._actor.follow()
        self._critic.follow()

    def _regret(self, value: Tensor, away: Tensor) -> Tensor:
        """What the actor descends: with caution, see AgentSettings.

        Args:
            value: shape (batch, 1), the critic's. away: shape (batch, actions), from the replayed actions.
        """
        if not self.settings.caution:
            return -value.mean()
        size = value.detach().abs().mean().clamp_min(1e-6)
        return self.settings.caution * (away**2).sum(1).mean() - value.mean() / size

    def memory(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All it is: tensors by name, and numbers that JSON can carry."""
        tensors = {f"{name}.{key}": t for name, part in self._parts.items() for key, t in part.tensors.items()}
        held = {name: t[: len(self._replay)] if name.startswith("replay.") else t for name, t in tensors.items()}
        counts = {name: part.count for name, part in self._parts.items()}
        return held, {"episodes": self.episodes, "baseline": str(self.baseline), "counts": counts}

    def recall(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Be as the agent, of the same settings and seed, that gave this memory.

        Raises:
            StoreError: it is the memory of an agent of another form; nothing has changed then.
        """
        try:
            counts = {name: int(facts["counts"][name]) for name in self._parts}
            episodes, baseline = int(facts["episodes"]), float(facts["baseline"])
            for name, own in self.memory()[0].items():
                rows = min(counts["replay"], self.settings.capacity) if name.startswith("replay.") else len(own)
                if tensors[name].shape != (rows, *own.shape[1:]) or tensors[name].dtype != own.dtype:
                    raise ValueError(f"{name} has another form")
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"not the memory of this agent: {error}") from error
        for name, part in self._parts.items():
            part.count = counts[name]
            for key, own in part.tensors.items():
                own[: len(tensors[f"{name}.{key}"])] = tensors[f"{name}.{key}"]
        self.episodes, self.baseline = episodes, baseline


def truncated(mean: NDArray[np.float64], sigma: float, draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normal numbers truncated to [0, 1], by the inverse of their distribution function.

    Args:
        mean: in [0, 1]. draws: of the same shape, uniform in [0, 1).
    """
    if sigma == 0:
        return mean
    low, high = ndtr((0 - mean) / sigma), ndtr((1 - mean) / sigma)
    found: NDArray[np.float64] = np.clip(mean + sigma * ndtri(low + draws * (high - low)), 0.0, 1.0)
    return found


def generator_of(seed: int, number: int) -> torch.Generator:
    """Of a stream of its own for each pair."""
    return torch.Generator().manual_seed(
        int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0] >> 1)
    )


@contextmanager
def _alone() -> Iterator[None]:
    """On one thread, so that sums are added in one order on every machine with as many cores or more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
