"""The agent against a second implementation of its update, and its memory bit for bit."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import truncnorm

from automc.errors import StoreError
from automc.proposers.ddpg.agent import Agent, AgentSettings, Episode, Replay, generator_of, truncated
from automc.proposers.ddpg.memory import packed, unpacked

SMALL = AgentSettings(hidden=5, batch=4, warmup=0, actor_rate=0.02, critic_rate=0.05, tau=0.1, discount=0.9)


def episode(seed: int, steps: int = 6, features: int = 3, actions: int = 2) -> Episode:
    rng = np.random.default_rng(seed)
    states, chosen = rng.random((steps, features)), rng.random((steps, actions))
    return Episode(states.astype(np.float32), chosen.astype(np.float32), float(rng.random()))


class Plain:
    """The same update in numpy and float64, the gradients written out by hand."""

    def __init__(self, tensors: dict[str, torch.Tensor], features: int, actions: int, settings: AgentSettings) -> None:
        sizes = {"actor": (features, actions), "critic": (features + actions, 1)}
        self.nets = {}
        for name, (inputs, outputs) in sizes.items():
            hidden = settings.hidden
            shapes = [(hidden, inputs), (hidden,), (hidden, hidden), (hidden,), (outputs, hidden), (outputs,)]
            flat = tensors[f"{name}.weights"].double().numpy()
            ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
            self.nets[name] = [p.reshape(s).copy() for p, s in zip(np.split(flat, ends), shapes, strict=True)]
        self.targets = {name: [p.copy() for p in net] for name, net in self.nets.items()}
        self.moments = {name: [(np.zeros_like(p), np.zeros_like(p)) for p in net] for name, net in self.nets.items()}
        self.settings, self.count, self.baseline = settings, 0, None

    def update(self, s, a, r, nxt, going) -> None:
        c, count = self.settings, len(s)
        self.baseline = r.mean() if self.baseline is None else self.baseline + c.baseline * (r.mean() - self.baseline)
        then = sigmoid(forward(self.targets["actor"], nxt)[-1])
        ahead = forward(self.targets["critic"], np.hstack([nxt, then]))[-1][:, 0]
        wanted = r - self.baseline + c.discount * going * ahead
        layers = forward(self.nets["critic"], np.hstack([s, a]))
        self.count += 1
        slope = 2 * (layers[-1][:, :1] - wanted[:, None]) / count
        self.adam("critic", backward(self.nets["critic"], layers, slope)[0], c.critic_rate)
        own = forward(self.nets["actor"], s)
        chosen = sigmoid(own[-1])
        judged = forward(self.nets["critic"], np.hstack([s, chosen]))
        inputs = backward(self.nets["critic"], judged, np.full((count, 1), -1 / count))[1]
        slope = inputs[:, s.shape[1] :] * chosen * (1 - chosen)
        self.adam("actor", backward(self.nets["actor"], own, slope)[0], c.actor_rate)
        for name, net in self.nets.items():
            self.targets[name] = [(1 - c.tau) * t + c.tau * p for t, p in zip(self.targets[name], net, strict=True)]

    def adam(self, name: str, gradients, rate: float) -> None:
        for i, gradient in enumerate(gradients):
            first, second = self.moments[name][i]
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            self.moments[name][i] = first, second
            steep = first / (1 - 0.9**self.count), second / (1 - 0.999**self.count)
            self.nets[name][i] -= rate * steep[0] / (np.sqrt(steep[1]) + 1e-8)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def forward(net, x):
    first = np.maximum(x @ net[0].T + net[1], 0)
    second = np.maximum(first @ net[2].T + net[3], 0)
    return [x, first, second, second @ net[4].T + net[5]]


def backward(net, layers, slope):
    """Gradients of the weights, and of the inputs."""
    found = [slope.T @ layers[2], slope.sum(0)]
    for weights, at in ((4, 2), (2, 1)):
        slope = (slope @ net[weights]) * (layers[at] > 0)
        found = [slope.T @ layers[at - 1], slope.sum(0), *found]
    return found, slope @ net[0]


def test_updates_equal_a_second_implementation():
    agent = Agent(3, 2, SMALL, seed=3)
    plain = Plain(agent.memory()[0], 3, 2, SMALL)
    one = episode(0)
    agent.learn(one)
    draws = generator_of(3, 1)
    states, actions, reward = (np.asarray(part, dtype=np.float64) for part in one)
    follows, going = np.vstack([states[1:], states[-1:]]), np.array([1.0] * 5 + [0.0])
    for held in range(1, 7):  # AMC's code updates after each step it adds
        at = torch.randint(held, (SMALL.batch,), generator=draws).numpy()
        plain.update(states[at], actions[at], np.full(len(at), reward), follows[at], going[at])
    tensors, _ = agent.memory()
    for name in ("actor", "critic"):
        for key, parts in (("weights", plain.nets[name]), ("target", plain.targets[name])):
            flat = np.concatenate([part.ravel() for part in parts])
            # Six steps of Adam in float32: relative errors of 1e-7 grow where a moment is near 0.
            np.testing.assert_allclose(tensors[f"{name}.{key}"].numpy(), flat, rtol=2e-3, atol=2e-5)
    assert agent.baseline == pytest.approx(plain.baseline)


def test_the_noise_is_the_truncated_normal_distribution():
    means, draws = np.array([0.0, 0.02, 0.5, 0.99, 1.0]), np.array([0.01, 0.4, 0.5, 0.7, 0.999])
    for sigma in (0.5, 0.1, 0.01):
        ends = (0 - means) / sigma, (1 - means) / sigma
        expected = truncnorm.ppf(draws, *ends, loc=means, scale=sigma)
        np.testing.assert_allclose(truncated(means, sigma, draws), expected, atol=1e-9)
    np.testing.assert_array_equal(truncated(means, 0.0, draws), means)


def test_actions_are_uniform_until_the_warm_up_is_over_and_then_less_and_less_noisy():
    agent = Agent(3, 2, AgentSettings(hidden=5, batch=4, warmup=2, sigma=0.4, decay=0.5, floor=0.15), seed=0)
    seen, draws = [], np.array([0.125, 0.75])
    for i in range(5):
        seen.append(agent.sigma)
        if math.isinf(agent.sigma):
            np.testing.assert_array_equal(agent.act(np.zeros(3, np.float32), draws, agent.sigma), draws)
        agent.learn(episode(i))
    assert seen == [math.inf, math.inf, 0.4, 0.2, 0.15]


@pytest.mark.parametrize("priority", [0.0, 0.6])
def test_a_recalled_agent_goes_on_bit_for_bit(priority):
    settings = AgentSettings(hidden=5, batch=4, warmup=1, capacity=10, priority=priority)
    agent = Agent(3, 2, settings, seed=1)
    for i in range(4):  # 24 steps: the replay has gone round twice
        agent.learn(episode(i), owner=i)
    again = Agent(3, 2, settings, seed=1)
    again.recall(*unpacked(packed(*agent.memory())))
    for i in range(4, 7):
        agent.learn(episode(i), owner=i)
        again.learn(episode(i), owner=i)
    (tensors, facts), (others, same) = agent.memory(), again.memory()
    assert facts == same
    assert all(torch.equal(tensor, others[name]) for name, tensor in tensors.items())
    state, draws = np.full(3, 0.5, np.float32), np.full(2, 0.3)
    np.testing.assert_array_equal(agent.act(state, draws, 0.2), again.act(state, draws, 0.2))


def test_a_memory_of_another_form_is_refused_and_changes_nothing():
    agent, wider = Agent(3, 2, SMALL, seed=0), Agent(4, 2, SMALL, seed=0)
    agent.learn(episode(0))
    before = packed(*agent.memory())
    with pytest.raises(StoreError, match=r"not the memory of this agent: actor\.weights has another form"):
        agent.recall(*wider.memory())
    with pytest.raises(StoreError, match="not the memory of this agent"):
        agent.recall(agent.memory()[0], {"episodes": 1})
    assert packed(*agent.memory()) == before
    for junk in (b"", b"junk", before[:-3], b"\xff" * 40):
        with pytest.raises(StoreError, match="not the memory of a proposer"):
            unpacked(junk)


def test_learning_leaves_the_global_generators_and_the_threads_alone():
    torch.manual_seed(5)
    expected, threads = torch.get_rng_state(), torch.get_num_threads()
    drawn = np.random.get_state()[1].copy()
    agent = Agent(3, 2, SMALL, seed=0)
    agent.learn(episode(0))
    agent.act(np.zeros(3, np.float32), np.full(2, 0.5), 0.1)
    assert torch.equal(torch.get_rng_state(), expected)
    assert torch.get_num_threads() == threads
    np.testing.assert_array_equal(np.random.get_state()[1], drawn)


def test_priorities_are_proportional_and_the_weights_correct_for_them():
    replay = Replay(4, 1, 1)
    step = {"state": 0.0, "action": 0.0, "next": 0.0, "reward": 0.0, "going": 0.0, "owner": 0}
    for _ in range(3):
        replay.add(step)
    replay.tensors["priority"][:3] = torch.tensor([1.0, 2.0, 4.0])
    settings = AgentSettings(priority=0.5, correction=1.0)
    places, weights = replay.drawn(40_000, settings, generator_of(0, 0))
    chances = np.sqrt([1, 2, 4]) / np.sqrt([1, 2, 4]).sum()
    shares = np.bincount(places.numpy(), minlength=4) / len(places)
    np.testing.assert_allclose(shares[:3], chances, atol=0.01)  # 4 standard errors of a share of 40,000 draws
    assert shares[3] == 0
    np.testing.assert_allclose(weights.numpy(), chances.min() / chances[places.numpy()], rtol=1e-5)


def test_a_corrected_reward_reaches_the_steps_of_its_owner_only():
    agent = Agent(3, 2, SMALL, seed=0)
    for owner in (0, 1, 0):
        agent.learn(episode(owner), owner)
    agent.correct(0, 7.0)
    rewards = agent.memory()[0]["replay.reward"].numpy().reshape(3, 6)
    assert (rewards[[0, 2]] == 7).all()
    assert (rewards[1] == np.float32(episode(1).reward)).all()


def test_it_learns_where_the_reward_is():
    """One step, two features, the best action is the first of them: 0.2 or 0.8."""
    settings = AgentSettings(hidden=32, warmup=30, batch=32, actor_rate=3e-3, critic_rate=1e-2, decay=0.95)
    agent, rng = Agent(2, 1, settings, seed=0), np.random.default_rng(0)
    for i in range(170):
        best = (0.2, 0.8)[i % 2]
        state = np.array([best, 1 - best], np.float32)
        action = agent.act(state, rng.random(1), agent.sigma)
        agent.learn(Episode(state[None], action[None].astype(np.float32), 1 - 4 * (float(action[0]) - best) ** 2))
    for best in (0.2, 0.8):
        found = agent.act(np.array([best, 1 - best], np.float32), np.array([0.5]), 0.0)
        assert found[0] == pytest.approx(best, abs=0.12)
