"""The operator: chains that compute what their dense kernel would, and what is realized where a form does not fit."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nets import make
from test_operators_factorize_forms import dense
from torch import nn
from torch.nn import functional as F

from automc.core.policy import Policy, Site
from automc.errors import CompressionError
from automc.measure.cost import costs
from automc.operators.base import Compression, compress
from automc.operators.factorized import Factorized, parts
from automc.operators.layers import trace
from automc.operators.live_kinds import live
from automc.operators.low_rank.decompositions import Part

METHODS = ["auto", "svd", "spatial", "tucker2", "cp"]
RULES = ["ratio", "energy", "vbmf"]


def policy(**chosen):
    """Double underscores stand for dots."""
    return Policy(
        {Site("factorize", layer.replace("__", "."), k): v for layer, own in chosen.items() for k, v in own.items()}
    )


def state_of(model, inputs, **more):
    return Compression(model, model, trace(model, inputs), inputs, **more)


def alone(layer, inputs, **chosen):
    """The layer's place in a network of its own, after factorize, and what was realized."""
    torch.manual_seed(0)
    model = nn.Sequential(layer).eval()
    after = compress(state_of(model, inputs), policy(**{"0": chosen}), ("factorize",))
    return after.model[0], after.realized["0"], after


def kernel_of(chain):
    own = (Part(p.weight.detach(), (), getattr(p, "groups", 1)) for p in chain)
    return torch.from_numpy(dense(list(own)))


def randomized(layer):
    generator = torch.Generator().manual_seed(0)
    for parameter in layer.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return layer


LAYERS = [nn.Conv1d, nn.Conv2d, nn.Conv3d]
CALLS = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}


@st.composite
def convolutions(draw):
    axes = draw(st.sampled_from([1, 2, 2, 2, 3]))

    def each(low, high):
        return tuple(draw(st.lists(st.integers(low, high), min_size=axes, max_size=axes)))

    kernel, mode = each(1, 3), draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
    same = draw(st.booleans())
    stride, padding = ((1,) * axes, "same") if same else (each(1, 2), each(0, 2))
    sizes = draw(st.integers(3, 8)), draw(st.integers(3, 8))
    return LAYERS[axes - 1](*sizes, kernel, stride, padding, each(1, 2), 1, draw(st.booleans()), mode), axes


@pytest.mark.filterwarnings("ignore:Using padding='same' with even")  # torch says it of the whole layer too
@settings(max_examples=40, deadline=None)
@given(convolutions(), st.sampled_from(METHODS), st.sampled_from([0.1, 0.3, 0.6]))
def test_the_chain_computes_what_its_dense_kernel_would(drawn, method, ratio):
    layer, axes = drawn
    randomized(layer)
    x = torch.randn(2, layer.in_channels, *[7, 8, 6][:axes], dtype=torch.float64)
    made, facts, _ = alone(layer, x, rank_ratio=ratio, method=method)
    assert facts["params_after"] == sum(p.numel() for p in made.parameters()) <= facts["params_before"]
    if not isinstance(made, Factorized):
        assert facts["method"] == "none"
        assert facts["rank_ratio"] == 1
        return
    assert facts["params_after"] < facts["params_before"]
    whole = copy.deepcopy(layer)
    whole.weight.data = kernel_of(made)
    torch.testing.assert_close(made(x), whole(x), rtol=1e-9, atol=1e-9)
    assert made[-1].bias is None if layer.bias is None else torch.equal(made[-1].bias, layer.bias)
    assert all(part.bias is None for part in made[:-1])


def test_linear_layers_of_any_leading_axes():
    layer = randomized(nn.Linear(12, 9))
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    for method in METHODS:
        made, facts, _ = alone(copy.deepcopy(layer), x, rank_ratio=0.4, method=method)
        assert [type(part) for part in made] == [nn.Linear, nn.Linear]
        assert facts["method"] == "svd"
        assert (facts["rank"], facts["rank_ratio"]) == (3, 3 / 9)
        values = np.linalg.svd(layer.weight.detach().numpy(), compute_uv=False)
        error = (made[1].weight @ made[0].weight - layer.weight).square().sum().item()
        assert error == pytest.approx((values[3:] ** 2).sum(), rel=1e-10)
        torch.testing.assert_close(made(x), F.linear(x, made[1].weight @ made[0].weight, layer.bias))


