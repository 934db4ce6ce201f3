"""The operator: what it does to networks of every family, to live layers and to their training."""

import copy
import pickle

import numpy as np
import pytest
import torch
from families import FAMILIES
from torch import nn
from torch.nn import functional as F

from automc.core.policy import Policy, Site
from automc.errors import CompressionError
from automc.operators import ORDER
from automc.operators.base import Compression, compress
from automc.operators.layers import trace
from automc.operators.live import LiveLayer, advance
from automc.operators.offers.sparsify import SPARSIFY


def sites(layers, **settings):
    return {Site("sparsify", layer, name): value for layer in layers for name, value in settings.items()}


def state_of(model, inputs, **more):
    return Compression(model, model, trace(model, inputs), inputs, **more)


def takes(state):
    return [layer.name for layer in state.trace.table.layers if layer.kind in SPARSIFY.kinds]


def used(layer):
    return {name: layer.used(name).detach() for name in layer.ways}


def live_layers(model):
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, LiveLayer)}


def flat(output):
    """All tensors of an output as one."""
    if isinstance(output, dict):
        output = list(output.values())
    return torch.cat([flat(x) for x in output]) if isinstance(output, (list, tuple)) else output.flatten()


class Small(nn.Module):
    """A convolution, a depthwise one, a batch norm and a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8 * 16, 5)

    def forward(self, x):
        return self.head(F.relu(self.norm(self.depth(F.relu(self.conv(x))))).flatten(1))


def small(seed=0):
    torch.manual_seed(seed)
    return state_of(Small().eval(), torch.randn(96, 3, 4, 4))


LAYERS = ("conv", "depth", "head")


@pytest.mark.parametrize("method", ["magnitude", "obs"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loses_what_is_said_and_still_learns(family, method):
    state = state_of(*FAMILIES[family]())
    after = compress(state, Policy(sites(takes(state), sparsity=0.6, method=method)), ORDER)
    assert after.stale
    for name in takes(state):
        tensors = used(after.model.get_submodule(name)).values()
        zeros = sum((tensor == 0).sum().item() for tensor in tensors)
        assert zeros == sum(np.floor(0.6 * tensor.numel() + 1e-9) for tensor in tensors)
        facts = after.realized[name]
        assert facts["sparsity"] == zeros / sum(tensor.numel() for tensor in tensors)
        recurrent = isinstance(after.model.get_submodule(name), nn.LSTM)
        assert facts["sparsity_method"] == ("magnitude" if recurrent else method)
    output = flat(after.model.train()(state.calibration))
    output.square().mean().backward()
    assert output.isfinite().all()
    for layer in live_layers(after.model).values():
        for name, way in layer.ways.items():
            gradient = getattr(layer, name).grad
            assert gradient is None or (gradient[~way.mask] == 0).all()


@pytest.mark.parametrize("pattern", SPARSIFY.settings["pattern"].legal.options)
@pytest.mark.parametrize("method", ["magnitude", "wanda", "obs"])
def test_every_pattern_with_every_method(pattern, method):
    state = small()
    after = compress(state, Policy(sites(LAYERS, sparsity=0.5, pattern=pattern, method=method)), ORDER)
    for name in LAYERS:
        weight = used(after.model.get_submodule(name))["weight"]
        zeros = (weight == 0).float().mean().item()
        assert after.realized[name] == {
            "sparsity": pytest.approx(zeros),
            "pattern": pattern,
            "sparsity_method": method,
        }
        assert 0 < zeros < 1
        if ":" in pattern:
            n = int(pattern[0])
            # In a row the input channels lie side by side. Depthwise rows of 9 weights: groups of 4, 4 and 1.
            rows = weight.movedim(1, -1).flatten(1)
            assert all(((part != 0).sum(dim=1) == min(n, part.shape[1])).all() for part in rows.split(4, dim=1))
    assert not torch.equal(after.model(state.calibration), state.model(state.calibration))


def test_an_n_of_m_pattern_has_its_own_sparsity_and_any_above_zero_switches_it_on():
    state = small()
    found = [
        compress(state, Policy(sites(["head"], sparsity=s, pattern="1:4")), ORDER).realized["head"]["sparsity"]
        for s in (0.0, 0.01, 0.9)
    ]
    assert found == [0.0, 0.75, 0.75]


def test_no_sparsity_leaves_the_network_as_it_is():
    state = small()
    after = compress(state, Policy(sites(LAYERS, sparsity=0.0, method="obs", pattern="2:4")), ORDER)
    assert not live_layers(after.model)
    assert not after.stale
    assert after.realized["conv"] == {"sparsity": 0.0, "pattern": "2:4", "sparsity_method": "obs"}
    before, now = state.model.state_dict(), after.model.state_dict()
    assert before.keys() == now.keys()
    assert all(torch.equal(before[key], now[key]) for key in before)


def test_the_second_order_changes_the_outputs_least():
    state = small()
    base, gaps = state.model(state.calibration), {}
    for method in ("magnitude", "wanda", "obs"):
        after = compress(state, Policy(sites(["head"], sparsity=0.6, method=method)), ORDER)
        gaps[method] = (after.model(state.calibration) - base).square().sum().item()
    assert gaps["obs"] < 0.5 * gaps["wanda"] < gaps["wanda"] < gaps["magnitude"]


def test_wanda_weighs_by_the_inputs_norm():
    state = small()
    seen = []
    state.model.head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    state.model(state.calibration)
    state.model.head._forward_pre_hooks.clear()
    after = compress(state, Policy(sites(["head"], sparsity=0.5, method="wanda")), ORDER)
    scores = (state.model.head.weight.abs() * seen[0].norm(dim=0)).flatten()
    gone = (~after.model.head.ways["weight"].mask).flatten()
    assert scores[gone].max() <= scores[~gone].min() * (1 + 1e-6)  # summed in another order
    assert gone.sum() == 320


def test_the_second_order_sees_the_inputs_of_the_recalibrated_network_where_statistics_are_stale():
    state = small()
    values = {Site("prune", "conv", "prune_ratio"): 0.5}
    after = compress(state, Policy(values | sites(["head"], sparsity=0.5, method="wanda")), ORDER)
    pruned = compress(state, Policy(values), ORDER).model
    inputs = F.relu(F.batch_norm(pruned.depth(F.relu(pruned.conv(state.calibration[:48]))), None, None, *(
        pruned.norm.weight, pruned.norm.bias), training=True, eps=pruned.norm.eps)).flatten(1)  # fmt: skip
    more = F.relu(F.batch_norm(pruned.depth(F.relu(pruned.conv(state.calibration[48:]))), None, None, *(
        pruned.norm.weight, pruned.norm.bias), training=True, eps=pruned.norm.eps)).flatten(1)  # fmt: skip
    scores = (pruned.head.weight.abs() * torch.cat([inputs, more]).norm(dim=0)).flatten()
    gone = (~after.model.head.ways["weight"].mask).flatten()
    assert scores[gone].max() <= scores[~gone].min() * (1 + 1e-5)  # summed in another order


def test_the_same_policy_gives_the_same_network_with_and_without_memory():
    state, memory = small(), {}
    policy = Policy(sites(LAYERS, sparsity=0.7, method="obs"))
    state_before = torch.get_rng_state()
    models = [
        compress(Compression(state.model, state.model, state.trace, state.calibration, memory=m), policy, ORDER).model
        for m in ({}, memory, memory)
    ]
    assert memory
    first, *others = (model.state_dict() for model in models)
    assert all(torch.equal(first[key], other[key]) for other in others for key in first)
    assert torch.equal(torch.get_rng_state(), state_before)


def test_memory_of_the_original_network_is_not_used_for_a_pruned_one():
    state = small()
    whole = Policy(sites(LAYERS, sparsity=0.5, method="obs"))
    pruned = Policy({Site("prune", "conv", "prune_ratio"): 0.5, **whole})
    alone = compress(state, pruned, ORDER).model.state_dict()
    memory = {}
    shared = Compression(state.model, state.model, state.trace, state.calibration, memory=memory)
    compress(shared, whole, ORDER)
    kept = copy.deepcopy(memory)
    again = compress(shared, pruned, ORDER).model.state_dict()
    assert all(torch.equal(alone[key], again[key]) for key in alone)
    assert {key[0] for key in kept} == {"moments"}
    for key, sums in kept.items():
        assert torch.equal(memory[key], sums)


def test_methods_that_look_at_inputs_need_some():
    state = small()
    bare = Compression(state.model, state.model, state.trace, None)
    with pytest.raises(CompressionError, match=r"sparsify\(conv\)\.method: obs needs calibration inputs; there are no"):
        compress(bare, Policy(sites(["conv"], sparsity=0.5, method="obs")), ORDER)
    assert compress(bare, Policy(sites(["conv"], sparsity=0.5)), ORDER).realized["conv"]["sparsity"] == 0.5


def train(model, inputs, steps=8):
    """A repair with weight decay; yields the masks in use after each step."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
    generator = torch.Generator().manual_seed(1)
    targets = torch.randint(5, (len(inputs),), generator=generator)
    model.train()
    for step in range(steps):
        advance(model, step / steps)
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        yield {name: layer.ways["weight"].mask.clone() for name, layer in live_layers(model).items()}
    model.eval()


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("method", ["magnitude", "obs"])
def test_zeros_stay_zero_through_a_repair(method, quantized):
    state = small()
    values = sites(LAYERS, sparsity=0.7, method=method)
    values |= {Site("quantize", name, "weight_bits"): 4 for name in LAYERS} if quantized else {}
    after = compress(state, Policy(values), ORDER)
    zero = {name: used(layer)["weight"] == 0 for name, layer in live_layers(after.model).items()}
    masks = {name: layer.ways["weight"].mask.clone() for name, layer in live_layers(after.model).items()}
    before = {name: used(layer)["weight"] for name, layer in live_layers(after.model).items()}
    for found in train(after.model, state.calibration):
        assert all(torch.equal(found[name], masks[name]) for name in LAYERS)
    for name, layer in live_layers(after.model).items():
        weight = used(layer)["weight"]
        assert (weight[~masks[name]] == 0).all()
        assert (zero[name] | masks[name]).all()
        assert not torch.equal(weight, before[name])


