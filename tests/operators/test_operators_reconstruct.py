"""Least squares behind pruned channels, against numpy's on the inputs that the layers really read."""

import copy

import numpy as np
import pytest
import torch
from families import FAMILIES
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import entering
from torch import nn
from torch.nn import functional as F

from automc.core.policy import Policy, Site
from automc.errors import CompressionError
from automc.operators import moments
from automc.operators.base import Compression, compress
from automc.operators.layers import trace
from automc.operators.reconstruct import absorbed, reconstruct

ORDER = ("drop", "prune", "factorize", "sparsify", "quantize", "distill")
TINY = 1e-12  # a ridge that is nothing beside the data
EXACT = {"rtol": 1e-7, "atol": 1e-8}  # normal equations square a condition of up to 1e3, in double precision


def state_of(model, inputs):
    """In double precision."""
    found = trace(model, inputs[:2])
    model = model.double().eval()
    return Compression(model, model, found, inputs.double())


def policy(ratios, **more):
    return Policy({Site("prune", g, s): v for g, r in ratios.items() for s, v in {"prune_ratio": r, **more}.items()})


def refitted(state, ratios, ridge=TINY):
    """The network pruned, and pruned and refitted."""
    plain = compress(state, policy(ratios), ORDER)
    return plain, reconstruct(state, compress(state, policy(ratios), ORDER), ridge)


def product(layer, x):
    """X of the layer, by ``unfold`` and by nothing that automc has; channels first, then the kernel's places."""
    if isinstance(layer, nn.Linear):
        return x.reshape(-1, x.shape[-1]).numpy()
    if isinstance(layer, nn.Conv1d):
        cols = F.pad(x, (layer.padding[0],) * 2).unfold(2, layer.kernel_size[0], layer.stride[0])
        return cols.permute(0, 2, 1, 3).flatten(0, 1).flatten(1).numpy()
    columns = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    return columns.transpose(1, 2).flatten(0, 1).numpy()


def by_numpy(layer, x, keep):
    """Weight and bias with only the channels ``keep`` left, that lstsq gives; per input channel of one group."""
    read = product(layer, x)
    places = read.shape[1] // x.shape[-1 if isinstance(layer, nn.Linear) else 1]
    columns = [c * places + p for c in keep for p in range(places)]
    wanted = read @ layer.weight.detach().flatten(1).numpy().T
    used = read[:, columns]
    if layer.bias is not None:
        wanted = wanted + layer.bias.detach().numpy()
        used = np.concatenate([used, np.ones((len(used), 1))], axis=1)
    solution = np.linalg.lstsq(used, wanted, rcond=None)[0]
    return (solution[:-1].T, solution[-1]) if layer.bias is not None else (solution.T, None)


class Two(nn.Module):
    """Two layers with a bent line between them."""

    def __init__(self, first, second, between=F.silu):
        super().__init__()
        self.first, self.second, self.between = first, second, between

    def forward(self, x):
        return self.second(self.between(self.first(x)))


def flat(x):
    return F.silu(x).flatten(1)


KINDS = {
    "conv": (lambda: Two(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 3, 2, 1)), (40, 3, 8, 8)),
    "conv without bias": (lambda: Two(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, (1, 3), bias=False)), (40, 3, 8, 8)),
    "conv1d": (lambda: Two(nn.Conv1d(3, 6, 3), nn.Conv1d(6, 5, 3, padding=1)), (60, 3, 9)),
    "linear": (lambda: Two(nn.Linear(7, 6), nn.Linear(6, 4)), (80, 7)),
    "linear without bias": (lambda: Two(nn.Linear(7, 6), nn.Linear(6, 4, bias=False)), (20, 4, 7)),
}


def made(build, shape):
    torch.manual_seed(0)
    return state_of(build(), torch.randn(shape))


@pytest.mark.parametrize("kind", KINDS)
def test_the_consumer_is_the_least_squares_solution(kind):
    state = made(*KINDS[kind])
    plain, found = refitted(state, {"first": 0.5})
    keep = [c for c in range(6) if c not in found.removed["first"]]
    weight, bias = by_numpy(state.teacher.second, entering(state, "second"), keep)
    layer = found.model.second
    np.testing.assert_allclose(layer.weight.detach().flatten(1).numpy(), weight, **EXACT)
    if bias is not None:
        np.testing.assert_allclose(layer.bias.detach().numpy(), bias, **EXACT)
    assert torch.equal(found.model.first.weight, plain.model.first.weight)
    assert found.stale


