"""The criteria obs and wanda, against least squares in numpy on the inputs that the consumers really read."""

import numpy as np
import pytest
import torch
from nets import entering
from torch import nn
from torch.nn import functional as F

from automc.errors import CompressionError
from automc.operators.base import Compression
from automc.operators.criteria import least_squares, scores
from automc.operators.layers import trace


class Fork(nn.Module):
    """Two readers of one group, of unequal size, one with a bias, and a third that flattens it."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 5, 2)
        self.one, self.two = nn.Conv2d(5, 3, 2, bias=False), nn.Linear(20, 4)

    def forward(self, x):
        x = F.silu(self.first(x))
        return self.one(x).flatten(1).sum(1, keepdim=True) + self.two(x.flatten(1))


class Grouped(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 6, 1), nn.Conv2d(6, 4, 2, groups=2)

    def forward(self, x):
        return self.second(F.silu(self.first(x)))


def state_of(build, shape):
    torch.manual_seed(0)
    model, inputs = build(), torch.randn(shape)
    found = trace(model, inputs[:2])
    model = model.double().eval()
    return Compression(model, model, found, inputs.double())


FORK = (Fork, (60, 2, 3, 3))
GROUPED = (Grouped, (40, 2, 4, 4))


def rest(read, weight, biased, keep, whole):
    """Share of the outputs' energy that the kept columns cannot give, damped as H is: columns of sqrt(damping) below.

    The damping is on the change of all weights, those that go included, so the rows below want the old weights.
    """
    if biased:
        read = read - read.mean(0)
    gram = read.T @ read
    share = np.sqrt(least_squares._DAMPING * np.diag(gram).mean())
    stacked = np.concatenate([read, share * np.eye(read.shape[1])])
    wanted = stacked @ weight.T
    solution = np.linalg.lstsq(stacked[:, keep], wanted, rcond=None)[0]
    return ((stacked[:, keep] @ solution - wanted) ** 2).sum() / whole


def problems(state, names):
    """By reader (and group of its channels): what it reads, its weight, whether it has a bias, and its channels."""
    found = []
    for name in names:
        layer, x = state.teacher.get_submodule(name), entering(state, name)
        weight = layer.weight.detach()
        if isinstance(layer, nn.Linear):
            found.append([(x.numpy(), weight.numpy(), True, {c: range(4 * c, 4 * c + 4) for c in range(5)})])
            continue
        parts = []
        each = weight.shape[1]
        for group in range(layer.groups):
            own = x[:, group * each : (group + 1) * each]
            read = F.unfold(own, layer.kernel_size).transpose(1, 2).flatten(0, 1).numpy()
            rows = weight.chunk(layer.groups)[group].flatten(1).numpy()
            columns = {group * each + c: range(4 * c, 4 * c + 4) for c in range(each)}
            parts.append((read, rows, layer.bias is not None, columns))
        found.append(parts)
    return found


def energy(parts):
    return sum(((read - read.mean(0) * biased) @ weight.T).__pow__(2).sum() for read, weight, biased, _ in parts)


def greedy(state, names, channels):
    """The order by trying every channel at every turn and solving each time anew."""
    order, gone = [], set()
    readers = problems(state, names)
    while len(gone) < channels:
        costs = {}
        for channel in sorted(set(range(channels)) - gone):
            costs[channel] = 0.0
            for parts in readers:
                whole = energy(parts)
                for read, weight, biased, columns in parts:
                    keep = [i for c, own in columns.items() if c not in gone | {channel} for i in own]
                    costs[channel] += rest(read, weight, biased, keep, whole)
        order.append(min(costs, key=lambda c: costs[c]))
        gone.add(order[-1])
    return order


@pytest.mark.parametrize(
    ("case", "names", "channels"), [(FORK, ["one", "two"], 5), (GROUPED, ["second"], 6)], ids=["fork", "grouped"]
)
def test_the_surgeons_order_is_the_greedy_one_by_brute_force(case, names, channels):
    state = state_of(*case)
    found = scores(state, state.trace.plans["first"], "obs")
    assert sorted(found.tolist()) == list(range(channels))
    assert found.argsort().tolist() == greedy(state, names, channels)


def test_the_closed_form_costs_are_what_least_squares_loses():
    """The first removals from a single reader: costs themselves, before and after one channel has gone."""
    state = state_of(*GROUPED)
    parts = list(least_squares._problems(state, state.trace.plans["first"]))
    (reader,) = problems(state, ["second"])
    whole = energy(reader)
    for gone in (set(), {1}):
        for part, (read, weight, biased, columns) in zip(parts, reader, strict=True):
            for channel in gone:
                part.remove(channel)
            keep = [i for c, own in columns.items() if c not in gone for i in own]
            now = rest(read, weight, biased, keep, whole) if gone else 0.0
            for channel in set(columns) - gone:
                keep = [i for c, own in columns.items() if c not in gone | {channel} for i in own]
                wanted = rest(read, weight, biased, keep, whole) - now
                # One sum is of squares in double precision, the other of an inverse of condition 1e3.
                assert float(part.costs()[channel]) == pytest.approx(wanted, rel=1e-8)
            assert all(float(part.costs()[channel]) == 0 for channel in gone)


def test_what_others_can_stand_in_for_goes_first():
    """The last two channels are sums of others, but large: l1 would keep them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5, bias=False), nn.Linear(5, 3)).double()
    with torch.no_grad():
        model[0].weight[3] = 4 * model[0].weight[:3].sum(0)
        model[0].weight[4] = -3 * model[0].weight[:3].sum(0)
        model[0].weight[2] *= 2
    inputs = torch.randn(40, 6)
    found = trace(model.float(), inputs[:2])
    model = model.double()
    state = Compression(model, model, found, inputs.double())
    plan = found.plans["0"]
    assert set(scores(state, plan, "obs").argsort()[:2].tolist()) <= {0, 1, 2, 3, 4}
    first_two = scores(state, plan, "obs").argsort()[:2].tolist()
    kept = sorted(set(range(5)) - set(first_two))
    assert np.linalg.matrix_rank(model[0].weight.detach()[kept].numpy()) == 3  # nothing was lost
    assert not {3, 4} & set(scores(state, plan, "l1").argsort()[:2].tolist())


