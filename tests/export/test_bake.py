"""Baking against the network it was made from: the same outputs, fewer batch norms, the same codes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from export_nets import FORMS, Recipe, Rounding, compressed, digits, fitted, normalise, quantized, shake_norms, stand_in
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from automc.errors import ModelError
from automc.export.baking.bake import bake, fold
from automc.export.baking.outputs import named_outputs

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
    own = model[0].stored()["weight"]
    gamma = model[1].weight.detach().numpy()
    baked = fold(model, torch.zeros(1, 3, 4, 4))
    found = baked.stored["0.weight"]
    assert found.bits == bits
    assert np.array_equal(found.codes, own.codes * np.where(gamma < 0, -1, 1).reshape(-1, 1, 1, 1))
    wanted = own.scale * np.abs(gamma) / np.sqrt(model[1].running_var.numpy() + model[1].eps)
    assert np.allclose(found.scale, wanted, rtol=1e-6)
    assert np.array_equal(baked.model[0].weight.numpy(), found.codes * found.scale.reshape(-1, 1, 1, 1))
    assert close(baked.model, model, torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("form", sorted(FORMS))
@pytest.mark.parametrize("sparsity", [0.0, 0.6])
@given(seed=st.integers(0, 10**6))
@settings(deadline=None, max_examples=8)
def test_every_form_survives_the_fold(form: str, sparsity: float, seed: int) -> None:
    model = shake_norms(nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Flatten()), seed)
    stand_in(model[0], Recipe(form, 4, sparsity))
    own = model[0].stored()["weight"]
    baked = fold(model, torch.zeros(1, 3, 4, 4))
    found = baked.stored["0.weight"]
    factor = (model[1].weight / torch.sqrt(model[1].running_var.double() + model[1].eps)).detach().numpy()
    wanted = own.dense() * factor.reshape(-1, 1, 1, 1)
    assert np.allclose(found.dense(), wanted, rtol=1e-6, atol=0)  # the scale is rounded to float32, and the product
    assert baked.model[0].weight.numpy().tobytes() == found.dense().tobytes()
    assert (found.bits, found.mask is None, found.zero is None) == (own.bits, own.mask is None, own.zero is None)
    if form in ("unsigned", "codebook", "ternary"):
        assert np.array_equal(found.codes, own.codes)
    assert close(baked.model, model, torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("form", sorted(FORMS))
def test_without_a_batch_norm_the_frozen_forward_is_the_live_one(form: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(24, 5))
    for layer in (model[0], model[3]):
        stand_in(layer, Recipe(form, 3, 0.4))
    model[3].input_quantizer = Rounding(4, -1.0, 2.0)
    inputs = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    baked = bake(model, inputs)
    model[3].bias = baked[3].bias  # moved to the grid of integer kernels, see below
    assert torch.equal(baked(inputs), outputs(model, inputs))
    assert [name for name in baked.state_dict() if "ways" in name] == []
    assert "0.ways.weight.step" in model.state_dict()  # the network given keeps its own


@pytest.mark.parametrize("form", ["signed", "codebook"])
def test_a_bias_that_kernels_add_as_a_whole_number_is_one(form: str) -> None:
    model = nn.Sequential(nn.Linear(24, 5))
    stand_in(model[0], Recipe(form, 3))
    model[0].input_quantizer = Rounding(4, -1.0, 2.0)
    old = model[0].bias.detach().clone()
    baked = fold(model, torch.zeros(1, 24))
    new = baked.model[0].bias.detach()
    if form == "codebook":  # no integers
        assert torch.equal(new, old)
        return
    steps = torch.from_numpy(baked.stored["0.weight"].scale) * model[0].input_quantizer.scale / 16  # 3 * 16 <= 63
    assert torch.equal(new, torch.round(new / steps) * steps)
    assert not torch.equal(new, old)
    assert ((new - old).abs() <= steps / 2 * (1 + 1e-6)).all()  # float32 division


def test_a_whole_network_with_rounded_inputs_keeps_its_answers() -> None:
    model = compressed(fitted(16))
    raw, _ = digits()
    inputs = normalise(raw[1200:])
    baked = fold(model, inputs[:1])
    assert norms(baked.model) == []
    assert sorted(baked.stored) == ["conv1.weight", "conv2.weight", "conv3.weight", "linear.weight"]
    assert isinstance(baked.model.conv2.input_quantizer, Rounding)
    assert (baked.model(inputs).argmax(1) == outputs(model, inputs).argmax(1)).float().mean() >= 0.995


def test_inputs_rounded_and_weights_left_alone() -> None:
    model = shake_norms(nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Flatten()), 3)
    quantized(model[0], 32, Rounding(4, -2.0, 2.0), 4)
    baked = fold(model, torch.zeros(1, 3, 4, 4))
    assert baked.stored == {}
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
    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        return x, 2


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> list[None]:
        return [None]


class Heads(nn.Module):
    """Several outputs in a structure, made of two convolutions with batch norms."""

    def __init__(self, structure: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.a, self.b = (nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)) for _ in range(2))
        self.structure = structure

    def forward(self, x: Tensor) -> Any:
        return self.structure(self.a(x), self.b(x))


@pytest.mark.parametrize(
    ("structure", "names"),
    [
        (lambda a, b: (a, b), ["output", "output_1"]),
        (lambda a, b: [a, [b, None]], ["output", "output_1"]),
        (lambda a, b: {"boxes": a, "classes": b}, ["boxes", "classes"]),
        (lambda a, b: {"maps": [a, b], "best": b.argmax(1)}, ["maps", "maps_1", "best"]),
        (lambda a, b: ({"first": a}, b), ["first", "output"]),
        (lambda a, b: {"deep": {"er": a}, "flag": b > 0}, ["deep.er", "flag"]),
    ],
)
def test_networks_with_several_outputs_bake(structure: Callable[[Tensor, Tensor], Any], names: list[str]) -> None:
    model = shake_norms(Heads(structure), 2).eval()
    inputs = torch.randn(3, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted, found = (named_outputs(net(inputs), net) for net in (model, bake(model, inputs)))
    assert norms(bake(model, inputs)) == []
    assert list(wanted) == list(found) == names
    for name, tensor in wanted.items():
        assert (found[name].double() - tensor.double()).abs().max() <= 1e-5 * max(tensor.double().abs().max(), 1)


def test_a_network_that_cannot_be_baked_is_an_error_in_one_line() -> None:
    with pytest.raises(ModelError, match=r"model Linear: inputs of shape \(2, 5\): RuntimeError: mat1"):
        bake(nn.Linear(4, 2), torch.zeros(1, 5))
    with pytest.raises(
        ModelError, match="model Two: must return tensors, alone or in tuples, lists and dicts, not int"
    ):
        bake(Two(), torch.zeros(1, 5))
    with pytest.raises(ModelError, match="model Nothing: must return at least one tensor"):
        bake(Nothing(), torch.zeros(1, 5))
    odd = nn.Linear(4, 2)
    odd.kept = odd(torch.zeros(1, 4))  # torch cannot copy what is in the middle of a graph
    with pytest.raises(ModelError, match="model Linear: cannot be copied"):
        bake(odd, torch.zeros(1, 4))
