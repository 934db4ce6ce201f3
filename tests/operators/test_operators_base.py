"""The walk through the operators: what it refuses, what it leaves alone, in which order it goes."""

import copy

import pytest
import torch
from nets import make
from torch import nn

from automc.core.policy import Policy, Site
from automc.errors import CompressionError
from automc.operators import OPERATORS, ORDER
from automc.operators.base import Compression, compress
from automc.operators.layers import trace
from automc.operators.prune import prune
from automc.operators.quantize import quantize

JOINT = Policy(
    {
        Site("prune", "layer1.0.conv1", "prune_ratio"): 0.5,
        Site("quantize", "layer1.0.conv2", "weight_bits"): 4,
        Site("quantize", "layer1.0.conv2", "activation_bits"): 8,
        Site("distill", "*", "kd_alpha"): 0.5,
    }
)


@pytest.fixture(scope="module")
def state():
    model, inputs = make("resnet_a")
    return Compression(model, model, trace(model, inputs), inputs)


def test_an_empty_policy_gives_an_equal_network(state):
    after = compress(state, Policy({}), ORDER)
    assert after.model is not state.model
    assert all(
        torch.equal(a, b)
        for a, b in zip(after.model.state_dict().values(), state.model.state_dict().values(), strict=True)
    )
    assert (after.losses, after.realized, after.stale) == ((), {}, False)


def test_neutral_settings_leave_the_network_as_it_is(state):
    values = {
        Site(operator.name, target, name): setting.neutral
        for operator in OPERATORS.values()
        for name, setting in operator.settings.items()
        for target in {"group": ["layer1.0.conv1"], "block": ["layer1.0"], "layer": ["conv1"], "network": ["*"]}[
            operator.scope
        ]
    }
    after = compress(state, Policy(values), ORDER)
    assert torch.equal(after.model(state.calibration), state.model(state.calibration))
    assert (after.losses, after.stale) == ((), False)
    assert after.realized["layer1.0.conv1"] == {"prune_ratio": 0.0, "channels": 8}


def test_inputs_are_never_changed(state):
    before = copy.deepcopy(state.model.state_dict())
    types = [type(module) for module in state.model.modules()]
    after = compress(state, JOINT, ORDER)
    assert all(torch.equal(before[key], value) for key, value in state.model.state_dict().items())
    assert [type(module) for module in state.model.modules()] == types
    assert state.realized == {}
    assert after.teacher is state.teacher
    assert len(after.losses) == 1
    assert not after.model.training


def test_compressing_twice_gives_the_same(state):
    first, second = compress(state, JOINT, ORDER), compress(state, JOINT, ORDER)
    assert first.realized == second.realized
    assert torch.equal(first.model(state.calibration), second.model(state.calibration))


def test_operators_go_in_the_order_given(state, monkeypatch):
    went = []

    def spy(operator):
        return lambda state, settings: went.append(operator.__name__) or operator(state, settings)

    monkeypatch.setattr("automc.operators.prune.prune", spy(prune))
    monkeypatch.setattr("automc.operators.quantize.quantize", spy(quantize))
    compress(state, JOINT, ("prune", "quantize", "distill"))
    compress(state, JOINT, ("distill", "quantize", "prune"))
    assert went == ["prune", "quantize", "quantize", "prune"]


@pytest.mark.parametrize(
    ("site", "value", "message"),
    [
        (
            Site("prun", "a", "prune_ratio"),
            0.5,
            r"unknown operator 'prun', did you mean 'prune'\?; there are drop, prune, fact",
        ),
        (
            Site("prune", "layer1.0.conv", "prune_ratio"),
            0.5,
            r"prune: no group 'layer1.0.conv', did you mean 'layer1.0.conv1'",
        ),
        (Site("prune", "linear", "prune_ratio"), 0.5, "prune: 'linear' names no group: it is the network's output"),
        (Site("prune", "layer1.0.conv1", "ratio"), 0.5, r"prune\(layer1.0.conv1\).ratio: unknown setting"),
        (
            Site("prune", "layer1.0.conv1", "prune_ratio"),
            1.0,
            r"prune\(layer1.0.conv1\).prune_ratio must be in 0..0.99, not 1.0",
        ),
        (Site("prune", "layer1.0.conv1", "criterion"), "l3", r"criterion must be in \{l1, l2, .*\}, not 'l3'"),
        (Site("quantize", "conv11", "weight_bits"), 4, r"quantize: no layer 'conv11', did you mean 'conv1'"),
        (Site("quantize", "conv1", "weight_bits"), 9, r"quantize\(conv1\).weight_bits must be in \{1, 2,"),
        (Site("distill", "conv1", "kd_alpha"), 0.5, r"distill: applies to the whole network, '\*', not to 'conv1'"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(state, site, value, message):
    with pytest.raises(CompressionError, match=message) as caught:
        compress(state, Policy({site: value}), ORDER)
    assert "\n" not in str(caught.value)


def test_an_order_that_leaves_an_operator_out_is_refused(state):
    with pytest.raises(CompressionError, match="the policy names 'distill', which the order"):
        compress(state, JOINT, ("prune", "quantize"))


def test_a_member_of_a_group_that_is_not_its_name():
    model, inputs = make("inverted")
    state = Compression(model, model, trace(model, inputs), inputs)
    with pytest.raises(CompressionError, match=r"'depth\.0' names no group: it belongs to group 'expand\.0'"):
        compress(state, Policy({Site("prune", "depth.0", "prune_ratio"): 0.5}), ORDER)


def test_a_layer_with_its_own_forward_is_not_quantized():
    class Own(nn.Linear):
        def forward(self, x):
            return super().forward(x) + 1

    model = nn.Sequential(Own(4, 4), nn.ReLU(), nn.Linear(4, 2))
    state = Compression(model, model, trace(model, torch.zeros(1, 4)), torch.zeros(1, 4))
    with pytest.raises(CompressionError, match="quantize: '0' is of kind custom; it takes conv, depthwise, "):
        compress(state, Policy({Site("quantize", "0", "weight_bits"): 4}), ORDER)


def test_a_compressed_network_that_does_not_run_is_an_error(state):
    broken = Compression(state.model, state.teacher, state.trace, torch.zeros(1, 5, 8, 8))
    with pytest.raises(CompressionError, match=r"the compressed network's forward fails \(RuntimeError: "):
        compress(broken, Policy({Site("prune", "layer1.0.conv1", "prune_ratio"): 0.5}), ORDER)


def test_a_network_of_several_outputs_is_tried_as_well():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2), nn.Linear(6, 3)

        def forward(self, x):
            x = torch.relu(self.body(x))
            return {"a": self.a(x), "b": [self.b(x), None]}

    torch.manual_seed(0)
    model, inputs = Two(), torch.randn(4, 4)
    found = trace(model, inputs)
    policy = Policy({Site("prune", "body", "prune_ratio"): 0.5})
    outputs = compress(Compression(model, model, found, inputs), policy, ORDER).model(inputs)
    assert (outputs["a"].shape, outputs["b"][0].shape) == ((4, 2), (4, 3))
    with pytest.raises(CompressionError, match=r"the compressed network's forward fails \(RuntimeError: "):
        compress(Compression(model, model, found, torch.randn(4, 5)), policy, ORDER)
