"""Criteria that look at the weights alone, against loops in numpy and sums by hand."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import make
from torch import nn

from automc.errors import CompressionError
from automc.operators import OPERATORS
from automc.operators.base import Compression
from automc.operators.criteria import CRITERIA, scores
from automc.operators.groups.sides import cuts_at
from automc.operators.groups.slicing import Plan
from automc.operators.layers import trace

ROUNDING = {"rtol": 1e-5, "atol": 1e-6}  # of weights in single precision
STAGE = ("layer2.0.conv2", "layer2.0.shortcut.0", "layer2.1.conv2")  # all that produce one stage of resnet_b


def state_of(net):
    model, inputs = make(net)
    return Compression(model, model, trace(model, inputs), inputs)


def filters(model, name):
    """A layer's filters, one row each, in numpy."""
    weight = model.get_submodule(name).weight.detach().numpy().astype(np.float64)
    return weight.reshape(len(weight), -1)


def norm1(rows):
    return np.abs(rows).sum(1)


def norm2(rows):
    return np.sqrt((rows**2).sum(1))


def distances(rows):
    """The sum of the distances to all filters, pair by pair."""
    return np.array([sum(np.sqrt(((one - other) ** 2).sum()) for other in rows) for one in rows])


@pytest.mark.parametrize(("criterion", "by_hand"), [("l1", norm1), ("l2", norm2), ("fpgm", distances)])
def test_every_producer_has_an_equal_say(criterion, by_hand):
    state = state_of("resnet_b")
    found = [by_hand(filters(state.model, name)) for name in STAGE]
    wanted = sum(row / row.mean() for row in found)
    np.testing.assert_allclose(scores(state, state.trace.plans[STAGE[0]], criterion), wanted, **ROUNDING)


@pytest.mark.parametrize(("criterion", "by_hand"), [("l1", norm1), ("l2", norm2), ("fpgm", distances)])
def test_a_producer_speaks_of_its_own_channels_only(criterion, by_hand):
    """Channels 0 to 3 come from ``a``, 4 to 9 from ``b``, and all of them from ``wide`` too."""
    state = state_of("wide_sum")
    a, b, wide = (by_hand(filters(state.model, name)) for name in ("a", "b", "wide"))
    wanted = np.concatenate([a / a.mean(), b / b.mean()]) + wide / wide.mean()
    np.testing.assert_allclose(scores(state, state.trace.plans["a"], criterion), wanted, **ROUNDING)


def test_a_depthwise_layer_is_a_producer():
    state = state_of("inverted")
    expand, depth = norm1(filters(state.model, "expand.0")), norm1(filters(state.model, "depth.0"))
    wanted = expand / expand.mean() + depth / depth.mean()
    np.testing.assert_allclose(scores(state, state.trace.plans["expand.0"], "l1"), wanted, **ROUNDING)