@pytest.mark.parametrize(
    ("layer", "shape", "asked", "method"),
    [
        (nn.Conv2d(6, 8, 1), (6, 5, 5), "spatial", "svd"),
        (nn.Conv2d(6, 8, 1), (6, 5, 5), "cp", "svd"),
        (nn.Conv1d(6, 8, 3), (6, 9), "auto", "svd"),
        (nn.Conv1d(6, 8, 3), (6, 9), "tucker2", "tucker2"),
        (nn.Conv2d(6, 8, (3, 1)), (6, 5, 5), "spatial", "svd"),
        (nn.Conv2d(6, 8, (1, 3)), (6, 5, 5), "spatial", "spatial"),
        (nn.Conv2d(6, 8, 3), (6, 5, 5), "auto", "spatial"),
        (nn.Conv3d(4, 6, 2), (4, 3, 3, 3), "auto", "spatial"),
    ],
)
def test_a_form_that_does_not_fit_means_svd(layer, shape, asked, method):
    _, facts, _ = alone(layer, torch.randn(2, *shape), rank_ratio=0.2, method=asked)
    assert facts["method"] == method


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("aware", [False, True])
def test_every_combination_is_legal_never_larger_and_trains(method, rule, aware):
    model, inputs = make("resnet_b")
    state = state_of(model, inputs)
    names = [layer.name for layer in state.trace.table.layers[-7:]]
    chosen = {"rank_ratio": 0.3, "method": method, "rank_by": rule, "data_aware": aware}
    after = compress(state, policy(**{n.replace(".", "__"): chosen for n in names}), ("factorize",))
    for name in names:
        facts = after.realized[name]
        assert facts["params_after"] <= facts["params_before"]
        assert facts.get("rank", 1) >= 1
        assert facts.get("data_aware", False) in ({False, True} if facts["method"] in ("svd", "spatial") else {False})
    after.model.train()(inputs).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in after.model.parameters())
    assert sum(p.numel() for p in after.model.parameters()) < sum(p.numel() for p in model.parameters())


@given(st.floats(0.05, 0.95))
@settings(max_examples=20, deadline=None)
def test_energy_keeps_the_share_of_the_squares(share):
    layer = randomized(nn.Linear(40, 10))
    made, facts, _ = alone(layer, torch.randn(2, 40, dtype=torch.float64), rank_ratio=share, rank_by="energy")
    assume(isinstance(made, Factorized))
    sums = np.cumsum(np.linalg.svd(layer.weight.detach().numpy(), compute_uv=False) ** 2)
    assert facts["rank"] == np.searchsorted(sums / sums[-1], share) + 1


def test_vbmf_removes_the_noise_from_a_layer():
    layer = nn.Linear(120, 60)
    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(60, 5, generator=generator) @ torch.randn(5, 120, generator=generator)
    layer.weight.data = signal + 0.1 * torch.randn(60, 120, generator=generator)
    made, facts, _ = alone(layer, torch.randn(2, 120), rank_ratio=0.99, rank_by="vbmf")
    assert facts["rank"] == 5
    assert (made[1].weight @ made[0].weight - signal).norm() < 0.5 * (layer.weight - signal).norm()


def unfolded(conv, x):
    columns = F.unfold(x, conv.kernel_size, conv.dilation, conv.padding, conv.stride)
    return columns.transpose(1, 2).flatten(0, 1).detach().numpy()


