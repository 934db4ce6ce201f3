"""The layer table, the groups, the reasons, and the proof that guards them."""

import copy
import pickle
import time
from dataclasses import replace

import cloudpickle
import pytest
import torch
from nets import IMAGE, PRUNABLE, SEQUENCE, Buffered, ConvBnRelu, Functional, Mixing, Plain, Recurrent, ResNet, make
from torch import nn
from torch.nn import functional as F

from automc.core.layers import LayerTable
from automc.errors import CompressionError, ModelError
from automc.operators.groups.proof import Prover
from automc.operators.layers import trace

OUTPUT = "is the network's output"


@pytest.mark.parametrize("name", PRUNABLE)
def test_every_layer_has_a_group_or_a_reason(name):
    model, inputs = make(name)
    table = trace(model, inputs).table
    assert [layer.index for layer in table.layers] == list(range(len(table.layers)))
    assert all(bool(layer.group) != bool(layer.reason) for layer in table.layers)
    for group in table.groups:
        assert group.name == group.producers[0]
        assert {layer.name for layer in table.layers if layer.group == group.name} == set(group.producers)
    assert table.layers[-1].reason == OUTPUT


def test_layers_in_order_of_execution_with_their_numbers():
    table = trace(Plain(), torch.zeros(1, *IMAGE)).table
    rows = [(r.name, r.kind, r.in_channels, r.out_channels, r.kernel, r.stride, r.out_shape) for r in table.layers]
    assert rows == [
        ("a", "conv", 3, 8, (3, 3), (1, 1), (8, 8, 8)),
        ("b", "conv", 8, 12, (3, 3), (2, 2), (12, 3, 3)),
        ("head", "linear", 12, 5, (), (), (5,)),
    ]
    assert [r.params for r in table.layers] == [3 * 8 * 9 + 8, 8 * 12 * 9 + 12, 12 * 5 + 5]
    assert [r.macs for r in table.layers] == [27 * 8 * 64, 72 * 12 * 9, 60]
    assert table.input_shape == IMAGE


def test_the_streams_of_option_a_are_groups_of_their_own():
    table = trace(ResNet(), torch.zeros(1, 3, 32, 32)).table
    inner = {f"layer{s}.{b}.conv1" for s in (1, 2, 3) for b in (0, 1, 2)}
    streams = {"conv1": 16, "layer2.0.conv2": 32, "layer3.0.conv2": 64}
    assert {group.name for group in table.groups} == inner | set(streams)
    assert {name: table.group(name).channels for name in streams} == streams
    assert table.group("conv1").producers == ("conv1", *(f"layer1.{b}.conv2" for b in (0, 1, 2)))
    assert table.group("layer2.0.conv2").consumers == ("layer2.1.conv1", "layer2.2.conv1", "layer3.0.conv1")
    assert table.layers[-1].reason == OUTPUT
    assert table.macs == 40_551_040


def test_padding_written_into_the_forward_couples_all_stages():
    """Nothing shrinks between the layers then, but the layers do; a padded channel belongs to one stage alone."""

    class Inline(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 1), nn.Conv2d(8, 4, 1)
            self.out = nn.Linear(4, 2)

        def forward(self, x):
            x = F.relu(self.a(x))
            x = self.c(F.relu(self.b(x) + F.pad(x, (0, 0, 0, 0, 2, 2))))
            return self.out(x.mean((2, 3)))

    torch.manual_seed(0)
    model, inputs = Inline(), torch.randn(2, *IMAGE)
    found = trace(model, inputs)
    group = found.table.group("a")
    assert (group.channels, group.producers, group.consumers) == (8, ("a", "b"), ("b", "c"))
    (unit,) = [c for c in range(8) if found.plans["a"].cuts[0].index[c] == (1,)]
    places = {(cut.module, cut.role): cut.index[unit] for cut in found.plans["a"].cuts}
    assert places == {("a", "out"): (1,), ("b", "in"): (1,), ("b", "out"): (3,), ("c", "in"): (3,)}


