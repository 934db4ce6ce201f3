"""Corrected layers: means and spreads of what they give, against the original's, by numpy."""

import copy

import numpy as np
import pytest
import torch
from families import FAMILIES
from nets import make
from torch import Tensor, nn

from automc.core.policy import Policy, Site
from automc.operators import ORDER
from automc.operators import correct as module
from automc.operators.base import Compression, compress
from automc.operators.canonical import canonical
from automc.operators.correct import correct
from automc.operators.layers import trace
from automc.operators.recalibrate import recalibrate

CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # sums in single precision


def state_of(model: nn.Module, inputs: Tensor) -> Compression:
    model = canonical(model.eval())
    return Compression(model, model, trace(model, inputs), inputs)


def everywhere(state: Compression, operator: str, **settings: float) -> Compression:
    table = state.trace.table
    names = [group.name for group in table.groups] if operator == "prune" else [layer.name for layer in table.layers]
    return compress(
        state, Policy({Site(operator, name, key): v for name in names for key, v in settings.items()}), ORDER
    )


def moments(model: nn.Module, path: str, inputs: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation by channel of what a layer gives."""
    seen: list[Tensor] = []
    handle = model.get_submodule(path).register_forward_hook(lambda m, args, output: seen.append(output.clone()))
    with torch.no_grad():
        model(inputs)
    handle.remove()
    last = isinstance(model.get_submodule(path), nn.Linear)
    rows = seen[0] if last else seen[0].movedim(1, -1)
    rows = rows.reshape(-1, rows.shape[-1]).double().numpy()
    return rows.mean(0), rows.std(0)


@pytest.mark.parametrize("name", ["plain", "volume", "mlp"])
def test_a_pruned_network_gives_the_means_and_spreads_of_the_original(name, monkeypatch):
    monkeypatch.setattr(module, "_LEAST", 0.0)
    monkeypatch.setattr(module, "_MOST", 1e9)
    model, inputs = make(name)
    inputs = torch.randn(50, *inputs.shape[1:])
    state = everywhere(state_of(model, inputs), "prune", prune_ratio=0.5)
    after = correct(state)
    paths = [layer.name for layer in state.trace.table.layers]
    for path in paths:
        wanted = moments(model, path, inputs)
        group = next((g for g in state.removed if path in {c.module for c in state.trace.plans[g].producers}), None)
        if group:
            keep = [c for c in range(state.trace.plans[group].channels) if c not in state.removed[group]]
            wanted = tuple(each[keep] for each in wanted)
        for ours, theirs in zip(moments(after.model, path, inputs), wanted, strict=True):
            np.testing.assert_allclose(ours, theirs, **CLOSE)
    assert all(not each._forward_hooks for each in after.model.modules())


def test_a_quantized_layer_has_its_means_and_keeps_its_codes():
    model, inputs = make("plain")
    inputs = torch.randn(50, *inputs.shape[1:])
    state = everywhere(state_of(model, inputs), "quantize", weight_bits=2)
    before = copy.deepcopy(state.model)
    after = correct(state)
    for path in ("a", "b", "head"):
        mean, _ = moments(model, path, inputs)
        np.testing.assert_allclose(moments(after.model, path, inputs)[0], mean, **CLOSE)
        assert not np.allclose(moments(before, path, inputs)[0], mean, **CLOSE)
        assert torch.equal(after.model.get_submodule(path).weight, before.get_submodule(path).weight)
        assert not torch.equal(after.model.get_submodule(path).bias, before.get_submodule(path).bias)


def test_scales_are_bounded_and_dead_channels_stay():
    model = nn.Sequential(nn.Linear(4, 4))
    inputs = torch.randn(64, 4)
    state = state_of(model, inputs)
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed[0].weight *= torch.tensor([[0.1], [10.0], [0.0], [0.8]])
    before = changed[0].weight.detach().clone()
    after = correct(Compression(changed, model, state.trace, inputs))
    scale = torch.tensor([2.0, 0.5, 1.0, 1.25])
    torch.testing.assert_close(after.model[0].weight, before * scale[:, None])
    np.testing.assert_allclose(moments(changed, "0", inputs)[0], moments(model, "0", inputs)[0], **CLOSE)


def test_without_a_bias_the_spread_alone():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False))
    inputs = torch.randn(20, 3, 6, 6) + 1
    state = everywhere(state_of(model, inputs), "sparsify", sparsity=0.5)
    mean, std = moments(state.model, "0", inputs)
    after = correct(state, spreads=False)  # a masked layer all the same
    wanted = moments(model, "0", inputs)[1]
    ours = moments(after.model, "0", inputs)
    np.testing.assert_allclose(ours[1], wanted, **CLOSE)
    np.testing.assert_allclose(ours[0], mean * wanted / std, **CLOSE)
    assert after.model[0].bias is None


def test_after_a_fit_plain_layers_keep_their_spread():
    model, inputs = make("plain")
    inputs = torch.randn(50, *inputs.shape[1:])
    state = everywhere(state_of(model, inputs), "prune", prune_ratio=0.5)
    weights = {path: state.model.get_submodule(path).weight.detach().clone() for path in ("a", "b", "head")}
    after = correct(state, spreads=False)
    assert all(torch.equal(weight, after.model.get_submodule(path).weight) for path, weight in weights.items())
    np.testing.assert_allclose(moments(after.model, "head", inputs)[0], moments(model, "head", inputs)[0], **CLOSE)


@pytest.mark.parametrize(
    ("operator", "settings"),
    [("prune", {"prune_ratio": 0.5}), ("quantize", {"weight_bits": 8}), ("sparsify", {"sparsity": 0.5})],
)
def test_nothing_runs_where_norms_follow_or_bits_are_many(operator, settings):
    model, inputs = make("resnet_b")
    state = state_of(model, inputs)
    names = [g.name for g in state.trace.table.groups if g.name.endswith("conv1")]
    names = names if operator == "prune" else [layer.name for layer in state.trace.table.layers]
    names = [name for name in names if name != "linear" or operator == "quantize"]
    policy = Policy({Site(operator, name, key): v for name in names for key, v in settings.items()})
    state = compress(state, policy, ORDER)
    if operator == "prune":
        state.model.layer1[0].conv1.weight.data.mul_(2)  # changed, with a norm behind it
    state.model.register_forward_pre_hook(lambda *_: pytest.fail("ran"))
    assert correct(state) is state


def test_stale_norms_count_as_recalibrated():
    model, _ = make("conv_bn_relu")
    inputs = torch.randn(64, 3, 8, 8)
    state = everywhere(state_of(model, inputs), "quantize", weight_bits=2)
    assert state.stale
    buffers = {name: tensor.clone() for name, tensor in state.model.named_buffers() if "running" in name}
    after = correct(state)
    assert all(torch.equal(tensor, dict(after.model.named_buffers())[name]) for name, tensor in buffers.items())
    recalibrate(after.model, inputs, len(inputs))
    # Running variances are unbiased: 64 * 16 places, a relative 1e-3 of the spread.
    np.testing.assert_allclose(moments(after.model, "4", inputs)[0], moments(model, "4", inputs)[0], atol=2e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_runs_and_always_the_same(family):
    model, inputs = FAMILIES[family]()
    state = state_of(model, inputs)
    once, again = (correct(everywhere(state, "prune", prune_ratio=0.25)) for _ in range(2))
    for key, value in once.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[key]), key
        assert bool(value.isfinite().all())


def test_what_is_the_original_stays_bit_for_bit():
    model, inputs = make("plain")
    state = compress(state_of(model, inputs), Policy({}), ORDER)
    before = copy.deepcopy(state.model.state_dict())
    assert correct(state) is state
    assert all(torch.equal(before[key], value) for key, value in state.model.state_dict().items())