def recurrent():
    """A group of the four hidden units of an LSTM, which own four rows of every matrix, one a gate."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"rnn": nn.LSTM(3, 4), "out": nn.Linear(4, 2)})
    index = tuple((unit,) for unit in range(4))
    cuts = [*cuts_at("rnn", model["rnn"], False, index), *cuts_at("out", model["out"], True, index)]
    plan = Plan("rnn", 4, tuple(cuts), (0,) * 4)
    return Compression(model, model, None, None), plan  # type: ignore[arg-type]


@pytest.mark.parametrize(("criterion", "by_hand"), [("l1", norm1), ("l2", norm2), ("fpgm", distances)])
def test_a_hidden_unit_is_judged_by_the_rows_of_its_gates(criterion, by_hand):
    state, plan = recurrent()
    matrices = [getattr(state.model["rnn"], name).detach().numpy() for name in ("weight_ih_l0", "weight_hh_l0")]
    units = [np.concatenate([m[unit::4].ravel() for m in matrices]) for unit in range(4)]
    wanted = by_hand(np.array(units, dtype=np.float64))
    np.testing.assert_allclose(scores(state, plan, criterion), wanted / wanted.mean(), **ROUNDING)


def test_bn_scale_is_gamma_of_the_norms_behind_the_producers():
    state = state_of("resnet_b")
    gammas = [
        state.model.get_submodule(name).weight.detach().abs().numpy().astype(np.float64)
        for name in ("layer2.0.bn2", "layer2.0.shortcut.1", "layer2.1.bn2")
    ]
    wanted = sum(gamma / gamma.mean() for gamma in gammas)
    np.testing.assert_allclose(scores(state, state.trace.plans[STAGE[0]], "bn_scale"), wanted, **ROUNDING)


def test_bn_scale_finds_its_part_of_a_norm_behind_a_concatenation():
    state = state_of("dense")
    gamma = state.model.norm.weight.detach().abs().double()
    for name, own in (("a", gamma[:6]), ("b", gamma[6:])):
        np.testing.assert_allclose(scores(state, state.trace.plans[name], "bn_scale"), own / own.mean(), **ROUNDING)


def test_bn_scale_without_a_norm_is_an_error():
    state = state_of("plain")
    with pytest.raises(CompressionError, match=r"prune\(a\).criterion = 'bn_scale': .* no norm with a scale; choose"):
        scores(state, state.trace.plans["a"], "bn_scale")


def test_scores_that_are_no_numbers_are_an_error():
    state = state_of("plain")
    with torch.no_grad():
        state.model.a.weight[0] = torch.nan
    with pytest.raises(CompressionError, match=r"prune\(a\).criterion = 'l1': its scores are NaN or infinite"):
        scores(state, state.trace.plans["a"], "l1")


def test_random_channels_depend_on_the_group_alone():
    one, other = state_of("resnet_a"), state_of("resnet_b")
    assert torch.equal(*(scores(s, s.trace.plans["conv1"], "random") for s in (one, other)))
    plans = one.trace.plans
    first, second = (scores(one, plans[f"layer1.{i}.conv1"], "random") for i in (0, 1))
    assert not torch.equal(first, second)


def test_the_offer_names_every_criterion():
    assert OPERATORS["prune"].settings["criterion"].legal.options == tuple(CRITERIA)


PLAIN = state_of("conv_bn_relu")
WEIGHTS = st.sampled_from(["l1", "l2", "fpgm", "bn_scale"])


def judged(model, criterion):
    return scores(Compression(model, model, PLAIN.trace, None), PLAIN.trace.plans["0.0"], criterion)


@settings(max_examples=30, deadline=None)
@given(WEIGHTS, st.floats(0.01, 100))
def test_the_scale_of_a_layer_says_nothing(criterion, factor):
    model = copy.deepcopy(PLAIN.model)
    with torch.no_grad():
        model[0][0].weight *= factor
        model[0][1].weight *= factor
    np.testing.assert_allclose(judged(model, criterion), judged(PLAIN.model, criterion), **ROUNDING)


@settings(max_examples=30, deadline=None)
@given(WEIGHTS, st.permutations(range(8)))
def test_reordered_channels_have_reordered_scores(criterion, order):
    model = copy.deepcopy(PLAIN.model)
    with torch.no_grad():
        model[0][0].weight.copy_(model[0][0].weight[order])
        model[0][1].weight.copy_(model[0][1].weight[order])
    np.testing.assert_allclose(judged(model, criterion), judged(PLAIN.model, criterion)[order], **ROUNDING)


def test_the_middle_filter_goes_first_and_the_smallest_does_not():
    """The point of the geometric median: a filter that others can stand in for, however large."""
    model = copy.deepcopy(PLAIN.model)
    corners = torch.tensor([[1.0, 1], [1, 9], [9, 1], [9, 9], [5, 5], [1, 5], [9, 5], [5, 9]])
    with torch.no_grad():
        model[0][0].weight.zero_()
        model[0][0].weight[:, 0, 0, :2] = corners
    assert judged(model, "fpgm").argmin() == 4
    assert judged(model, "l2").argmin() == 0
