"""Criteria of other libraries: driven from a plan they say what they say when they are driven their own way."""

import sys

import numpy as np
import pytest
import torch
import torch_pruning
from nets import make
from torch import nn

from automc.errors import CompressionError
from automc.operators.base import Compression
from automc.operators.criteria import scores
from automc.operators.layers import trace

GROUPS = [
    ("plain", "a"), ("conv_bn_relu", "1.0"), ("resnet_b", "layer2.0.conv2"), ("dense", "a"), ("flatten", "a"),
    ("grouped", "c"), ("inverted", "expand.0"), ("mlp", "1"),
]  # fmt: skip


def state_of(net):
    model, inputs = make(net)
    return Compression(model, model, trace(model, inputs), inputs)


@pytest.mark.parametrize(("net", "group"), GROUPS)
@pytest.mark.parametrize(
    ("criterion", "theirs"),
    [
        ("tp_magnitude", torch_pruning.importance.GroupMagnitudeImportance),
        ("tp_fpgm", torch_pruning.importance.FPGMImportance),
    ],
)
def test_torch_pruning_says_the_same_of_its_own_group(net, group, criterion, theirs):
    state = state_of(net)
    graph = torch_pruning.DependencyGraph().build_dependency(state.teacher, (state.calibration,), verbose=False)
    root = state.teacher.get_submodule(group)
    linear = isinstance(root, nn.Linear)
    prune = torch_pruning.prune_linear_out_channels if linear else torch_pruning.prune_conv_out_channels
    channels = list(range(state.trace.plans[group].channels))
    wanted = theirs()(graph.get_pruning_group(root, prune, channels))
    # Sums of single precision in another order.
    torch.testing.assert_close(
        scores(state, state.trace.plans[group], criterion), wanted.double(), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("group", ["conv1", "layer2.0.conv2"])
@pytest.mark.parametrize("criterion", ["l1", "l2", "fpgm"])
def test_nni_agrees_with_the_definitions(group, criterion):
    pytest.importorskip("nni", exc_type=ImportError)
    state = state_of("resnet_b")
    plan = state.trace.plans[group]
    before = {key: value.clone() for key, value in state.teacher.state_dict().items()}
    np.testing.assert_allclose(scores(state, plan, f"nni_{criterion}"), scores(state, plan, criterion), rtol=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in state.teacher.state_dict().items())


def test_without_nni_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "nni", None)
    monkeypatch.delitem(sys.modules, "nni.compression.pruning", raising=False)
    state = state_of("plain")
    with pytest.raises(CompressionError, match=r"prune\(a\).criterion = 'nni_l1': .* pip install 'automc\[nni\]'"):
        scores(state, state.trace.plans["a"], "nni_l1")


@pytest.mark.parametrize("criterion", ["tp_magnitude", "tp_fpgm"])
def test_a_producer_they_do_not_know_is_an_error(criterion):
    state = state_of("volume")
    with pytest.raises(CompressionError, match=r"it knows no ConvTranspose3d \('up'\) as a producer"):
        scores(state, state.trace.plans["up"], criterion)


def test_where_they_break_the_error_says_so():
    """Torch-Pruning 1.6 repeats a matrix as if it were a vector where a grouped convolution reads."""
    state = state_of("grouped")
    with pytest.raises(CompressionError, match=r"Torch-Pruning fails on this group \(RuntimeError: Number of dim"):
        scores(state, state.trace.plans["a.0"], "tp_fpgm")
