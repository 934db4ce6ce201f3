"""Criteria that look at calibration inputs, against differences, counting, a greedy in numpy and scikit-learn."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import make
from sklearn.linear_model import Lasso
from torch import nn
from torch.nn import functional as F

from automc.core.policy import Policy, Site
from automc.errors import CompressionError
from automc.operators.base import Compression, compress
from automc.operators.criteria import gradients, reconstruction, scores
from automc.operators.groups.sides import cuts_at
from automc.operators.groups.slicing import Plan
from automc.operators.layers import trace
from automc.operators.recalibrate import BATCH

DATA = ("taylor", "fisher", "apoz", "thinet", "lasso")
STEP = 1e-7  # of a central difference in double precision: small, because a ReLU that flips between its ends counts
SLOPES = {"rtol": 1e-4, "atol": 1e-14}  # 1e-16 / STEP, of squares of slopes above 1e-4


def state_of(net, targets=None):
    """In double precision, so that differences and ties are what they are and not rounding."""
    model, inputs = make(net)
    found = trace(model, inputs)
    model = model.double()
    return Compression(model, model, found, inputs.double(), targets)


def losses(model, inputs, labels):
    with torch.no_grad():
        return F.cross_entropy(model(inputs), labels, reduction="none")


def by_differences(model, inputs, labels, set_to):
    """Derivative of every input's loss by what ``set_to(step)`` changes, shape (n,)."""
    ends = []
    for step in (STEP, -STEP):
        undo = set_to(step)
        ends.append(losses(model, inputs, labels))
        undo()
    return (ends[0] - ends[1]) / (2 * STEP)


def gate(readers, channel):
    """Multiply what the layers read of a channel by 1 + step."""

    def set_to(step):
        def hook(module, args):
            factor = torch.ones_like(args[0])
            factor[(..., channel) if isinstance(module, nn.Linear) else (slice(None), channel)] += step
            return (args[0] * factor,)

        hooks = [reader.register_forward_pre_hook(hook) for reader in readers]
        return lambda: [handle.remove() for handle in hooks]

    return set_to


def nudge(weight, place):
    def set_to(step):
        with torch.no_grad():
            weight[place] += step

        def undo():
            with torch.no_grad():
                weight[place] -= step

        return undo

    return set_to


LABELS = torch.tensor([0, 3, 2, 2])
READERS = [
    ("plain", "a", ["b"]),
    ("conv_bn_relu", "0.0", ["1.0"]),
    ("resnet_b", "conv1", ["layer1.0.conv1", "layer1.1.conv1", "layer2.0.conv1", "layer2.0.shortcut.0"]),
    ("grouped", "a.0", ["b.0"]),
    ("dense", "c", ["head"]),
]


@pytest.mark.parametrize(("net", "group", "readers"), READERS)
@pytest.mark.parametrize("labels", [LABELS, None], ids=["labels", "own"])
def test_taylor_is_the_squared_slope_of_a_gate_on_what_is_read(net, group, readers, labels):
    state = state_of(net, labels)
    model, inputs, plan = state.teacher, state.calibration, state.trace.plans[group]
    with torch.no_grad():
        used = model(inputs).argmax(1) if labels is None else labels
    layers = [model.get_submodule(name) for name in readers]
    wanted = [by_differences(model, inputs, used, gate(layers, c)).square().mean().item() for c in range(plan.channels)]
    # The head of "dense" reads the newest channels first, so channel c of the group is its input c.
    np.testing.assert_allclose(scores(state, plan, "taylor"), wanted, **SLOPES)


@pytest.mark.parametrize(
    ("net", "group", "reader", "places"),
    [
        ("plain", "b", "head", {c: (slice(None), c) for c in range(12)}),
        # 4 groups: outputs 6 g to 6 g + 5 read inputs 4 g to 4 g + 3.
        ("grouped", "a.0", "b.0", {0: (slice(0, 6), 0), 6: (slice(6, 12), 2), 15: (slice(18, 24), 3)}),
    ],
)
def test_fisher_is_half_the_squared_slopes_of_single_weights(net, group, reader, places):
    state = state_of(net, LABELS)
    model, inputs = state.teacher, state.calibration
    weight = model.get_submodule(reader).weight
    found = scores(state, state.trace.plans[group], "fisher")
    numbers = torch.arange(weight.numel()).view(weight.shape)
    for channel, place in places.items():
        wanted = 0.0
        for number in numbers[place].flatten():
            slope = by_differences(model, inputs, LABELS, nudge(weight.view(-1), number))
            wanted += weight.view(-1)[number].item() ** 2 * slope.square().mean().item() / 2
        assert found[channel].item() == pytest.approx(wanted, rel=SLOPES["rtol"])


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.rnn(x)[0][:, -1])