def test_a_flattened_channel_has_several_inputs():
    state = made(lambda: Two(nn.Conv2d(3, 6, 3, bias=False), nn.Linear(24, 4), flat), (90, 3, 4, 4))
    _, found = refitted(state, {"first": 0.5})
    keep = [4 * c + p for c in range(6) if c not in found.removed["first"] for p in range(4)]
    weight, bias = by_numpy(state.teacher.second, entering(state, "second"), keep)
    np.testing.assert_allclose(found.model.second.weight.detach().numpy(), weight, **EXACT)
    np.testing.assert_allclose(found.model.second.bias.detach().numpy(), bias, **EXACT)


def test_each_group_of_a_grouped_convolution_is_refitted_alone():
    state = made(lambda: Two(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3, groups=2)), (60, 3, 7, 7))
    _, found = refitted(state, {"first": 0.5})
    old, new, x = state.teacher.second, found.model.second, entering(state, "second")
    assert new.groups == 2
    for group in range(2):
        alone = nn.Conv2d(4, 3, 3).double()
        alone.weight, alone.bias = (nn.Parameter(t[3 * group : 3 * group + 3].detach()) for t in (old.weight, old.bias))
        keep = [c for c in range(4) if 4 * group + c not in found.removed["first"]]
        weight, bias = by_numpy(alone, x[:, 4 * group : 4 * group + 4], keep)
        own = slice(3 * group, 3 * group + 3)
        np.testing.assert_allclose(new.weight[own].detach().flatten(1).numpy(), weight, **EXACT)
        np.testing.assert_allclose(new.bias[own].detach().numpy(), bias, **EXACT)


class Three(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 6, 3), nn.SiLU(), nn.Conv2d(6, 8, 3), nn.SiLU(), nn.Conv2d(8, 4, 1))


def test_of_a_layer_pruned_on_both_sides_the_kept_outputs_are_refitted():
    state = made(Three, (60, 3, 8, 8))
    _, found = refitted(state, {"0": 0.5, "2": 0.25})
    keep = [c for c in range(6) if c not in found.removed["0"]]
    rows = [c for c in range(8) if c not in found.removed["2"]]
    weight, bias = by_numpy(state.teacher[2], entering(state, "2"), keep)
    np.testing.assert_allclose(found.model[2].weight.detach().flatten(1).numpy(), weight[rows], **EXACT)
    np.testing.assert_allclose(found.model[2].bias.detach().numpy(), bias[rows], **EXACT)


class Joined(nn.Module):
    """Two branches, side by side in front of one layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(5, 6), nn.Linear(5, 4), nn.Linear(10, 3)

    def forward(self, x):
        return self.head(torch.cat([F.silu(self.a(x)), F.silu(self.b(x))], 1))


def test_behind_a_concatenation_both_groups_count_at_once():
    state = made(Joined, (70, 5))
    _, found = refitted(state, {"a": 0.5, "b": 0.5})
    keep = [c for c in range(6) if c not in found.removed["a"]]
    keep += [6 + c for c in range(4) if c not in found.removed["b"]]
    weight, bias = by_numpy(state.teacher.head, entering(state, "head"), keep)
    np.testing.assert_allclose(found.model.head.weight.detach().numpy(), weight, **EXACT)
    np.testing.assert_allclose(found.model.head.bias.detach().numpy(), bias, **EXACT)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_transposed_convolution_is_refitted(dims):
    """Against lstsq with the layer's own outputs for unit weights as columns: it is linear in its weights."""
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    up = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[dims - 1]
    state = made(lambda: Two(conv(2, 4, 1), up(4, 2, 3, stride=2, padding=1, output_padding=1)), (24, 2, *[3] * dims))
    _, found = refitted(state, {"first": 0.5})
    keep = [c for c in range(4) if c not in found.removed["first"]]
    x, layer = entering(state, "second"), copy.deepcopy(found.model.second)
    with torch.no_grad():
        wanted = state.teacher.second(x).flatten().numpy()
        columns = []
        for tensor in (layer.weight, layer.bias):
            for place in np.ndindex(*tensor.shape):
                layer.weight.zero_()
                layer.bias.zero_()
                tensor[place] = 1.0
                columns.append(layer(x[:, keep]).flatten().numpy())
    solution = np.linalg.lstsq(np.stack(columns, 1), wanted, rcond=None)[0]
    new = found.model.second
    whole = torch.cat([new.weight.detach().flatten(), new.bias.detach()]).numpy()
    np.testing.assert_allclose(whole, solution, **EXACT)


