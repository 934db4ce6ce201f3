"""Rounding against independent arithmetic, codes to the last bit, and gradients through the rounding."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import make
from torch import nn
from torch.nn import functional as F

from automc.core.policy import Policy, Site
from automc.errors import CompressionError
from automc.operators.base import Compression, compress
from automc.operators.layers import trace
from automc.operators.quantizers import InputQuantizer, QuantLayer, best_clip, quantize_layer, straight_through
from automc.operators.recalibrate import recalibrate

BITS = [1, 2, 3, 4, 5, 6, 7, 8]
LAYERS = {
    "conv1d": lambda: (nn.Conv1d(4, 6, 3, padding=1), (4, 9)),
    "conv2d": lambda: (nn.Conv2d(4, 6, 3, stride=2, padding=1, padding_mode="reflect"), (4, 8, 8)),
    "conv3d": lambda: (nn.Conv3d(2, 4, 2, bias=False), (2, 4, 4, 4)),
    "depthwise": lambda: (nn.Conv2d(6, 6, 3, groups=6), (6, 8, 8)),
    "linear": lambda: (nn.Linear(7, 5), (3, 7)),
}


def numpy_quantize(weight, bits):
    """The documented quantizer, written anew: per channel, the best of 41 clips by brute force."""
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    codes, scales = np.zeros_like(rows), np.zeros(len(rows))
    for r, row in enumerate(rows):
        if bits == 1:
            codes[r], scales[r] = np.where(row < 0, -1, 1), np.abs(row).mean()
            continue
        top, best = 2 ** (bits - 1) - 1, np.inf
        for clip in np.linspace(0.2, 1.0, 41):
            scale = clip * np.abs(row).max() / top
            code = np.clip(np.rint(row / scale), -top, top)
            error = ((code * scale - row) ** 2).sum()
            if error < best:
                best, codes[r], scales[r] = error, code, scale
    return codes.reshape(weight.shape), scales


@pytest.mark.parametrize("bits", BITS)
def test_weights_as_an_independent_implementation_rounds_them(bits):
    torch.manual_seed(bits)
    layer = quantize_layer(nn.Conv2d(8, 12, 3), bits)
    codes, scale = layer.weight_codes()
    wanted, scales = numpy_quantize(layer.weight.detach().numpy(), bits)
    np.testing.assert_allclose(scale.numpy(), scales, rtol=1e-6)
    # Single precision may land on the other side of a half; with 864 weights that is at most one.
    assert (codes.numpy() != wanted).sum() <= 1


@pytest.mark.parametrize("bits", BITS[1:])
def test_weights_as_torch_fakes_them(bits):
    torch.manual_seed(bits)
    layer = quantize_layer(nn.Linear(50, 10, bias=False), bits).eval()
    _, scale = layer.weight_codes()
    top = 2 ** (bits - 1) - 1
    wanted = torch.fake_quantize_per_channel_affine(
        layer.weight, scale, torch.zeros(10, dtype=torch.int32), 0, -top, top
    )
    # The identity matrix reads the weight that is used; torch multiplies by 1 / scale, which may move a half.
    torch.testing.assert_close(layer(torch.eye(50)).T, wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("training", [False, True])
def test_codes_times_scale_is_the_weight_used_to_the_last_bit(name, bits, training):
    torch.manual_seed(bits)
    layer, shape = LAYERS[name]()
    plain = copy.deepcopy(layer)
    layer = quantize_layer(layer, bits).train(training)
    codes, scale = layer.weight_codes()
    assert (codes.dtype, codes.shape, scale.dtype, scale.shape) == (
        torch.int8,
        plain.weight.shape,
        torch.float32,
        (len(plain.weight),),
    )
    assert codes.abs().max() <= max(2 ** (bits - 1) - 1, 1)
    if bits == 1:
        assert set(codes.unique().tolist()) <= {-1, 1}
    weight = codes.float() * scale.view(-1, *(1,) * (codes.dim() - 1))
    used = layer._used_weight().detach()
    assert weight.numpy().tobytes() == used.contiguous().numpy().tobytes()
    plain.weight = nn.Parameter(weight)
    x = torch.randn(2, *shape)
    assert torch.equal(layer(x), plain(x))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.floats(-1e3, 1e3, width=32), min_size=4, max_size=4), min_size=2, max_size=5),
    st.sampled_from(BITS),
)
def test_any_weight_is_rounded_to_a_finite_nearest_code(rows, bits):
    layer = nn.Linear(4, len(rows), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rows))
    layer = quantize_layer(layer, bits)
    codes, scale = layer.weight_codes()
    used = codes.float() * scale[:, None]
    assert used.isfinite().all()
    if bits > 1:
        assert (scale > 0).all()
        inside = layer.weight.detach().abs() <= scale[:, None] * (2 ** (bits - 1) - 1)
        error = (used - layer.weight.detach()).abs()
        # Half a step inside the range, with the rounding of one division and one product.
        assert (error <= scale[:, None] * 0.5 * (1 + 1e-4) + 1e-30)[inside].all()
    else:
        torch.testing.assert_close(scale, torch.tensor(rows).abs().mean(1))


def test_a_dead_channel_is_no_division_by_zero():
    for bits in BITS:
        layer = nn.Linear(3, 2)
        nn.init.zeros_(layer.weight)
        codes, scale = quantize_layer(layer, bits).weight_codes()
        assert torch.equal(codes.float() * scale[:, None], torch.zeros(2, 3))


def test_the_error_falls_with_every_bit_and_clipping_helps():
    torch.manual_seed(0)
    layer = nn.Conv2d(16, 16, 3)
    nn.init.normal_(layer.weight)
    errors, unclipped = [], []
    for bits in BITS:
        quantized = quantize_layer(copy.deepcopy(layer), bits)
        errors.append((quantized._used_weight() - layer.weight).square().mean().item())
        quantized.clip.fill_(1.0)
        unclipped.append((quantized._used_weight() - layer.weight).square().mean().item())
    assert all(a > b for a, b in pairwise(errors))
    assert all(a <= b for a, b in zip(errors, unclipped, strict=True))
    assert errors[1] < 0.6 * unclipped[1]
    # 1 bit of a normal distribution: 1 - 2 / pi of its variance is lost (Max 1960).
    assert errors[0] == pytest.approx(1 - 2 / np.pi, rel=0.05)


def test_gradients_pass_through_the_rounding_of_weights():
    torch.manual_seed(0)
    layer = quantize_layer(nn.Linear(6, 4), 3).train()
    x = torch.randn(5, 6)
    layer(x).square().sum().backward()
    plain = nn.Linear(6, 4)
    codes, scale = layer.weight_codes()
    with torch.no_grad():
        plain.weight.copy_(codes.float() * scale[:, None])
        plain.bias.copy_(layer.bias)
    plain(x).square().sum().backward()
    assert torch.equal(layer.weight.grad, plain.weight.grad)
    assert torch.equal(layer.bias.grad, plain.bias.grad)


def test_a_repair_moves_weights_and_scale_together():
    torch.manual_seed(0)
    layer = quantize_layer(nn.Linear(6, 4), 4).train()
    before = layer.weight_codes()[1]
    goal, x = nn.Linear(6, 4), torch.randn(64, 6)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.2)
    losses = []
    for _ in range(40):
        loss = F.mse_loss(layer(x), goal(x).detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
    assert not torch.equal(layer.weight_codes()[1], before)
    assert torch.equal(layer.eval()(x), layer.train()(x))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.0, 2.0), (-2.0, 0.0)])
def test_inputs_as_torch_fakes_them(bits, low, high):
    torch.manual_seed(bits)
    quantizer = InputQuantizer(bits, low, high)
    x = (torch.randn(4000) * 2).requires_grad_()
    wanted = torch.fake_quantize_per_tensor_affine(x, quantizer.scale, quantizer.zero.to(torch.int32), 0, 2**bits - 1)
    (want_grad,) = torch.autograd.grad(wanted.sum(), x)
    for mode in (True, False):
        torch.testing.assert_close(quantizer.train(mode)(x), wanted, rtol=1e-6, atol=1e-6)
    (grad,) = torch.autograd.grad(quantizer.train()(x).sum(), x)
    # torch masks what rounds to a code outside the range; here it is what lies outside, at most half a step apart.
    edge = (x < -quantizer.zero * quantizer.scale) | (x > (quantizer.top - quantizer.zero) * quantizer.scale)
    assert torch.equal(grad, (~edge).float())
    assert (grad != want_grad)[~edge].sum() == 0
    assert len(wanted.unique()) <= 2**bits
    assert 0.0 in quantizer.eval()(torch.zeros(1))


@given(st.integers(1, 8), st.floats(0, 100), st.floats(0, 100))
def test_zero_is_exact_and_the_range_is_covered(bits, below, above):
    quantizer = InputQuantizer(bits, -below, above).eval()
    assert quantizer(torch.zeros(1)).item() == 0.0
    assert quantizer.scale > 0
    ends = quantizer(torch.tensor([-below, above]))
    # The zero point is rounded, so the range may be shifted by up to half a step, and the ends rounded by another half.
    assert ((ends - torch.tensor([-below, above])).abs() <= quantizer.scale * 1.001 + 1e-6).all()


def test_the_fitted_range_is_the_best_of_a_brute_force():
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(5000, generator=generator).relu()
    sample[0] = 30.0  # an outlier that a range over everything would waste most codes on
    fitted = InputQuantizer.fit(4, sample, 0.0, 30.0).eval()
    errors = {}
    for high in np.geomspace(10**-1.3, 1.0, 40) * 30.0:
        step = high / 15
        rounded = np.clip(np.rint(sample.numpy() / step), 0, 15) * step
        errors[high] = ((rounded - sample.numpy()) ** 2).sum()
    best = min(errors, key=errors.get)
    assert fitted.scale.item() * 15 == pytest.approx(best, rel=1e-5)
    assert best < 30.0


def test_straight_through_has_one_value_and_the_others_gradient():
    x = torch.tensor([0.1, 1e8, -3.7], requires_grad=True)
    y = straight_through(torch.round(x), x)
    assert torch.equal(y, torch.round(x))
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.ones(3))


def test_freeze_uses_the_weight_as_it_is_and_still_rounds_the_input():
    layer = quantize_layer(nn.Linear(3, 2), 2).eval()
    layer.input_quantizer = InputQuantizer(2, 0.0, 3.0).eval()
    weight, bias = torch.tensor([[0.123, 1.0, -2.0], [3.0, 0.5, 0.25]]), torch.tensor([1.0, -1.0])
    layer.freeze(weight, bias)
    x = torch.tensor([[0.4, 1.6, 9.0]])
    assert torch.equal(layer(x), F.linear(torch.tensor([[0.0, 2.0, 3.0]]), weight, bias))
    with pytest.raises(CompressionError, match="QuantLinear has no codes: its weights are frozen"):
        layer.weight_codes()


def test_freeze_can_add_the_bias_that_a_folded_norm_needs():
    layer = quantize_layer(nn.Conv2d(1, 2, 1, bias=False), 4)
    layer.freeze(layer.weight, torch.tensor([1.0, 2.0]))
    assert layer(torch.zeros(1, 1, 1, 1)).flatten().tolist() == [1.0, 2.0]


# The operator


def policy(**bits):
    values = {}
    for layer, (weight, activation) in bits.items():
        name = layer.replace("__", ".")
        values[Site("quantize", name, "weight_bits")] = weight
        values[Site("quantize", name, "activation_bits")] = activation
    return Policy(values)


def state_of(net, calibration=True):
    model, inputs = make(net)
    many = torch.randn(64, *inputs.shape[1:])
    return Compression(model, model, trace(model, inputs), many if calibration else None)


def test_layers_keep_their_paths_parameters_and_untouched_ones_their_type():
    state = state_of("inverted")
    after = compress(
        state, policy(expand__0=(4, 8), depth__0=(3, 32), project__0=(32, 5), head=(32, 32)), ("quantize",)
    )
    assert [n for n, _ in after.model.named_parameters()] == [n for n, _ in state.model.named_parameters()]
    found = {n: (m.weight_bits, m.activation_bits) for n, m in after.model.named_modules() if isinstance(m, QuantLayer)}
    assert found == {"expand.0": (4, 8), "depth.0": (3, 32), "project.0": (32, 5)}
    assert after.realized["expand.0"] == {"weight_bits": 4, "activation_bits": 8}
    assert after.realized["head"] == {"weight_bits": 32, "activation_bits": 32}
    with pytest.raises(CompressionError, match="its weights are untouched"):
        after.model.project[0].weight_codes()
    assert not any(isinstance(m, QuantLayer) for m in state.model.modules())


def test_eight_bits_everywhere_change_little_and_two_bits_much():
    state = state_of("resnet_b")
    x = state.calibration
    names = [layer.name for layer in state.trace.table.layers]
    base, gaps = state.model(x).detach(), {}
    for bits in (8, 4, 2):
        after = compress(state, policy(**{n.replace(".", "__"): (bits, bits) for n in names}), ("quantize",))
        gaps[bits] = ((after.model(x).detach() - base).norm() / base.norm()).item()
    assert 5 * gaps[8] < gaps[4] < gaps[2]


def test_ranges_are_those_of_the_pruned_recalibrated_network():
    state = state_of("conv_bn_relu")
    values = {Site("prune", "0.0", "prune_ratio"): 0.5, Site("quantize", "1.0", "activation_bits"): 8}
    after = compress(state, Policy(values), ("prune", "quantize"))
    pruned = compress(state, Policy({Site("prune", "0.0", "prune_ratio"): 0.5}), ("prune",))
    assert pruned.stale
    highest = {}
    for name in ("stale", "recalibrated"):
        highest[name] = pruned.model[0](state.calibration).max().item()
        recalibrate(pruned.model, state.calibration)
    quantizer = after.model.get_submodule("1.0").input_quantizer
    clip = (quantizer.scale * quantizer.top).item() / np.array([highest["recalibrated"], highest["stale"]])
    off = np.abs(np.log10(clip) * 39 / 1.3 - np.rint(np.log10(clip) * 39 / 1.3))  # in steps of the 40 clips
    assert off[0] < 0.02 < off[1]
    assert not after.stale
    assert not torch.equal(after.model[0][1].running_mean, state.model[0][1].running_mean[:4])


def test_high_bits_leave_the_statistics_alone_and_low_bits_call_them_stale():
    state = state_of("conv_bn_relu")
    high = compress(state, policy(**{"0__0": (8, 8)}), ("quantize",))
    assert torch.equal(high.model[0][1].running_mean, state.model[0][1].running_mean)
    assert not high.stale
    assert compress(state, policy(**{"0__0": (4, 32)}), ("quantize",)).stale


@pytest.mark.parametrize("order", [("prune", "quantize"), ("quantize", "prune")])
def test_pruning_and_quantizing_go_together_in_any_order(order):
    state = state_of("resnet_b")
    values = {Site("prune", g.name, "prune_ratio"): 0.5 for g in state.trace.table.groups}
    values |= {Site("quantize", layer.name, "weight_bits"): 4 for layer in state.trace.table.layers}
    after = compress(state, Policy(values), order)
    codes, scale = after.model.layer2[0].conv1.weight_codes()
    assert (codes.shape, scale.shape) == ((8, 4, 3, 3), (8,))
    assert after.model(state.calibration).isfinite().all()
    assert after.realized["conv1"] == {"prune_ratio": 0.5, "channels": 4, "weight_bits": 4, "activation_bits": 32}


def test_activation_bits_need_calibration_inputs():
    with pytest.raises(CompressionError, match=r"quantize\(a\)\.activation_bits needs calibration inputs"):
        compress(state_of("plain", calibration=False), policy(a=(8, 8)), ("quantize",))
    assert compress(state_of("plain", calibration=False), policy(a=(8, 32)), ("quantize",)).model.a.weight_bits == 8


def test_the_same_policy_gives_the_same_network():
    state = state_of("resnet_a")
    bits = {layer.name.replace(".", "__"): (4, 4) for layer in state.trace.table.layers}
    first, second = (compress(state, policy(**bits), ("quantize",)).model.state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_only_plain_layers_can_be_quantized():
    with pytest.raises(CompressionError, match="a ConvTranspose2d has no quantized kind"):
        quantize_layer(nn.ConvTranspose2d(1, 1, 1), 8)


def test_quantized_networks_can_be_copied_and_saved():
    layer = quantize_layer(nn.Linear(4, 3), 3)
    layer.input_quantizer = InputQuantizer(4, -1.0, 1.0)
    twin = copy.deepcopy(layer)
    other = quantize_layer(nn.Linear(4, 3), 3)
    other.input_quantizer = InputQuantizer(4, 0.0, 5.0)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(6, 4)
    assert torch.equal(twin(x), layer(x))
    assert torch.equal(other(x), layer(x))


def test_best_clip_of_one_bit_is_all_of_it():
    assert torch.equal(best_clip(torch.randn(3, 5), 1), torch.ones(3))