def recurrent():
    torch.manual_seed(0)
    model = Recurrent().double()
    index = tuple((unit,) for unit in range(4))
    cuts = [*cuts_at("rnn", model.rnn, False, index), *cuts_at("out", model.out, True, index)]
    plan = Plan("rnn", 4, tuple(cuts), (0,) * 4)
    found = trace(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3)), torch.zeros(2, 3))
    found = type(found)(found.table, {"rnn": plan})
    return Compression(model, model, found, torch.randn(3, 5, 3).double(), torch.tensor([0, 1, 2])), plan


def test_a_hidden_unit_is_read_by_the_recurrence_too():
    """Two places read it: the head, and the LSTM's own next step, through column c of its recurrent matrix."""
    state, plan = recurrent()
    model, inputs = state.teacher, state.calibration

    def both(unit):
        weights = (model.out.weight, model.rnn.weight_hh_l0)
        kept = [weight.detach().clone() for weight in weights]

        def set_to(step):
            with torch.no_grad():
                for weight in weights:
                    weight[:, unit] *= 1 + step

            def undo():
                with torch.no_grad():
                    for weight, old in zip(weights, kept, strict=True):
                        weight.copy_(old)

            return undo

        return set_to

    wanted = [by_differences(model, inputs, state.targets, both(c)).square().mean().item() for c in range(4)]
    np.testing.assert_allclose(scores(state, plan, "taylor"), wanted, **SLOPES)


def test_the_loss_takes_labels_or_the_networks_own_class_or_no_labels_at_all():
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    log = math.log(math.exp(2) + 1 + math.exp(-1))
    assert gradients.loss(logits, torch.tensor([1])).item() == pytest.approx(log, rel=1e-6)
    assert gradients.loss(logits, None).item() == pytest.approx(log - 2, rel=1e-6)
    maps = torch.zeros(1, 4, 2, 2)
    assert gradients.loss(maps, torch.zeros(1, 2, 2, dtype=torch.long)).item() == pytest.approx(math.log(4), rel=1e-6)
    assert gradients.loss(maps + 3, None).item() == 16 * 9 / 2
    several = {"boxes": torch.full((1, 2), 2.0), "more": [torch.ones(3), torch.tensor([5])]}  # integers do not count
    assert gradients.loss(several, None).item() == (2 * 4 + 3) / 2


def test_apoz_counts_the_zeros_that_the_next_layer_reads():
    state = state_of("plain")
    with torch.no_grad():
        zeros = (state.teacher.a(state.calibration) <= 0).numpy()
    wanted = [1 - zeros[:, c].sum() / zeros[:, c].size for c in range(8)]
    np.testing.assert_allclose(scores(state, state.trace.plans["a"], "apoz"), wanted, rtol=1e-12)


def test_apoz_of_a_flattened_channel_is_the_mean_over_its_places_after_pooling():
    state = state_of("flatten")
    with torch.no_grad():
        pooled = F.max_pool2d(F.relu(state.teacher.a(state.calibration)), 2).numpy()
    wanted = [1 - (pooled[:, c] == 0).mean() for c in range(6)]
    np.testing.assert_allclose(scores(state, state.trace.plans["a"], "apoz"), wanted, rtol=1e-12)


def test_apoz_without_a_single_zero_is_an_error():
    state = state_of("sigmoid")
    with pytest.raises(CompressionError, match=r"prune\(a\).criterion = 'apoz': what reads .* never sees a zero"):
        scores(state, state.trace.plans["a"], "apoz")