class Series(nn.Module):
    def __init__(self, kind=nn.LSTM, batch_first=True):
        super().__init__()
        self.first, self.rnn = nn.Linear(5, 6), kind(6, 3, batch_first=batch_first, bidirectional=True)
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.rnn(F.silu(self.first(x)))[0])


@pytest.mark.parametrize(("kind", "batch_first"), [(nn.LSTM, True), (nn.GRU, False)])
def test_what_a_recurrent_layer_reads_is_refitted(kind, batch_first):
    state = made(lambda: Series(kind, batch_first), (40, 7, 5))
    _, found = refitted(state, {"first": 0.5})
    keep = [c for c in range(6) if c not in found.removed["first"]]
    x = entering(state, "rnn").reshape(-1, 6)
    for way in ("", "_reverse"):
        old, new = nn.Linear(6, 12 if kind is nn.LSTM else 9).double(), found.model.rnn
        old.weight = getattr(state.teacher.rnn, f"weight_ih_l0{way}")
        old.bias = getattr(state.teacher.rnn, f"bias_ih_l0{way}")
        weight, bias = by_numpy(old, x, keep)
        np.testing.assert_allclose(getattr(new, f"weight_ih_l0{way}").detach().numpy(), weight, **EXACT)
        np.testing.assert_allclose(getattr(new, f"bias_ih_l0{way}").detach().numpy(), bias, **EXACT)


def test_channels_that_are_combinations_of_the_others_cost_nothing():
    """Half of the first layer's outputs are sums of the other half; l1 takes these smaller ones out."""
    state = made(lambda: Two(nn.Linear(7, 6), nn.Linear(6, 4), nn.Identity()), (80, 7))
    with torch.no_grad():
        mix = torch.randn(3, 3, dtype=torch.float64) / 20
        state.teacher.first.weight[3:] = mix @ state.teacher.first.weight[:3]
        state.teacher.first.bias[3:] = mix @ state.teacher.first.bias[:3] + 1
    plain, found = refitted(state, {"first": 0.5})
    assert found.removed["first"] == (3, 4, 5)
    x = torch.randn(20, 7, dtype=torch.float64)
    with torch.no_grad():
        wanted = state.teacher(x)
        np.testing.assert_allclose(found.model(x).numpy(), wanted.numpy(), rtol=1e-6, atol=1e-6)
        assert (plain.model(x) - wanted).abs().max() > 0.01


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    ratio=st.sampled_from([0.2, 0.5, 0.8]),
    ridge=st.sampled_from([1e-9, 1e-3, 0.1, 1.0]),
    samples=st.integers(1, 30),
)
def test_no_layer_is_worse_than_plainly_pruned(seed, ratio, ridge, samples):
    """With any ridge and even fewer samples than weights: on the calibration inputs, the original's as input."""
    torch.manual_seed(seed)
    state = state_of(Two(nn.Linear(4, 6), nn.Linear(6, 3)), torch.randn(max(samples, 2), 4))
    plain, found = refitted(state, {"first": ratio}, ridge)
    keep = [c for c in range(6) if c not in found.removed["first"]]
    x = entering(state, "second")
    with torch.no_grad():
        wanted = state.teacher.second(x)
        errors = [float((each.model.second(x[:, keep]) - wanted).square().sum()) for each in (found, plain)]
    assert errors[0] <= errors[1] * (1 + 1e-9) + 1e-12


def test_the_ridge_holds_the_weights_near_to_those_of_plain_pruning():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 7, dtype=torch.float64, generator=generator)
    sums = (x.T @ x).unsqueeze(0)
    lost = torch.randn(1, 4, 3, dtype=torch.float64, generator=generator)
    kept, between, keep = sums[:, 3:, 3:], sums[:, 3:, :3], torch.arange(3, 7).unsqueeze(0)
    for ridge in (1e-3, 1.0):
        found = absorbed(F.pad(lost, (0, 4)), sums, keep, ridge)[0].numpy()
        share = ridge * np.diag(kept[0].numpy()).mean()
        wanted = np.linalg.solve(kept[0].numpy() + share * np.eye(4), between[0].numpy() @ lost[0].numpy().T).T
        np.testing.assert_allclose(found, wanted, rtol=1e-10)