def test_coupled_layers_of_option_b_and_of_a_depthwise_block():
    model, inputs = make("resnet_b")
    group = trace(model, inputs).table.group("layer2.0.conv2")
    assert group.producers == ("layer2.0.conv2", "layer2.0.shortcut.0", "layer2.1.conv2")
    assert group.consumers == ("layer2.1.conv1", "layer3.0.conv1", "layer3.0.shortcut.0")
    model, inputs = make("inverted")
    table = trace(model, inputs).table
    assert table.group("expand.0").producers == ("expand.0", "depth.0")
    assert [layer.kind for layer in table.layers] == ["conv", "conv", "depthwise", "conv", "linear"]


def test_a_wide_layer_that_meets_a_concatenation_gathers_one_group():
    model, inputs = make("wide_sum")
    table = trace(model, inputs).table
    assert [(g.name, g.channels, g.producers) for g in table.groups] == [("a", 10, ("a", "b", "wide"))]


def test_a_layer_used_twice_is_one_layer_with_both_uses_counted():
    table = trace(Functional(), torch.zeros(1, *SEQUENCE)).table
    assert [(layer.name, layer.macs) for layer in table.layers] == [
        ("layers.0", 4 * 3 * 8 * 12),
        ("layers.1", 2 * 8 * 3 * 8 * 12),
        ("out", 24),
    ]


@pytest.mark.parametrize(
    ("build", "shape", "reason"),
    [
        (Mixing, IMAGE, "cannot lose channels: the rest of the network changes too"),
    ],
)
def test_what_cannot_be_pruned_says_why(build, shape, reason):
    table = trace(build(), torch.zeros(2, *shape)).table
    assert table.groups == ()
    with pytest.raises(CompressionError, match=reason):
        raise CompressionError(table.layers[0].reason)


def test_a_convolution_before_an_lstm_and_one_before_a_buffer():
    """The inputs of a recurrent layer are cut; a per-channel buffer keeps its length, and so does what it meets."""
    table = trace(Recurrent(), torch.zeros(2, *SEQUENCE)).table
    assert [(g.name, g.consumers) for g in table.groups] == [("conv", ("rnn",)), ("rnn", ("out",))]
    assert table.layer("rnn").macs == 10 * 4 * 6 * (8 + 6)
    found = trace(Buffered(), torch.zeros(2, *IMAGE))
    assert {cut.full for cut in found.plans["conv"].cuts} == {"outside"}


def test_a_multiplying_depthwise_convolution_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 3, groups=4), nn.Flatten(), nn.Linear(8 * 36, 2))
    table = trace(model, torch.zeros(1, *IMAGE)).table
    assert table.layers[1].kind == "depthwise"
    assert table.layers[0].reason == "is coupled to '1', a Conv2d with one channel a group on one side"
    assert table.groups == ()


def test_tied_weights_and_parametrized_weights_are_refused():
    tied = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    tied[2].weight = tied[0].weight
    table = trace(tied, torch.zeros(1, 8)).table
    assert table.layers[0].reason == "shares a parameter with another layer ('0')"
    spectral = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8)), nn.ReLU(), nn.Linear(8, 2))
    assert "parametrization" in trace(spectral, torch.zeros(1, 8)).table.layers[0].reason


def test_a_branch_that_is_zero_by_initialisation_does_not_hide_a_wrong_plan():
    model, inputs = make("inverted")
    nn.init.zeros_(model.project[1].weight)  # the residual branch has no effect on the output
    found = trace(model, inputs)
    plan = found.plans["expand.0"]
    Prover(model, inputs).check(plan)
    with pytest.raises(CompressionError, match="the rest of the network changes too"):
        Prover(model, inputs).check(shifted(plan, "project.0"))


@pytest.mark.parametrize("name", ["conv_bn_relu", "dense", "flatten", "grouped", "normed"])
def test_the_proof_refuses_a_shifted_index(name):
    """Each module's index map is shifted by one in turn; sizes stay right and values do not."""
    model, inputs = make(name)
    plans = trace(model, inputs).plans
    prover = Prover(model, inputs)
    for plan in plans.values():
        for cut in plan.cuts:
            if len(plan.cuts) > 1 and cut.blocks == 1:
                with pytest.raises(CompressionError, match="the rest of the network changes too"):
                    prover.check(shifted(plan, cut.module))