CONSUMED = [  # a strided convolution, a flatten, a grouped and a twice used convolution, a transposed one, two at once
    ("plain", "a"), ("flatten", "a"), ("grouped", "a.0"), ("functional", "layers.0"), ("volume", "a"),
    ("resnet_b", "layer2.0.conv2"), ("dense", "a"), ("normed", "b"),
]  # fmt: skip


def contributions(state, plan):
    """By consumer, what each channel adds to its output, shape (channels, all numbers of the output)."""
    found = {}
    for cut in plan.consumers:
        module, seen = state.teacher.get_submodule(cut.module), []
        handle = module.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        with torch.no_grad():
            state.teacher(state.calibration)
        handle.remove()
        axis = -1 if isinstance(module, nn.Linear) else 1
        parts = []
        for index in cut.index:
            keep = torch.zeros(cut.length, dtype=torch.double).index_fill(0, torch.tensor(index, dtype=torch.long), 1)
            shape = [1] * seen[0].dim()
            shape[axis] = -1
            with torch.no_grad():
                alone = [module(x * keep.view(shape)) - module(torch.zeros_like(x)) for x in seen]
            parts.append(torch.stack(alone).flatten())
        found[cut.module] = torch.stack(parts).numpy()
    return found


def samples(state, plan):
    """The contributions of all consumers side by side, each consumer's with a sum of squares of 1."""
    return np.concatenate([z / np.sqrt((z**2).sum()) for z in contributions(state, plan).values()], axis=1)


@pytest.fixture
def _all_positions(monkeypatch):
    monkeypatch.setattr(reconstruction, "POSITIONS", 10**6)


@pytest.mark.usefixtures("_all_positions")
@pytest.mark.parametrize(("net", "group"), CONSUMED)
def test_thinet_is_the_greedy_of_the_paper(net, group):
    state = state_of(net)
    plan = state.trace.plans[group]
    z = samples(state, plan)
    order, lost = [], np.zeros(z.shape[1])
    while len(order) < plan.channels:
        errors = {c: ((lost + z[c]) ** 2).sum() for c in range(plan.channels) if c not in order}
        best = min(errors, key=errors.__getitem__)
        order.append(best)
        lost = lost + z[best]
    assert scores(state, plan, "thinet").argsort().tolist() == order


@pytest.mark.usefixtures("_all_positions")
def test_thinet_removes_what_an_exhaustive_search_removes():
    state = state_of("plain")
    plan = state.trace.plans["a"]
    z = samples(state, plan)
    turn = scores(state, plan, "thinet")
    for count in (1, 2, 3):
        best = min(itertools.combinations(range(8), count), key=lambda gone: (z[list(gone)].sum(0) ** 2).sum())
        assert set(turn.argsort()[:count].tolist()) == set(best)


@pytest.mark.usefixtures("_all_positions")
@pytest.mark.parametrize(("net", "group"), CONSUMED)
def test_lasso_keeps_what_coordinate_descent_keeps(net, group):
    """At a penalty between two of the scores, scikit-learn's Lasso gives a coefficient to the channels above it."""
    state = state_of(net)
    plan = state.trace.plans[group]
    z, found = samples(state, plan).T, scores(state, plan, "lasso").numpy()
    levels = np.unique(found)
    assert len(levels) == plan.channels
    for low, high in itertools.pairwise(levels):
        penalty = (low + high) / 2 / len(z)  # their loss is divided by the number of rows
        fit = Lasso(penalty, fit_intercept=False, tol=1e-12, max_iter=100_000).fit(z, z.sum(1))
        kept = np.abs(fit.coef_) > 1e-9
        assert kept.tolist() == (found >= high).tolist()


@pytest.mark.parametrize("criterion", ["thinet", "lasso"])
def test_a_channel_that_is_always_zero_goes_first(criterion):
    state = state_of("plain")
    with torch.no_grad():
        state.teacher.a.weight[5] = 0
        state.teacher.a.bias[5] = -1
    assert scores(state, state.trace.plans["a"], criterion).argmin() == 5