def test_inputs_that_are_always_zero_change_nothing():
    state = made(lambda: Two(nn.Linear(4, 6), nn.Linear(6, 3, bias=False), lambda x: 0 * x), (10, 4))
    plain, found = refitted(state, {"first": 0.5}, 1e-3)
    assert torch.equal(found.model.second.weight, plain.model.second.weight)


def test_more_weights_than_inputs_in_single_precision_are_no_obstacle():
    torch.manual_seed(0)
    model, inputs = Two(nn.Linear(4, 40), nn.Linear(40, 3)).eval(), torch.randn(3, 4)
    state = Compression(model, model, trace(model, inputs), inputs)
    _, found = refitted(state, {"first": 0.5}, 1e-12)
    assert all(bool(p.isfinite().all()) for p in found.model.parameters())
    with torch.no_grad():  # 20 weights and a bias fit three inputs, up to single precision
        torch.testing.assert_close(found.model(inputs), model(inputs), rtol=1e-3, atol=1e-3)


def test_layers_that_read_no_pruned_channels_and_depthwise_ones_are_left():
    model, inputs = FAMILIES["mobilenet"]()
    state = Compression(model, model, trace(model, inputs), inputs)
    group = next(name for name in state.trace.plans if name.endswith("expand.0"))
    plan = state.trace.plans[group]
    plain, found = refitted(state, {group: 0.5}, 1e-3)
    readers = {cut.module for cut in plan.consumers}
    assert readers
    for path, module in plain.model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            same = torch.equal(parameter, found.model.get_submodule(path).get_parameter(name))
            assert same != (path in readers and name == "weight"), (path, name)


def test_nothing_is_done_without_pruning_or_calibration():
    state = made(*KINDS["conv"])
    _, found = refitted(state, {"first": 0.0})
    assert not found.stale
    assert all(torch.equal(a, b) for a, b in zip(found.model.parameters(), state.model.parameters(), strict=True))
    bare = Compression(state.model, state.model, state.trace, None)
    plain, found = refitted(bare, {"first": 0.5})
    assert torch.equal(found.model.second.weight, plain.model.second.weight)
    assert not state.memory


@pytest.mark.parametrize(
    ("operator", "setting", "value"),
    [("sparsify", "sparsity", 0.5), ("quantize", "weight_bits", 4), ("factorize", "rank_ratio", 0.5)],
)
def test_layers_that_are_compressed_otherwise_by_then_are_left(operator, setting, value):
    """Where the order prunes last; the other reader of the same channels is refitted."""

    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.one, self.two = nn.Linear(5, 8), nn.Linear(8, 6), nn.Linear(8, 6)

        def forward(self, x):
            x = F.silu(self.first(x))
            return self.one(x) + self.two(x)

    torch.manual_seed(0)
    model, inputs = Fork().eval(), torch.randn(50, 5)
    state = Compression(model, model, trace(model, inputs), inputs)
    before = compress(state, Policy({Site(operator, "one", setting): value}), ORDER)
    pruned = compress(before, policy({"first": 0.5}), ORDER)
    kept = copy.deepcopy(pruned.model.state_dict())
    found = reconstruct(before, pruned, 1e-3).model.state_dict()
    assert all(torch.equal(found[key], kept[key]) for key in kept if not key.startswith("two"))
    assert not torch.equal(found["two.weight"], kept["two.weight"])


def test_a_trained_network_is_refitted_to_itself():
    """Pruned behind the repair: the weights that go are those that the repair left."""
    state = made(*KINDS["linear"])
    trained = copy.deepcopy(state.model)
    with torch.no_grad():
        trained.second.weight.mul_(-3)
    before = Compression(trained, state.teacher, state.trace, state.calibration)
    found = reconstruct(before, compress(before, policy({"first": 0.5}), ORDER), TINY)
    keep = [c for c in range(6) if c not in found.removed["first"]]
    weight, _ = by_numpy(trained.second, entering(state, "second"), keep)
    np.testing.assert_allclose(found.model.second.weight.detach().numpy(), weight, **EXACT)


