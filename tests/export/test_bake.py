"""Baking against the network it was made from: the same outputs, fewer batch norms, the same codes."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from export_nets import Rounding, compressed, digits, fitted, normalise, quantized, shake_norms
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from automc.errors import ModelError
from automc.export.bake import bake, fold

torch.set_num_threads(1)


def norms(model: nn.Module) -> list[str]:
    return [name for name, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def outputs(model: nn.Module, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return copy.deepcopy(model).eval()(inputs)


def close(baked: nn.Module, model: nn.Module, inputs: Tensor) -> bool:
    """1e-5 of the largest output: float32 sums of up to a few hundred terms in another order."""
    wanted = outputs(model, inputs)
    return bool((baked(inputs) - wanted).abs().max() <= 1e-5 * wanted.abs().max())


NETWORKS = {
    "plain": lambda: nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.Flatten()),
    "bias": lambda: nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten()),
    "depthwise": lambda: nn.Sequential(nn.Conv2d(3, 9, 3, groups=3), nn.BatchNorm2d(9), nn.Flatten()),
    "no affine": lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False), nn.Flatten()),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, 7, bias=False), nn.BatchNorm1d(7), nn.Linear(7, 2)),
    "conv1d": lambda: nn.Sequential(nn.Flatten(2), nn.Conv1d(3, 5, 3), nn.BatchNorm1d(5), nn.Flatten()),
}


@pytest.mark.parametrize("kind", NETWORKS)
@given(seed=st.integers(0, 10**6))
@settings(deadline=None, max_examples=15)
def test_batch_norms_vanish_and_outputs_stay(kind: str, seed: int) -> None:
    model = shake_norms(NETWORKS[kind](), seed)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    baked = bake(model, torch.zeros(1, 3, 4, 4))
    assert norms(baked) == []
    assert close(baked, model, torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(seed)))
    assert model.training  # the network given is as it was
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert baked.training is False


@pytest.mark.parametrize("bits", range(1, 9))
@given(seed=st.integers(0, 10**6))
@settings(deadline=None, max_examples=10)
def test_codes_are_the_layers_own_up_to_the_sign_of_gamma(bits: int, seed: int) -> None:
    model = shake_norms(nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Flatten()), seed)
    quantized(model[0], bits)
    values, scale = model[0].weight_codes()
    gamma = model[1].weight.detach()
    baked = fold(model, torch.zeros(1, 3, 4, 4))
    found = baked.codes["0"]
    assert found.bits == bits
    assert torch.equal(found.values, values * torch.where(gamma < 0, -1, 1).view(-1, 1, 1, 1).to(torch.int8))
    wanted = scale * gamma.abs() / torch.sqrt(model[1].running_var + model[1].eps)
    assert torch.allclose(found.scale, wanted, rtol=1e-6)
    assert torch.equal(baked.model[0].weight, found.values.float() * found.scale.view(-1, 1, 1, 1))
    assert close(baked.model, model, torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(seed)))


def test_a_whole_network_with_rounded_inputs_keeps_its_answers() -> None:
    model = compressed(fitted(16))
    raw, _ = digits()
    inputs = normalise(raw[1200:])
    baked = fold(model, inputs[:1])
    assert norms(baked.model) == []
    assert sorted(baked.codes) == ["conv1", "conv2", "conv3", "linear"]
    assert isinstance(baked.model.conv2.input_quantizer, Rounding)
    assert (baked.model(inputs).argmax(1) == outputs(model, inputs).argmax(1)).float().mean() >= 0.995


def test_inputs_rounded_and_weights_left_alone() -> None:
    model = shake_norms(nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Flatten()), 3)
    quantized(model[0], 32, Rounding(4, -2.0, 2.0), 4)
    baked = fold(model, torch.zeros(1, 3, 4, 4))
    assert baked.codes == {}
    assert norms(baked.model) == []
    assert close(baked.model, model, torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0)))


class Read(nn.Module):
    """The convolution's output is read before the batch norm as well."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.bn = nn.BatchNorm2d(3)
        self.other = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.way == "sum":
            out = self.bn(y) + y
        elif self.way == "twice":
            out = self.bn(self.conv(self.bn(y)))
        elif self.way == "activation":
            out = self.bn(F.relu(y))
        elif self.way == "in place":
            out = self.bn(F.relu_(y))
        else:
            out = self.bn(y + x)
        return self.other(out).flatten(1)


@pytest.mark.parametrize("way", ["sum", "twice", "activation", "in place", "input added"])
def test_only_a_batch_norm_alone_behind_its_layer_is_folded(way: str) -> None:
    model = shake_norms(Read(way), 5)
    baked = bake(model, torch.zeros(2, 3, 4, 4))
    assert norms(baked) == ["bn"]  # the one of "other" is gone
    assert close(baked, model, torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0)))


def test_batch_norms_without_statistics_and_parametrized_layers_stay() -> None:
    free = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten())
    assert norms(bake(free, torch.randn(2, 3, 4, 4))) == ["1"]
    normed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 1)), nn.BatchNorm2d(4), nn.Flatten())
    assert norms(bake(normed, torch.randn(2, 3, 4, 4))) == ["1"]
    transposed = nn.Sequential(nn.ConvTranspose2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten())
    assert norms(bake(transposed, torch.randn(2, 3, 4, 4))) == ["1"]


def test_a_channel_with_gamma_zero_becomes_its_beta() -> None:
    model = shake_norms(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()), 1)
    quantized(model[0], 4)
    model[1].weight.data[2] = 0.0
    baked = bake(model, torch.zeros(1, 3, 3, 3))
    assert baked[0].weight[2].abs().sum() == 0
    assert torch.allclose(baked(torch.randn(5, 3, 3, 3))[:, 2], model[1].bias[2].detach().expand(5))


class Two(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def test_a_network_that_cannot_be_baked_is_an_error_in_one_line() -> None:
    with pytest.raises(ModelError, match=r"model Linear: inputs of shape \(2, 5\): RuntimeError: mat1"):
        bake(nn.Linear(4, 2), torch.zeros(1, 5))
    with pytest.raises(ModelError, match="model Two: must return one tensor, not tuple"):
        bake(Two(), torch.zeros(1, 5))
    odd = nn.Linear(4, 2)
    odd.kept = odd(torch.zeros(1, 4))  # torch cannot copy what is in the middle of a graph
    with pytest.raises(ModelError, match="model Linear: cannot be copied"):
        bake(odd, torch.zeros(1, 4))