@pytest.mark.parametrize(("case", "names"), [(FORK, ["one", "two"]), (GROUPED, ["second"])], ids=["fork", "grouped"])
def test_wanda_is_the_norm_of_weights_times_what_they_read(case, names):
    state = state_of(*case)
    plan = state.trace.plans["first"]
    total = np.zeros(plan.channels)
    for parts in problems(state, names):
        damage = np.zeros(plan.channels)
        for read, weight, _, columns in parts:
            each = (weight**2).sum(0) * (read**2).sum(0)
            for channel, own in columns.items():
                damage[channel] = np.sqrt(each[list(own)].sum())
        total += damage / damage.mean()
    np.testing.assert_allclose(scores(state, plan, "wanda").numpy(), total, rtol=1e-10)


@pytest.mark.parametrize("criterion", ["obs", "wanda"])
def test_a_recurrent_reader_counts_in_both_directions(criterion):
    class Series(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.rnn = nn.Linear(3, 4), nn.LSTM(4, 2, batch_first=True, bidirectional=True)

        def forward(self, x):
            return self.rnn(torch.tanh(self.first(x)))[0]

    state = state_of(Series, (30, 5, 3))
    plan = state.trace.plans["first"]
    found = scores(state, plan, criterion)
    with torch.no_grad():
        state.teacher.rnn.weight_ih_l0_reverse[:, int(found.argmin())] *= 100
    again = Compression(state.model, state.teacher, state.trace, state.calibration)
    assert scores(again, plan, criterion).argmax() == found.argmin()


def test_too_large_readers_are_left_out_and_nothing_else_is_an_error(monkeypatch):
    state = state_of(*GROUPED)
    monkeypatch.setattr("automc.operators.moments._LARGEST", 100)
    with pytest.raises(CompressionError, match=r"prune\(first\).criterion = 'obs': no layer reads .* choose 'l1' or"):
        scores(state, state.trace.plans["first"], "obs")
    assert scores(state, state.trace.plans["first"], "wanda").min() > 0


@pytest.mark.parametrize("criterion", ["obs", "wanda"])
def test_they_need_calibration_inputs(criterion):
    state = state_of(*GROUPED)
    bare = Compression(state.model, state.teacher, state.trace, None)
    with pytest.raises(CompressionError, match="calibration inputs, and there are none"):
        scores(bare, state.trace.plans["first"], criterion)