@pytest.mark.parametrize(
    ("pattern", "method"), [("unstructured", "magnitude"), ("unstructured", "obs"), ("2:4", "obs")]
)
def test_regrown_weights_come_back_and_the_count_stays(pattern, method):
    state = small()
    chosen = sites(LAYERS, sparsity=0.5, pattern=pattern, method=method, regrow=True)
    after = compress(state, Policy(chosen), ORDER)
    first = {name: layer.ways["weight"].mask.clone() for name, layer in live_layers(after.model).items()}
    seen = list(train(after.model, state.calibration))
    back = {name: (seen[-1][name] & ~first[name]).sum().item() for name in LAYERS}
    assert min(back.values()) > 0, back
    for masks in seen:
        assert all(masks[name].sum() == first[name].sum() for name in LAYERS)
    for name, layer in live_layers(after.model).items():
        # The mask that the last step began with; forward still uses it.
        assert torch.equal(used(layer)["weight"] != 0, layer.ways["weight"].mask)
        assert after.realized[name]["pattern"] == pattern


@pytest.mark.parametrize("order", [("sparsify", "quantize"), ("quantize", "sparsify")])
@pytest.mark.parametrize("bits", [1, 4])
@pytest.mark.parametrize("method", ["magnitude", "wanda", "obs"])
def test_quantized_layers_keep_exact_zeros_in_either_order(order, bits, method):
    state = small()
    values = sites(LAYERS, sparsity=0.5, method=method)
    values |= {Site("quantize", name, s): bits for name in LAYERS for s in ("weight_bits", "activation_bits")}
    after = compress(state, Policy(values), order)
    rounded = method == "obs" and order[0] == "quantize"  # codes are chosen, so weights are not moved any more
    for name, layer in live_layers(after.model).items():
        mask = layer.ways["weight"].mask
        assert (~mask).sum() == mask.numel() // 2
        stored = layer.stored()["weight"]
        assert (stored.dense()[~mask.numpy()] == 0).all()
        assert np.array_equal(stored.dense(), used(layer)["weight"].numpy())
        assert np.array_equal(stored.mask, mask.numpy())
        assert after.realized[name]["sparsity_method"] == ("magnitude" if rounded else method)
    assert after.model(state.calibration).isfinite().all()


