"""Every family of networks, every group pruned by half: it equals the original in which nobody reads the channels."""

import copy
import pickle
import random

import pytest
import torch
from families import FAMILIES
from torch import nn
from torch.nn import functional as F

from automc.errors import CompressionError
from automc.measure.cost import costs
from automc.operators.canonical import canonical
from automc.operators.factorized import Factorized
from automc.operators.groups.slicing import remove_channels
from automc.operators.layers import trace
from automc.operators.live_kinds import live
from automc.operators.outputs import tensors_of

# Rounding of single precision, times the length of the sums, times a few layers.
CLOSE = {"rtol": 1e-3, "atol": 5e-5}
TRACED = {}


def traced(name):
    """The network, its inputs and what is known of it; the network is a copy."""
    if name not in TRACED:
        model, inputs = FAMILIES[name]()
        model = canonical(model)
        TRACED[name] = model, inputs, trace(model, inputs)
    model, inputs, found = TRACED[name]
    return copy.deepcopy(model), inputs, found


def half(plan, seed=0):
    draw = random.Random(f"{plan.name} {seed}")
    return sorted(c for cell in plan.members() for c in draw.sample(cell, len(cell) // 2))


def gone_by_side(plans, removed):
    """What each side of each module loses: {(module, role, tensors): indices}; and its cut."""
    sides, cuts = {}, {}
    for name, channels in removed.items():
        for cut in plans[name].cuts:
            key = cut.module, cut.role, cut.tensors
            cuts[key] = cut
            sides.setdefault(key, set()).update(i for c in channels for i in cut.index[c])
    return [(cuts[key], sorted(gone)) for key, gone in sides.items() if gone]


def ignoring(model, plans, removed):
    """A copy in which every reader of a channel that goes reads a zero, and layer norms normalise what stays."""
    model = copy.deepcopy(model)
    for cut, gone in gone_by_side(plans, removed):
        module = model.get_submodule(cut.module)
        if cut.role == "in":
            axis = -1 if isinstance(module, (nn.Linear, nn.RNNBase)) else 1
            module.register_forward_pre_hook(lambda _, args, axis=axis, gone=gone: zero(args, axis, gone))
        elif cut.role == "recurrent":
            for name, axis in cut.tensors:
                getattr(module, name).data.index_fill_(axis, torch.tensor(gone), 0)
        elif isinstance(module, nn.LayerNorm):
            module.register_forward_hook(lambda norm, args, _, gone=gone: norm_without(norm, args[0], gone))
    return model


def zero(args, axis, gone):
    return (args[0].index_fill(axis, torch.tensor(gone), 0), *args[1:])


def norm_without(norm, x, gone):
    keep = torch.tensor([i for i in range(x.shape[-1]) if i not in gone])
    small = F.layer_norm(x[..., keep], (len(keep),), norm.weight[keep], norm.bias[keep], norm.eps)
    return torch.zeros_like(x).index_copy(-1, keep, small)


def outputs(model, inputs):
    with torch.no_grad():
        return tensors_of(model(inputs))


def same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


def params(model):
    return sum(parameter.numel() for parameter in model.parameters())


GROUPS = {
    "resnet_a": 9, "resnet_b": 9, "mobilenet": 8, "densenet": 10, "vgg": 4, "shufflenet": 7,
    "vit": 5, "bert": 6, "lstm": 1, "unet": 6, "detector": 5,
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_has_a_group_and_only_the_output_has_none(family):
    model, inputs, found = traced(family)
    layers = found.table.layers
    assert all(bool(layer.group) != bool(layer.reason) for layer in layers)
    assert {layer.reason for layer in layers} == {"", "is the network's output"}
    assert len(found.table.groups) == GROUPS[family]
    # Every layer is in the table, and the MACs are those that the cost counts, but for attention's products.
    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.LSTM)
    assert {layer.name for layer in layers} == {n for n, m in model.named_modules() if isinstance(m, kinds)}
    macs = costs(model, inputs)["macs"]
    assert found.table.macs == macs if family not in ("vit", "bert") else 0.5 * macs < found.table.macs < macs


@pytest.mark.parametrize("family", FAMILIES)
def test_each_group_pruned_by_half_equals_the_masked_original(family):
    model, inputs, found = traced(family)
    whole = outputs(model, inputs)
    for name, plan in found.plans.items():
        removed = {name: half(plan)}
        pruned = copy.deepcopy(model)
        remove_channels(pruned, found.plans, removed)
        masked = outputs(ignoring(model, found.plans, removed), inputs)
        same(outputs(pruned, inputs), masked)
        assert any(not torch.allclose(a, b, **CLOSE) for a, b in zip(masked, whole, strict=True)), name
        assert params(pruned) < params(model)
        assert costs(pruned, inputs)["macs"] < found.table.macs or family in ("vit", "bert")


@pytest.mark.parametrize("family", FAMILIES)
def test_all_groups_pruned_by_half_equal_the_masked_original(family):
    model, inputs, found = traced(family)
    removed = {name: half(plan, seed=1) for name, plan in found.plans.items()}
    pruned = copy.deepcopy(model)
    remove_channels(pruned, found.plans, removed)
    same(outputs(pruned, inputs), outputs(ignoring(model, found.plans, removed), inputs))
    before, after = costs(model, inputs), costs(pruned, inputs)
    assert after["params"] < 0.55 * before["params"]
    assert after["macs"] < 0.55 * before["macs"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pruned_network_is_copied_and_trained_like_any_other(family):
    model, inputs, found = traced(family)
    remove_channels(model, found.plans, {name: half(plan) for name, plan in found.plans.items()})
    twin = copy.deepcopy(model)
    same(outputs(twin, inputs), outputs(model, inputs))
    loss = sum(tensor.square().mean() for tensor in tensors_of(twin.train()(inputs)))
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in twin.parameters() if p.requires_grad)
    twin.load_state_dict(model.state_dict())
    same(outputs(twin.eval(), inputs), outputs(model, inputs))


@pytest.mark.parametrize("family", ["vit", "shufflenet", "bert", "lstm"])
def test_a_pruned_network_pickles(family):
    model, inputs, found = traced(family)
    remove_channels(model, found.plans, {name: half(plan) for name, plan in found.plans.items()})
    again = pickle.loads(pickle.dumps(model))
    assert params(again) == params(model) < params(traced(family)[0])
    same(outputs(again, inputs), outputs(model, inputs))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning", "ignore::UserWarning")
@pytest.mark.parametrize("family", ["resnet_a", "vit", "bert", "lstm", "shufflenet"])
def test_a_pruned_network_gives_the_same_in_onnxruntime(family, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model, inputs, found = traced(family)
    remove_channels(model, found.plans, {name: half(plan) for name, plan in found.plans.items()})
    path = tmp_path / "model.onnx"
    torch.onnx.export(model, (inputs,), str(path), dynamo=False, input_names=["x"])
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"x": inputs.numpy()})
    (wanted,) = outputs(model, inputs)
    same([torch.from_numpy(result)], [wanted])
    assert result.std() > 1e-3  # outputs that say something


def test_the_two_sides_of_an_option_a_shortcut_are_independent():
    """Stage 2's stream alone loses channels; by hand: conv2's filters go, and the shortcut's padded sum is picked."""
    model, inputs, found = traced("resnet_a")
    group = found.table.group("layer2.0.conv2")
    assert group.producers == ("layer2.0.conv2", "layer2.1.conv2")
    gone = [0, 3, 5, 6, 7, 8, 12, 15]
    keep = [c for c in range(16) if c not in gone]
    small = copy.deepcopy(model)
    remove_channels(small, found.plans, {group.name: gone})
    with torch.no_grad():
        x = model.layer1(F.relu(model.bn1(model.conv1(inputs))))
        block = model.layer2[0]
        y = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x)))))
        pad = torch.zeros(4, 16, 4, 4)
        pad[:, 4:12] = x[:, :, ::2, ::2]
        wanted = F.relu(y + pad)[:, keep]
        torch.testing.assert_close(small.layer2[0](x), wanted, **CLOSE)