def test_data_aware_outputs_are_the_best_that_the_rank_allows():
    conv = randomized(nn.Conv2d(4, 6, 3, stride=2, padding=1))
    x = torch.randn(8, 4, 9, 9, dtype=torch.float64).relu() @ torch.randn(9, 9, dtype=torch.float64)
    columns, errors = unfolded(conv, x), {}
    half = np.linalg.cholesky(columns.T @ columns)
    values = np.linalg.svd(conv.weight.detach().flatten(1).numpy() @ half, compute_uv=False)
    for aware in (False, True):
        made, facts, _ = alone(copy.deepcopy(conv), x, rank_ratio=0.5, method="svd", data_aware=aware)
        assert facts["data_aware"] == aware
        errors[aware] = (made(x) - conv(x)).square().sum().item()
    assert errors[True] == pytest.approx((values[3:] ** 2).sum(), rel=1e-8)
    assert errors[True] < errors[False]


def test_data_aware_spatial_keeps_the_answers_of_the_first_kernels():
    conv = randomized(nn.Conv2d(4, 6, 3, padding=1))
    x = torch.randn(6, 4, 8, 8, dtype=torch.float64).relu().cumsum(2)
    made, facts, _ = alone(copy.deepcopy(conv), x, rank_ratio=0.3, method="spatial", data_aware=True)
    tall = nn.Conv2d(4, 18, (3, 1), padding=(1, 0)).double()
    rows = conv.weight.detach().movedim(3, 1).reshape(18, 12).numpy()
    columns = unfolded(tall, x)
    half = np.linalg.cholesky(columns.T @ columns)
    values = np.linalg.svd(rows @ half, compute_uv=False)
    got = kernel_of(made).movedim(3, 1).reshape(18, 12).numpy()
    assert facts["rank"] == 3
    assert ((columns @ (got - rows).T) ** 2).sum() == pytest.approx((values[3:] ** 2).sum(), rel=1e-8)


def test_data_is_read_in_the_network_as_it_is_by_now():
    """After pruning, the layer sees fewer channels with recalibrated norms; what the original showed is not used."""
    model, inputs = make("conv_bn_relu")
    many = torch.randn(64, *inputs.shape[1:])
    memory = {}
    chosen = policy(**{"1__0": {"rank_ratio": 0.4, "method": "svd", "data_aware": True}})
    both = Policy({**chosen, Site("prune", "0.0", "prune_ratio"): 0.5})
    state = Compression(model, model, trace(model, inputs), many, memory=memory)
    fresh = compress(Compression(model, model, state.trace, many), both, ("prune", "factorize"))
    compress(state, chosen, ("factorize",))
    assert memory
    after = compress(state, both, ("prune", "factorize"))
    first, second = fresh.model.state_dict(), after.model.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("method", METHODS[1:])
def test_what_is_remembered_changes_nothing(method):
    model, inputs = make("resnet_a")
    state = state_of(model, inputs, memory={})
    names = [layer.name.replace(".", "__") for layer in state.trace.table.layers[:5]]
    chosen = policy(**{n: {"rank_ratio": 0.3, "method": method, "data_aware": True} for n in names})
    found = []
    for _ in range(2):
        after = compress(state, chosen, ("factorize",)).model
        found.append({key: value.clone() for key, value in after.state_dict().items()})
        for parameter in after.parameters():  # a repair must not move what is remembered
            parameter.data.add_(1.0)
    without = compress(state_of(model, inputs), chosen, ("factorize",)).model.state_dict()
    for key, value in without.items():
        assert torch.equal(found[0][key], value)
        assert torch.equal(found[1][key], value)


def test_no_fewer_parameters_means_no_change():
    made, facts, after = alone(nn.Linear(10, 10, bias=False), torch.randn(2, 10), rank_ratio=0.5)
    assert isinstance(made, nn.Linear)
    assert facts == {"method": "none", "rank_ratio": 1.0, "params_before": 100, "params_after": 100}
    assert not after.stale
    _, facts, after = alone(nn.Linear(10, 10, bias=False), torch.randn(2, 10), rank_ratio=0.4)
    assert (facts["params_after"], after.stale) == (80, True)


def test_one_leaves_the_layer_as_it_is_whatever_the_rule():
    for rule in RULES:
        layer = nn.Linear(30, 30)
        made, facts, _ = alone(layer, torch.randn(2, 30), rank_ratio=1.0, rank_by=rule, data_aware=True)
        assert torch.equal(made.weight, layer.weight)
        assert facts["method"] == "none"