@pytest.mark.parametrize("regrow", [False, True])
@pytest.mark.parametrize("order", [("prune", "sparsify"), ("sparsify", "prune")])
def test_pruning_and_sparsity_go_together_in_either_order(order, regrow):
    state = small()
    values = {Site("prune", "conv", "prune_ratio"): 0.5, **sites(LAYERS, sparsity=0.5, method="obs", regrow=regrow)}
    after = compress(state, Policy(values), order)
    assert after.model.conv.weight.shape == (4, 3, 3, 3)
    for name, layer in live_layers(after.model).items():
        mask = layer.ways["weight"].mask
        assert mask.shape == layer.weight.shape, name
        assert torch.equal(used(layer)["weight"] != 0, mask)
    list(train(after.model, state.calibration, steps=2))
    if regrow:
        mask = after.model.head.ways["weight"].mask
        assert (~mask).sum() == mask.numel() // 2


def test_every_part_of_a_factorized_layer_is_sparse():
    state = small()
    values = {Site("factorize", name, "rank_ratio"): 0.5 for name in ("conv", "head")}
    after = compress(state, Policy(values | sites(("conv", "head"), sparsity=0.5, method="obs")), ORDER)
    for name in ("conv", "head"):
        layers = [module for path, module in live_layers(after.model).items() if path.startswith(f"{name}.")]
        assert len(layers) > 1
        halves = [(used(layer)["weight"] == 0).sum().item() for layer in layers]
        assert halves == [layer.weight.numel() // 2 for layer in layers]
        assert after.realized[name]["sparsity"] == sum(halves) / sum(layer.weight.numel() for layer in layers)


class Tied(nn.Module):
    """Two linear layers with one weight."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(F.relu(self.a(x)))


def test_a_weight_that_another_layer_shares_is_masked_and_not_moved():
    torch.manual_seed(0)
    state = state_of(Tied().eval(), torch.randn(32, 6))
    after = compress(state, Policy(sites(["a"], sparsity=0.5, method="obs")), ORDER)
    assert after.realized["a"]["sparsity_method"] == "magnitude"
    assert torch.equal(after.model.b.weight, state.model.b.weight)
    assert after.model.b.weight is after.model.a.weight
    assert (after.model.a.used("weight") == 0).sum() == 18


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_all_matrices_of_a_recurrent_layer_are_sparse(kind):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = kind(6, 8, num_layers=2, batch_first=True, bidirectional=True), nn.Linear(16, 3)

        def forward(self, x):
            return self.head(self.rnn(x)[0][:, -1])

    torch.manual_seed(0)
    state = state_of(Net().eval(), torch.randn(16, 5, 6))
    after = compress(state, Policy(sites(["rnn"], sparsity=0.5, pattern="2:4", method="obs")), ORDER)
    tensors = used(after.model.rnn)
    assert len(tensors) == 8
    assert after.realized["rnn"]["sparsity_method"] == "magnitude"
    plain = copy.deepcopy(state.model)
    for name, tensor in tensors.items():
        counts = torch.cat([(part != 0).sum(1) for part in tensor.split(4, 1)])
        assert set(counts.tolist()) == {2}
        getattr(plain.rnn, name).data.copy_(tensor)
    torch.testing.assert_close(after.model(state.calibration), plain(state.calibration))


def test_masks_and_patterns_survive_a_copy_a_pickle_and_a_saved_state():
    state = small()
    after = compress(state, Policy(sites(LAYERS, sparsity=0.5, pattern="2:4", method="obs", regrow=True)), ORDER)
    wanted = after.model(state.calibration)
    for twin in (copy.deepcopy(after.model), pickle.loads(pickle.dumps(after.model))):
        assert torch.equal(twin(state.calibration), wanted)
        assert twin.conv.ways["weight"].pattern == after.model.conv.ways["weight"].pattern
    other = compress(state, Policy(sites(LAYERS, sparsity=0.5, pattern="1:4")), ORDER).model
    other.load_state_dict(after.model.state_dict())
    assert torch.equal(other(state.calibration), wanted)
