"""The sequential refit against numpy's least squares done by hand, one layer after the other."""

import copy

import numpy as np
import pytest
import torch
from families import FAMILIES
from matrix import outputs
from torch import Tensor, nn
from torch.nn import functional as F

from automc.core.policy import Policy, Site
from automc.errors import CompressionError
from automc.operators import ORDER, sequential, targets
from automc.operators.base import Compression, compress
from automc.operators.canonical import canonical
from automc.operators.layers import trace
from automc.operators.positions import drawn, filters, given, read, set_filters
from automc.operators.recalibrate import recalibrate
from automc.operators.sequential import reconstruct_sequentially

SMALL = 1e-9  # a ridge that changes nothing in the digits compared
CLOSE = {"rtol": 2e-3, "atol": 2e-3}  # squares of condition numbers of about 100, summed in single precision


def state_of(model: nn.Module, inputs: Tensor) -> Compression:
    model = canonical(model.eval())
    return Compression(model, model, trace(model, inputs), inputs)


def pruned(state: Compression, groups: list[str], ratio: float = 0.5) -> Compression:
    return compress(state, Policy({Site("prune", name, "prune_ratio"): ratio for name in groups}), ORDER)


def solved(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias of the best linear layer from x to y."""
    whole = np.linalg.lstsq(np.c_[x, np.ones(len(x))], y, rcond=None)[0]
    return whole[:-1].T, whole[-1]


def kept(state: Compression, group: str) -> list[int]:
    return [c for c in range(state.trace.plans[group].channels) if c not in state.removed[group]]


def as_numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def test_each_linear_layer_is_fitted_on_what_the_fitted_one_before_it_gives():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 3))
    inputs = torch.randn(300, 6)
    state = pruned(state_of(model, inputs), ["0"], 0.125)
    keep = kept(state, "0")
    with torch.no_grad():
        second, third = model[:3](inputs), model(inputs)
        x = torch.tanh(model[0](inputs))[:, keep]
    after = reconstruct_sequentially(state, SMALL)
    weight, bias = solved(as_numpy(x), as_numpy(second))
    np.testing.assert_allclose(as_numpy(after.model[2].weight), weight, **CLOSE)
    np.testing.assert_allclose(as_numpy(after.model[2].bias), bias, **CLOSE)
    x = np.tanh(as_numpy(x) @ weight.T + bias)
    weight, bias = solved(x, as_numpy(third))
    np.testing.assert_allclose(as_numpy(after.model[4].weight), weight, **CLOSE)
    np.testing.assert_allclose(as_numpy(after.model[4].bias), bias, **CLOSE)
    assert torch.equal(after.model[0].weight, model[0].weight[keep])  # before the first change


class Residual(nn.Module):
    """Two residual branches; the first is the one that is pruned."""

    def __init__(self, how: str, norm: bool = False) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(*size) for size in ((5, 8), (8, 5), (5, 6), (6, 5)))
        self.how, self.norm = how, nn.BatchNorm1d(5) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(torch.tanh(self.a(x)))
        x = x + y
        y = self.norm(self.d(torch.tanh(self.c(x))))
        if self.how == "in place":
            y += x
            return y
        return y + x if self.how == "branch first" else x + y


@pytest.mark.parametrize("how", ["in place", "branch first", "shortcut first"])
def test_the_layer_before_a_sum_makes_up_for_what_the_shortcut_lost(how):
    torch.manual_seed(1)
    model, inputs = Residual(how), torch.randn(400, 5)
    state = pruned(state_of(model, inputs), ["a"])
    keep = kept(state, "a")
    with torch.no_grad():
        hidden = torch.tanh(model.a(inputs))
        first = inputs + model.b(hidden)
        inner = model.c(first)
        whole = model(inputs)
    x, first, inner, whole = (as_numpy(each) for each in (hidden[:, keep], first, inner, whole))
    weight, bias = solved(x, first - as_numpy(inputs))  # the shortcut is whole here
    ours = as_numpy(inputs) + x @ weight.T + bias
    weight_c, bias_c = solved(ours, inner)
    x = np.tanh(ours @ weight_c.T + bias_c)
    weight_d, bias_d = solved(x, whole - ours)
    after = reconstruct_sequentially(state, SMALL)
    np.testing.assert_allclose(as_numpy(after.model.b.weight), weight, **CLOSE)
    np.testing.assert_allclose(as_numpy(after.model.d.weight), weight_d, **CLOSE)
    np.testing.assert_allclose(as_numpy(after.model.d.bias), bias_d, **CLOSE)
    np.testing.assert_allclose(as_numpy(after.model(inputs)), ours + x @ weight_d.T + bias_d, **CLOSE)


def test_behind_a_batch_norm_its_slope_is_undone_and_its_shift_is_the_mean_of_what_was_missing():
    torch.manual_seed(2)
    model, inputs = Residual("in place", norm=True), torch.randn(400, 5)
    with torch.no_grad():
        model.norm.weight.copy_(torch.tensor([0.5, -1.5, 2.0, 1.0, 0.7]))
        model.norm.bias.normal_()
    recalibrate(model, inputs, 400)
    state = pruned(state_of(model, inputs), ["a"])
    keep = kept(state, "a")
    with torch.no_grad():
        hidden = torch.tanh(model.a(inputs))
        first = inputs + model.b(hidden)
        inner, whole = model.c(first), model(inputs)
    x, first, inner, whole = (as_numpy(each) for each in (hidden[:, keep], first, inner, whole))
    weight, bias = solved(x, first - as_numpy(inputs))
    ours = as_numpy(inputs) + x @ weight.T + bias
    weight_c, bias_c = solved(ours, inner)
    missing = whole - ours
    slope = as_numpy(model.norm.weight) / np.sqrt(as_numpy(model.norm.running_var) + model.norm.eps)
    weight_d, _ = solved(np.tanh(ours @ weight_c.T + bias_c), missing / slope)
    after = reconstruct_sequentially(state, SMALL)
    np.testing.assert_allclose(as_numpy(after.model.d.weight), weight_d, **CLOSE)
    np.testing.assert_allclose(as_numpy(after.model.norm.bias), missing.mean(0), **CLOSE)
    assert torch.equal(after.model.norm.weight, model.norm.weight)
    assert after.stale
    recalibrate(after.model, inputs, 400)
    np.testing.assert_allclose(as_numpy(after.model(inputs)).mean(0), whole.mean(0), **CLOSE)


LAYERS = {
    "linear": (nn.Linear(6, 4), (3, 5, 6)),
    "strided": (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)), (3, 4, 9, 8)),
    "same, reflected": (nn.Conv1d(4, 6, 5, padding="same", padding_mode="reflect"), (3, 4, 11)),
    "grouped": (nn.Conv2d(6, 4, 3, groups=2, bias=False), (3, 6, 6, 5)),
    "depthwise": (nn.Conv2d(6, 12, 3, groups=6, padding=1), (3, 6, 6, 5)),
    "cube": (nn.Conv3d(2, 3, 2), (3, 2, 4, 3, 5)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), (3, 4, 5, 4)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_gives_its_filters_times_what_it_reads(kind, monkeypatch):
    from automc.operators import positions

    monkeypatch.setattr(positions, "_CHUNK", 300)  # several parts
    layer, shape = LAYERS[kind]
    x = torch.randn(shape)
    with torch.no_grad():
        output = layer(x)
    rows = drawn(layer, output)[::2]
    parts = [(part, numbers @ filters(layer).mT) for part, numbers in read(layer, x, rows)]
    assert len(parts) > 1 or kind == "linear"
    products = torch.cat([product for _, product in parts], dim=1)  # (groups, rows, outputs)
    ours = products.movedim(0, 1).flatten(1) + (0 if layer.bias is None else layer.bias)
    torch.testing.assert_close(ours, given(layer, output, rows), rtol=1e-5, atol=1e-5)
    again = copy.deepcopy(layer)
    nn.init.zeros_(again.weight)
    set_filters(again, filters(layer))
    assert torch.equal(again.weight, layer.weight)


def test_at_most_so_many_places_are_drawn_and_always_the_same():
    layer = nn.Conv2d(1, 2, 1)
    output = torch.randn(4, 2, 100, 100)
    rows = drawn(layer, output)
    assert len(rows) == 16384
    assert torch.equal(rows, rows.unique())
    assert torch.equal(rows, drawn(layer, output))
    assert torch.equal(drawn(layer, output[:1]), torch.arange(10000))


def test_the_ridge_holds_the_weights_where_they_are():
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), torch.randn(50, 6)
    state = pruned(state_of(model, inputs), ["0"])
    before = state.model[2].weight.detach().clone()
    x = as_numpy(torch.tanh(state.model[0](inputs)))
    rest = as_numpy(model(inputs)) - as_numpy(state.model(inputs))
    x, rest = x - x.mean(0), rest - rest.mean(0)
    share = 0.3 * np.trace(x.T @ x) / x.shape[1]
    change = np.linalg.solve(x.T @ x + share * np.eye(x.shape[1]), x.T @ rest).T
    after = reconstruct_sequentially(state, 0.3)
    # Single precision.
    np.testing.assert_allclose(as_numpy(after.model[2].weight) - as_numpy(before), change, rtol=1e-4, atol=1e-5)


def test_a_network_that_nobody_changed_stays_bit_for_bit():
    model, inputs = FAMILIES["resnet_b"]()
    state = state_of(model, inputs)
    same = compress(state, Policy({}), ORDER)
    assert reconstruct_sequentially(same, 1e-2) is same


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_comes_closer_to_the_original_and_keeps_no_hook(family):
    model, _ = FAMILIES[family]()
    torch.manual_seed(3)
    shape = (160, 3, 8, 8)
    inputs = torch.randint(11, (160, 6)) if family in ("bert", "lstm") else torch.randn(shape)
    state = state_of(model, inputs)
    plain = pruned(state, [group.name for group in state.trace.table.groups], 0.25)
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in plain.model.modules()]
    teacher = copy.deepcopy(state.teacher.state_dict())
    fitted = reconstruct_sequentially(pruned(state, list(plain.removed), 0.25), 1e-2)
    again = reconstruct_sequentially(pruned(state, list(plain.removed), 0.25), 1e-2)
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in fitted.model.modules()]
    assert all(torch.equal(teacher[key], value) for key, value in state.teacher.state_dict().items())
    assert all(not module.training for module in fitted.model.modules())
    for key, value in fitted.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[key]), key
    for each in (plain, fitted):
        recalibrate(each.model, inputs)
    wanted = outputs(state.teacher, inputs)
    found = [outputs(each.model, inputs) for each in (plain, fitted)]
    errors = [sum(float(F.mse_loss(a, b)) for a, b in zip(ours, wanted, strict=True)) for ours in found]
    assert errors[1] < 0.8 * errors[0]


def test_layers_that_are_live_or_shared_and_those_without_room_are_left(monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 3))
    inputs = torch.randn(60, 6)
    policy = Policy({Site("prune", "0", "prune_ratio"): 0.5, Site("quantize", "2", "weight_bits"): 4})
    state = compress(state_of(model, inputs), policy, ORDER)
    before = copy.deepcopy(state.model.state_dict())
    after = reconstruct_sequentially(state, 1e-2)
    assert torch.equal(after.model[2].weight, before["2.weight"])
    assert not torch.equal(after.model[4].weight, before["4.weight"])
    monkeypatch.setattr(targets, "KEPT", 60 * 8 + 60 * 8 * 4)  # room for the first layer alone
    state = compress(state_of(model, inputs), policy, ORDER)
    after = reconstruct_sequentially(state, 1e-2)
    assert torch.equal(after.model[4].weight, before["4.weight"])


def test_a_factorized_layer_has_its_last_part_fitted():
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.Linear(9, 9), nn.Tanh(), nn.Linear(9, 4)), torch.randn(300, 9)
    state = compress(state_of(model, inputs), Policy({Site("factorize", "0", "rank_ratio"): 0.5}), ORDER)
    inner = as_numpy(state.model[0][0](inputs))
    after = reconstruct_sequentially(state, SMALL)
    weight, bias = solved(inner, as_numpy(model[0](inputs)))
    np.testing.assert_allclose(as_numpy(after.model[0][-1].weight), weight, **CLOSE)
    np.testing.assert_allclose(as_numpy(after.model[0][-1].bias), bias, **CLOSE)


def test_behind_a_dropped_block_the_next_layers_take_over():
    model, _ = FAMILIES["resnet_a"]()
    inputs = torch.randn(200, 3, 8, 8)
    state = state_of(model, inputs)
    policy = Policy({Site("drop", "layer2.1", "dropped"): True})
    plain, fitted = compress(state, policy, ORDER), reconstruct_sequentially(compress(state, policy, ORDER), 1e-2)
    assert torch.equal(fitted.model.layer2[0].conv2.weight, model.layer2[0].conv2.weight)
    assert not torch.equal(fitted.model.layer3[0].conv1.weight, model.layer3[0].conv1.weight)
    for each in (plain, fitted):
        recalibrate(each.model, inputs, original=model)
    (wanted,) = outputs(model, inputs)
    errors = [float(F.mse_loss(outputs(each.model, inputs)[0], wanted)) for each in (plain, fitted)]
    assert errors[1] < 0.8 * errors[0]


def test_numbers_that_are_none_are_said():
    model, inputs = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(20, 6)
    state = pruned(state_of(model, inputs), ["0"])
    with torch.no_grad():
        state.model[0].bias.fill_(torch.inf)
    with pytest.raises(CompressionError, match="the layer's inputs are NaN or infinite"):
        reconstruct_sequentially(state, 1e-2)
    assert all(not module._forward_pre_hooks for module in state.model.modules())
    assert sequential.changed(state.model[0], model[0])