def test_a_double_is_given_up_by_lasso():
    """Two equal channels: LASSO spends its penalty on one of them, and a norm cannot tell."""
    state = state_of("plain")
    with torch.no_grad():
        state.teacher.a.weight[5], state.teacher.a.bias[5] = state.teacher.a.weight[2], state.teacher.a.bias[2]
        state.teacher.b.weight[:, 5] = state.teacher.b.weight[:, 2]
    found = scores(state, state.trace.plans["a"], "lasso")
    assert min(found[2], found[5]) == 0 < max(found[2], found[5])


CONV = state_of("conv_bn_relu", LABELS)


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(DATA), st.permutations(range(8)))
def test_reordered_channels_have_reordered_scores(criterion, order):
    model = copy.deepcopy(CONV.model)
    (conv, norm, _), reader = model[0], model[1][0]
    with torch.no_grad():
        for tensor in (conv.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor.copy_(tensor[order])
        reader.weight.copy_(reader.weight[:, order])
        torch.testing.assert_close(model(CONV.calibration), CONV.model(CONV.calibration))
    plan = CONV.trace.plans["0.0"]
    found = scores(Compression(model, model, CONV.trace, CONV.calibration, LABELS), plan, criterion)
    np.testing.assert_allclose(found, scores(CONV, plan, criterion)[order], rtol=1e-8, atol=1e-14)


class Counted(nn.Sequential):
    """Counts the inputs of all copies of itself."""

    inputs = 0

    def forward(self, x):
        Counted.inputs += len(x)
        return super().forward(x)


@pytest.mark.parametrize("criterion", DATA)
def test_all_groups_are_measured_in_one_pass_for_all_trials(criterion):
    model, _ = make("conv_bn_relu")
    model = Counted(*model)
    inputs = torch.randn(BATCH + 10, 3, 8, 8)
    state = Compression(model, model, trace(model, inputs), inputs)
    Counted.inputs = 0
    first = scores(state, state.trace.plans["0.0"], criterion)
    assert Counted.inputs == len(inputs)
    again = scores(
        Compression(model, model, state.trace, inputs, memory=state.memory), state.trace.plans["0.0"], criterion
    )
    assert again is first
    if criterion != "apoz":  # the second group is read after averaging
        scores(state, state.trace.plans["1.0"], criterion)
    assert Counted.inputs == len(inputs)


def half(state, criterion, ratio=0.5):
    groups = [name for name in state.trace.plans if name != "1.0"]
    return Policy(
        {Site("prune", g, s): v for g in groups for s, v in (("prune_ratio", ratio), ("criterion", criterion))}
    )


@pytest.mark.parametrize("criterion", DATA)
def test_a_trial_depends_neither_on_earlier_ones_nor_on_the_global_generator(criterion):
    fresh, used = state_of("conv_bn_relu"), state_of("conv_bn_relu")
    for other in DATA:
        compress(used, half(used, other, 0.25), ("prune",))
    torch.manual_seed(99)
    one, two = (compress(state, half(state, criterion), ("prune",)).model.state_dict() for state in (fresh, used))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert fresh.teacher.state_dict().keys() == make("conv_bn_relu")[0].state_dict().keys()


@pytest.mark.parametrize("criterion", [*DATA, "l1"])
def test_scores_are_of_the_original_network(criterion):
    state = state_of("conv_bn_relu", LABELS)
    changed = copy.deepcopy(state.model)
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.zero_()
    later = Compression(changed, state.teacher, state.trace, state.calibration, LABELS)
    before = {key: value.clone() for key, value in state.teacher.state_dict().items()}
    plan = state.trace.plans["0.0"]
    assert torch.equal(scores(later, plan, criterion), scores(state, plan, criterion))
    assert all(torch.equal(value, before[key]) for key, value in state.teacher.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in state.teacher.parameters())
    assert not any(module._forward_pre_hooks for module in state.teacher.modules())


@pytest.mark.parametrize("criterion", DATA)
def test_without_calibration_inputs_they_are_an_error(criterion):
    model, inputs = make("plain")
    state = Compression(model, model, trace(model, inputs), None)
    with pytest.raises(CompressionError, match=rf"prune\(a\).criterion = '{criterion}': .* calibration inputs, and"):
        compress(
            state,
            Policy({Site("prune", "a", "prune_ratio"): 0.5, Site("prune", "a", "criterion"): criterion}),
            ("prune",),
        )