def test_nan_inputs_are_told():
    torch.manual_seed(0)
    model = Two(nn.Linear(7, 6), nn.Linear(6, 4)).eval()
    inputs = torch.randn(8, 7)
    found = trace(model, inputs)
    inputs[3] = float("nan")
    state = Compression(model, model, found, inputs)
    pruned = compress(state, policy({"first": 0.5}), ORDER)
    with pytest.raises(CompressionError, match=r"reconstruct\(second\): the layer's inputs are NaN or infinite"):
        reconstruct(state, pruned, 1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_pruned_everywhere_and_refitted(family):
    model, inputs = FAMILIES[family]()
    state = Compression(model, model, trace(model, inputs), inputs)
    original = copy.deepcopy(model.state_dict())
    plain, found = refitted(state, dict.fromkeys(state.trace.plans, 0.4), 1e-3)
    with torch.no_grad():
        output = found.model(inputs)
    outputs = output.values() if isinstance(output, dict) else [output]
    assert all(bool(each.isfinite().all()) for each in outputs)
    before, after = plain.model.state_dict(), found.model.state_dict()
    assert [(k, v.shape) for k, v in before.items()] == [(k, v.shape) for k, v in after.items()]
    moved = {key.rpartition(".")[0] for key in before if not torch.equal(before[key], after[key])}
    readers = {cut.module for plan in state.trace.plans.values() for cut in plan.consumers}
    assert moved
    assert moved <= readers
    assert all(torch.equal(original[key], value) for key, value in model.state_dict().items())


def test_the_same_policy_gives_the_same_network_whatever_came_before(monkeypatch):
    model, inputs = FAMILIES["resnet_b"]()
    found = trace(model, inputs)
    generator = torch.get_rng_state()
    first, second = list(found.plans)[:2]

    def weights(memory, *trials):
        state = Compression(model, model, found, inputs, memory=memory)
        for ratios in trials:
            after = reconstruct(state, compress(state, policy(ratios), ORDER), 1e-3)
        return after.model.state_dict()

    wanted = weights({}, {first: 0.5, second: 0.25})
    used = {}
    for others in ([{first: 0.3}], [{second: 0.5}, {first: 0.5, second: 0.25}]):
        again = weights(used, *others, {first: 0.5, second: 0.25})
        assert all(torch.equal(wanted[key], again[key]) for key in wanted)
    assert any(key[0] == "moments" for key in used)
    monkeypatch.setattr(moments, "_KEPT", 0)  # no room: all are computed anew
    scarce = {}
    again = weights(scarce, {first: 0.5, second: 0.25})
    assert all(torch.equal(wanted[key], again[key]) for key in wanted)
    assert not any(key[0] == "moments" for key in scarce)
    assert torch.equal(torch.get_rng_state(), generator)


def test_one_pass_over_the_original_serves_all_groups(monkeypatch):
    model, inputs = FAMILIES["resnet_b"]()
    passes = []
    monkeypatch.setattr(moments, "observe", lambda *args: passes.append(1) or real(*args))
    state = Compression(model, model, trace(model, inputs), inputs)
    for name in state.trace.plans:
        reconstruct(state, compress(state, policy({name: 0.5}), ORDER), 1e-3)
    assert len(passes) == 1


real = moments.observe


def test_a_layer_with_too_many_inputs_is_left(monkeypatch):
    state = made(*KINDS["linear"])
    monkeypatch.setattr(moments, "_LARGEST", 8 * 49 - 1)
    plain, found = refitted(state, {"first": 0.5})
    assert torch.equal(found.model.second.weight, plain.model.second.weight)
    monkeypatch.setattr(moments, "_LARGEST", 8 * 49)
    assert not torch.equal(refitted(state, {"first": 0.5})[1].model.second.weight, plain.model.second.weight)


class Wide(nn.Module):
    """The forward has its widths written into it, so its layers keep them outside (groups/ports.py)."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 6), nn.Linear(6, 4)
        self.scale = nn.Parameter(torch.linspace(0.5, 2, 6), requires_grad=False)

    def forward(self, x):
        return self.second((F.silu(self.first(x)).view(-1, 2, 3) * self.scale.view(2, 3)).flatten(1))


def test_behind_a_port_the_columns_are_the_right_ones():
    state = made(Wide, (60, 5))
    plan = state.trace.plans["first"]
    assert {cut.full for cut in plan.cuts} == {"outside"}
    _, found = refitted(state, {"first": 0.5})
    keep = [c for c in range(6) if c not in found.removed["first"]]
    weight, bias = by_numpy(state.teacher.second, entering(state, "second"), keep)
    np.testing.assert_allclose(found.model.second.weight.detach().numpy(), weight, **EXACT)
    np.testing.assert_allclose(found.model.second.bias.detach().numpy(), bias, **EXACT)
