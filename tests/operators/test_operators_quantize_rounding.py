"""Adaptive rounding against exhaustive search, rounding to nearest, and the layer's own output."""

import copy
import itertools

import numpy as np
import pytest
import torch
from nets import make
from torch import nn

from automc.core.policy import Policy, Site
from automc.errors import CompressionError
from automc.operators.base import Compression, compress
from automc.operators.layers import trace
from automc.operators.live_kinds import live
from automc.operators.quantize import quantize_layer
from automc.operators.quantizers import InputQuantizer
from automc.operators.quantizers.rounding import best_flips, round_adaptively, second_moments

LAYERS = {
    "conv1d": lambda: (nn.Conv1d(4, 6, 3, padding=1, dilation=2), (4, 9)),
    "conv2d": lambda: (nn.Conv2d(4, 6, 3, stride=2, padding=1, padding_mode="reflect"), (4, 8, 8)),
    "same": lambda: (nn.Conv2d(4, 6, (5, 3), padding="same", groups=2, bias=False), (4, 7, 8)),
    "conv3d": lambda: (nn.Conv3d(2, 4, 2), (2, 4, 4, 4)),
    "depthwise": lambda: (nn.Conv2d(6, 12, 3, groups=6, padding=1), (6, 8, 8)),
    "linear": lambda: (nn.Linear(7, 5), (3, 7)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_second_moments_give_the_layers_output_error(name):
    torch.manual_seed(0)
    layer, shape = LAYERS[name]()
    x = torch.randn(5, *shape)
    moments = second_moments(layer, x).double()
    other = copy.deepcopy(layer)
    with torch.no_grad():
        other.weight += torch.randn_like(other.weight)
        change = (other.weight - layer.weight).double()
        wanted = (other(x) - layer(x)).double().square().sum()
        outputs = layer(x).numel() / len(layer.weight)
    rows = change.flatten(1).view(len(moments), -1, moments.shape[1])
    found = torch.einsum("gri,gij,grj->", rows, moments, rows) * outputs
    assert found.item() == pytest.approx(wanted.item(), rel=1e-4)  # single precision products


def cost(error, flip, change, gram):
    moved = error + change * flip
    return np.einsum("ri,ij,rj->r", moved, gram, moved)


def test_flips_are_those_of_an_exhaustive_search_or_nearly():
    ratios = np.concatenate([_ratios_to_exhaustive(seed) for seed in range(5)])
    # Of these 30 rows most reach the optimum, and the others are near it; nearest is on average 3 times the optimum.
    assert (ratios[:, 0] < 1.001).mean() >= 0.6
    assert ratios[:, 0].max() < 2
    assert ratios[:, 0].mean() < 1.25
    assert ratios[:, 1].mean() > 2


def _ratios_to_exhaustive(seed):
    """What best_flips and rounding to nearest cost in each of 6 rows of 10 weights, over the least of all 2^10."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(200, 10, generator=generator) @ torch.randn(10, 10, generator=generator)
    gram = (inputs.T @ inputs / 200)[None]
    exact = torch.randn(6, 10, generator=generator) * 3
    nearest = exact.round()
    error, change = nearest - exact, torch.where(exact < nearest, -1.0, 1.0)
    free = torch.rand(6, 10, generator=generator) > 0.1
    flip = best_flips(error, change, free, gram)
    assert not (flip & ~free).any()
    e, c, g = (t.double().numpy() for t in (error, change, gram[0]))
    found, plain = cost(e, flip.numpy(), c, g), cost(e, np.zeros((6, 10), bool), c, g)
    trials = [cost(e, np.array(b) & free.numpy(), c, g) for b in itertools.product([False, True], repeat=10)]
    best = np.min(trials, axis=0)
    assert (found >= best - 1e-6).all()
    assert (found <= plain + 1e-6).all()
    return np.stack([found / best, plain / best], axis=1)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("form", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_the_output_is_never_farther_off_than_rounded_to_nearest(name, form, granularity):
    torch.manual_seed(0)
    plain, shape = LAYERS[name]()
    x = torch.randn(16, *shape).cumsum(-1)  # neighbours correlate, as in pictures
    layer = live(copy.deepcopy(plain)).eval()
    mask = torch.rand_like(layer.weight) > 0.2
    layer.ways["weight"].mask = mask
    with torch.no_grad():
        plain.weight *= mask
    for qat in ("ste", "lsq", "incremental"):
        rounded = quantize_layer(copy.deepcopy(layer), 3, weight_format=form, granularity=granularity, qat=qat)
        rounded.input_quantizer = InputQuantizer(8, float(x.min()), float(x.max())).eval()
        seen = rounded.input_quantizer(x)
        before, scale = rounded(x), rounded.stored()["weight"].scale
        round_adaptively(rounded, x)
        stored = rounded.stored()["weight"]
        errors = [(out - plain(seen)).detach().square().sum().item() for out in (before, rounded(x))]
        assert errors[1] < errors[0]
        np.testing.assert_allclose(stored.scale, scale, rtol=1e-6)
        assert (rounded.used("weight")[~mask] == 0).all()
        assert stored.dense().tobytes() == rounded.used("weight").detach().contiguous().numpy().tobytes()
        if form == "symmetric":  # each weight in range lies at one of the two codes next to it
            step = torch.from_numpy(stored.scale).view(-1, *(1,) * (plain.weight.dim() - 1))
            moved = (rounded.used("weight") - plain.weight).abs()
            assert (moved < step * 1.001)[plain.weight.abs() < 3 * step].all()


def state_of(net):
    model, inputs = make(net)
    many = torch.randn(48, *inputs.shape[1:], generator=torch.Generator().manual_seed(5))
    return Compression(model, model, trace(model, inputs), many)


def test_every_layer_is_rounded_on_what_the_rounded_ones_before_it_give():
    state = state_of("plain")
    names = [layer.name for layer in state.trace.table.layers]
    values = {Site("quantize", n, "weight_bits"): 3 for n in names}
    nearest = compress(state, Policy(values), ("quantize",)).model
    adaptive = {**values, **{Site("quantize", n, "rounding"): "adaptive" for n in names}}
    after = compress(state, Policy(adaptive), ("quantize",))
    x = state.calibration
    base = state.model(x)
    assert (after.model(x) - base).square().sum() < 0.7 * (nearest(x) - base).square().sum()
    assert after.stale
    again = compress(state, Policy(adaptive), ("quantize",)).model
    assert torch.equal(again(x), after.model(x))
    by_hand = quantize_layer(copy.deepcopy(state.model.b), 3)
    round_adaptively(by_hand, torch.relu(after.model.a(x)))
    assert torch.equal(by_hand.used("weight"), after.model.b.used("weight"))


def test_a_weight_of_two_layers_is_rounded_to_nearest_and_said_to_be():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.c(torch.relu(self.b(torch.relu(self.a(x)))))

    torch.manual_seed(0)
    model, x = Tied().eval(), torch.randn(48, 6)
    state = Compression(model, model, trace(model, x[:4]), x)
    values = {Site("quantize", n, "weight_bits"): 3 for n in "ac"}
    values |= {Site("quantize", n, "rounding"): "adaptive" for n in "ac"}
    after = compress(state, Policy(values), ("quantize",))
    assert torch.equal(after.model.b.weight, model.b.weight)
    assert after.realized["a"]["rounding"] == "nearest"
    assert "rounding" not in after.realized["c"]
    assert not torch.equal(after.model.c.weight, model.c.weight)


def test_adaptive_rounding_needs_inputs():
    state = state_of("plain")
    state = Compression(state.model, state.model, state.trace, None)
    values = {Site("quantize", "a", "weight_bits"): 3, Site("quantize", "a", "rounding"): "adaptive"}
    with pytest.raises(CompressionError, match=r"quantize\(a\)\.rounding needs calibration inputs"):
        compress(state, Policy(values), ("quantize",))