def shifted(plan, module):
    def shift(cut):
        return replace(cut, index=(*cut.index[1:], cut.index[0])) if cut.module == module else cut

    return replace(plan, cuts=tuple(shift(cut) for cut in plan.cuts))


def test_a_subclass_with_its_own_forward_is_custom_and_can_still_be_pruned():
    class Doubled(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    class Renamed(nn.Conv2d):
        pass

    model = nn.Sequential(Renamed(3, 4, 1), nn.ReLU(), Doubled(4, 4, 1), nn.Flatten(), nn.Linear(256, 2))
    table = trace(model, torch.zeros(1, *IMAGE)).table
    assert [layer.kind for layer in table.layers] == ["conv", "custom", "linear"]
    assert [group.name for group in table.groups] == ["0", "2"]


def test_tracing_changes_nothing():
    model, inputs = make("resnet_b")
    model.train()
    before = copy.deepcopy(model.state_dict())
    trace(model, inputs)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(module.training and not module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_trace_is_plain_data():
    model, inputs = make("dense")
    found = trace(model, inputs)
    data = cloudpickle.dumps(found)
    assert pickle.loads(data) == found
    assert b"torch" not in data
    assert LayerTable.from_data(found.table.to_data()) == found.table


def test_a_frozen_network_in_half_precision_is_traced_like_any_other():
    model, inputs = make("conv_bn_relu")
    expected = trace(model, inputs).table
    assert trace(model.requires_grad_(False).bfloat16(), inputs.bfloat16()).table == expected


class Silent(nn.Sequential):
    def forward(self, x):
        super().forward(x)


@pytest.mark.parametrize(
    ("model", "example", "message"),
    [
        (Plain(), torch.zeros(1, 4, 8, 8), r"the forward fails on inputs \(1, 4, 8, 8\) \(RuntimeError: .*channels"),
        (nn.ReLU(), torch.zeros(1, 3), "uses no convolution, Linear, LSTM or GRU module"),
        (Silent(nn.Linear(3, 2)), torch.zeros(1, 3), "must return tensors, not NoneType"),
        (lambda x: x, torch.zeros(1, 3), "must be a torch.nn.Module, not function"),
    ],
)
def test_models_that_cannot_be_traced(model, example, message):
    with pytest.raises(ModelError, match=message) as caught:
        trace(model, example)
    assert "\n" not in str(caught.value)


def test_resnet20_is_traced_in_time():
    began = time.process_time()
    trace(ResNet(), torch.zeros(2, 3, 32, 32))
    assert time.process_time() - began < 3.0


def test_batches_of_any_size_give_the_same_table():
    tables = [trace(ConvBnRelu(), torch.zeros(n, *IMAGE)).table for n in (1, 2, 7)]
    assert tables[0] == tables[1] == tables[2]


def test_a_forward_that_insists_on_single_precision_is_proved_in_it():
    class Single(ConvBnRelu):
        def forward(self, x):
            return super().forward(x.float())

    torch.manual_seed(0)
    model = Single()
    assert [group.name for group in trace(model, torch.zeros(1, *IMAGE)).table.groups] == ["0.0", "1.0"]
    assert model[0][0].weight.dtype == torch.float32


def test_a_network_that_reads_tokens():
    model = nn.Sequential(nn.Embedding(11, 6), nn.Flatten(), nn.Linear(18, 8), nn.ReLU(), nn.Linear(8, 2))
    table = trace(model, torch.tensor([[1, 2, 3]])).table
    assert [(layer.name, layer.group, layer.macs) for layer in table.layers] == [("2", "2", 18 * 8), ("4", "", 16)]


def test_a_network_whose_graph_cannot_be_followed_keeps_its_layers():
    class Detached(Plain):
        def forward(self, x):
            with torch.no_grad():
                return super().forward(x)

    table = trace(Detached(), torch.zeros(1, *IMAGE)).table
    assert len(table.layers) == 3
    assert table.groups == ()
    assert all(layer.reason for layer in table.layers)