def test_the_heads_of_a_fused_attention_go_with_their_rows():
    model, _, found = traced("vit")
    attention = copy.deepcopy(model.blocks[0].attn)
    remove_channels(model, found.plans, {"blocks.0.attn.qkv": [1, 3]})
    small = model.blocks[0].attn
    assert small.qkv.weight.shape == (24, 16)
    assert small.proj.weight.shape == (16, 8)
    x = torch.randn(2, 5, 16)
    with torch.no_grad():
        wanted = attention.proj.bias.expand(2, 5, 16).clone()
        for head in (0, 2):
            rows = slice(4 * head, 4 * head + 4)
            q, k, v = (
                F.linear(x, attention.qkv.weight[16 * n :][rows], attention.qkv.bias[16 * n :][rows]) for n in range(3)
            )
            mixed = torch.softmax(q @ k.transpose(1, 2) / 2, -1) @ v
            wanted += mixed @ attention.proj.weight[:, rows].T
        torch.testing.assert_close(small(x), wanted, **CLOSE)


@pytest.mark.parametrize(("kind", "both", "layers"), [("LSTM", False, 2), ("LSTM", True, 2), ("GRU", True, 1)])
def test_hidden_units_of_recurrent_layers(kind, both, layers):
    """Against the same layer whose hidden units nobody reads: their recurrent columns and the head's are zero."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Linear(3, 6)
            self.rnn = getattr(nn, kind)(6, 8, layers, batch_first=True, bidirectional=both)
            self.head = nn.Linear(16 if both else 8, 4)

        def forward(self, x):
            return self.head(self.rnn(torch.tanh(self.embed(x)))[0])

    torch.manual_seed(3)
    model, inputs = Net().eval(), torch.randn(4, 5, 3)
    found = trace(model, inputs)
    assert [(g.name, g.channels) for g in found.table.groups] == [("embed", 6), ("rnn", 8)]
    assert found.table.layer("rnn").kind == kind.lower()
    gone = [1, 2, 6, 7]
    columns = gone + [8 + c for c in gone] * both
    masked = copy.deepcopy(model)
    with torch.no_grad():
        masked.head.weight[:, columns] = 0
        for name, weight in masked.rnn.named_parameters():
            if name.startswith("weight_hh"):
                weight[:, gone] = 0
            elif name.startswith("weight_ih_l1"):
                weight[:, columns] = 0
    remove_channels(model, found.plans, {"rnn": gone})
    assert model.rnn.hidden_size == 4
    assert all(
        w is getattr(model.rnn, n) for w, n in zip(model.rnn._flat_weights, model.rnn._flat_weights_names, strict=True)
    )
    same(outputs(model, inputs), outputs(masked, inputs))
    masked = copy.deepcopy(model)
    with torch.no_grad():
        masked.rnn.weight_ih_l0[:, [0, 4]] = 0
        if both:
            masked.rnn.weight_ih_l0_reverse[:, [0, 4]] = 0
    remove_channels(model, found.plans, {"embed": [0, 4]})
    assert (model.rnn.input_size, model.embed.out_features) == (4, 4)
    same(outputs(model, inputs), outputs(masked, inputs))


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_a_projected_lstm_says_why():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.LSTM(3, 8, proj_size=4), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.rnn(x)[0])

    table = trace(Net(), torch.randn(2, 5, 3)).table
    assert table.layer("rnn").reason == "is coupled to 'rnn', a LSTM with a projection (proj_size)"


def test_live_and_factorized_layers_are_pruned_like_plain_ones():
    """Masks follow their weights; of a factorized layer the first part loses inputs and the last one outputs."""
    model, inputs, found = traced("vgg")
    first, last = nn.Linear(48, 6, bias=False), nn.Linear(6, 16)
    model.classifier[0] = Factorized(first, last)
    layer = live(model.features[2])
    layer.ways["weight"].mask = torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    removed = {name: half(plan) for name, plan in found.plans.items()}
    masked = copy.deepcopy(model)
    for reader, group in (("features.2", "features.0"), ("features.5", "features.2"), ("classifier.3", "classifier.0")):
        axis = -1 if reader.startswith("classifier") else 1
        hook = lambda _, args, axis=axis, gone=removed[group]: zero(args, axis, gone)  # noqa: E731
        masked.get_submodule(reader).register_forward_pre_hook(hook)
    flat = [4 * c + place for c in removed["features.5"] for place in range(4)]
    masked.classifier[0].register_forward_pre_hook(lambda _, args: zero(args, -1, flat))
    remove_channels(model, found.plans, removed)
    same(outputs(model, inputs), outputs(masked, inputs))
    assert (first.in_features, first.out_features, last.in_features, last.out_features) == (24, 6, 6, 8)


def test_what_a_dropped_block_lost_is_passed_over():
    class Dropped(nn.Identity):
        pass

    model, inputs, found = traced("resnet_a")
    dropped = copy.deepcopy(model)
    dropped.layer1[1] = Dropped()
    masked = ignoring(
        dropped, {k: p for k, p in found.plans.items() if k == "layer2.0.conv2"}, {"layer2.0.conv2": [0, 9]}
    )
    remove_channels(dropped, found.plans, {"layer1.1.conv1": [1], "layer2.0.conv2": [0, 9]})
    same(outputs(dropped, inputs), outputs(masked, inputs))
    del model.layer1[1]
    with pytest.raises(CompressionError, match=r"the network has no module 'layer1\.1\.conv1'; compress the network"):
        remove_channels(model, found.plans, {"layer1.1.conv1": [1]})