def test_groups_and_shared_weights_stay():
    _, facts, _ = alone(nn.Conv2d(8, 8, 3, groups=2), torch.randn(2, 8, 5, 5), rank_ratio=0.1)
    assert facts["method"] == "none"

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.head = nn.Embedding(40, 8), nn.Linear(8, 40, bias=False)
            self.head.weight = self.tokens.weight

        def forward(self, x):
            return self.head(self.tokens(x).mean(1))

    model, inputs = Tied(), torch.randint(40, (2, 3))
    after = compress(state_of(model, inputs), policy(head={"rank_ratio": 0.1}), ("factorize",))
    assert after.model.head.weight is after.model.tokens.weight
    assert after.realized["head"]["method"] == "none"


def test_a_module_in_two_places_is_one_chain_with_the_hooks_of_the_layer():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(6, 6, 3, padding=1)
            self.again = nn.ModuleList([self.first])

        def forward(self, x):
            return self.again[0](self.first(x))

    model, x, calls = Twice().eval(), torch.randn(2, 6, 5, 5), []
    model.first.register_forward_hook(lambda module, args, output: calls.append(tuple(output.shape)))
    after = compress(state_of(model, x), policy(first={"rank_ratio": 0.2}), ("factorize",)).model
    assert isinstance(after.first, Factorized)
    assert after.again[0] is after.first
    calls.clear()
    after(x)
    assert calls == [(2, 6, 5, 5)] * 2


def test_type_and_frozen_weights_are_kept_and_nothing_random_is_drawn():
    layer = nn.Conv2d(8, 8, 3).double()
    layer.weight.requires_grad_(False)
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    model = nn.Sequential(layer).eval()
    state = state_of(model, x)
    before = torch.get_rng_state()
    made = compress(state, policy(**{"0": {"rank_ratio": 0.2, "method": "cp"}}), ("factorize",)).model[0]
    assert torch.equal(before, torch.get_rng_state())
    assert {p.dtype for p in made.parameters()} == {torch.float64}
    assert [p.requires_grad for p in made.parameters()] == [False, False, False, False, True]
    assert not any(module.training for module in made.modules())


def test_what_it_costs_is_counted_part_by_part():
    model = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1, bias=False)).eval()
    x = torch.randn(2, 8, 6, 6)
    after = compress(state_of(model, x), policy(**{"0": {"rank_ratio": 0.25, "method": "svd"}}), ("factorize",))
    found = costs(after.model, x)
    assert found["params"] == 3 * 8 * 9 + 3 * 12 == after.realized["0"]["params_after"]
    assert found["macs"] == 36 * found["params"]
    assert list(parts(after.model, "0")) == ["0.0", "0.1"]


def test_compressed_layers_must_come_later():
    model, x = nn.Sequential(nn.Linear(9, 9)), torch.randn(2, 9)
    state = state_of(model, x)
    live(state.model[0])
    with pytest.raises(CompressionError, match=r"factorize\(0\): .* put factorize before sparsify and quantize"):
        compress(state, policy(**{"0": {"rank_ratio": 0.2}}), ("factorize",))
    compress(state, policy(**{"0": {"rank_ratio": 1.0}}), ("factorize",))


def test_data_aware_needs_data_and_weights_need_numbers():
    model, x = nn.Sequential(nn.Linear(9, 9)), torch.randn(2, 9)
    without = Compression(model, model, trace(model, x), None)
    chosen = policy(**{"0": {"rank_ratio": 0.2, "data_aware": True}})
    with pytest.raises(CompressionError, match=r"factorize\(0\)\.data_aware needs calibration inputs; there are none"):
        compress(without, chosen, ("factorize",))
    model[0].weight.data[0, 0] = float("nan")
    with pytest.raises(CompressionError, match=r"factorize\(0\): the layer's weights are NaN or infinite"):
        compress(state_of(model, x), chosen, ("factorize",))
