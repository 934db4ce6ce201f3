"""Equal steps: against ONNX Runtime bit for bit, torch's fake quantization, numpy, and the LSQ paper's gradients."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from automc.operators.quantize import quantize_layer
from automc.operators.quantizers import AffineQuantizer, LearnedStepQuantizer, SymmetricQuantizer

BITS = [2, 3, 4, 5, 6, 7, 8]
GRIDS = [(symmetric, per_channel) for symmetric in (True, False) for per_channel in (True, False)]


def made(weight, bits, mask=None, symmetric=True, per_channel=True, rule="mse", kind=AffineQuantizer):
    return kind(weight, bits, mask, symmetric=symmetric, per_channel=per_channel, rule=rule)


def weights(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("symmetric", "per_channel"), GRIDS)
def test_eight_bits_as_onnx_runtime_rounds_them_bit_for_bit(symmetric, per_channel):
    onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    weight = weights(6, 4, 3, 3) + 0.3
    stored = made(weight, 8, symmetric=symmetric, per_channel=per_channel).stored(weight)
    kind, code = (onnx.TensorProto.INT8, np.int8) if symmetric else (onnx.TensorProto.UINT8, np.uint8)
    zero = np.zeros(6, code) if symmetric else stored.zero.astype(code)
    scale = stored.scale if per_channel else stored.scale[0]
    zero = zero if per_channel else zero[0]
    axis = {"axis": 0} if per_channel else {}
    names = {"s": scale, "z": zero}
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("QuantizeLinear", ["w", "s", "z"], ["q"], **axis),
            onnx.helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], **axis),
        ],
        "round",
        [onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, weight.shape)],
        [
            onnx.helper.make_tensor_value_info("q", kind, weight.shape),
            onnx.helper.make_tensor_value_info("d", onnx.TensorProto.FLOAT, weight.shape),
        ],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in names.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    codes, dense = ort.InferenceSession(model.SerializeToString()).run(None, {"w": weight.numpy()})
    if symmetric:  # -128 is a code of int8 that a symmetric grid leaves out
        dense = np.where(codes == -128, -127 * stored.scale.reshape(-1, 1, 1, 1), dense)
        codes = np.maximum(codes, -127)
    np.testing.assert_array_equal(stored.codes, codes)
    assert stored.dense().tobytes() == dense.astype(np.float32).tobytes()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("symmetric", "per_channel"), GRIDS)
def test_weights_as_torch_fakes_them(bits, symmetric, per_channel):
    weight = weights(10, 50, seed=bits) - 0.2
    quantizer = made(weight, bits, symmetric=symmetric, per_channel=per_channel).eval()
    stored = quantizer.stored(weight)
    top = 2 ** (bits - 1) - 1
    zero = torch.zeros(10, dtype=torch.int32) if symmetric else torch.from_numpy(stored.zero).int()
    low, high = (-top, top) if symmetric else (0, 2**bits - 1)
    wanted = torch.fake_quantize_per_channel_affine(weight, torch.from_numpy(stored.scale), zero, 0, low, high)
    # torch multiplies by 1 / scale, which may move a half; with 500 weights at most one.
    off = (quantizer(weight) - wanted).abs() > 1e-6
    assert off.sum() <= 1
    if not per_channel:
        assert len(set(stored.scale.tolist())) == 1


def test_a_weight_of_one_sign_wastes_no_code_when_asymmetric():
    weight = weights(3, 200).abs()
    asymmetric = made(weight, 4, symmetric=False, rule="minmax").eval()
    symmetric = made(weight, 4, rule="minmax").eval()
    assert torch.equal(asymmetric.zero, torch.zeros(3))
    ratio = (symmetric(weight) - weight).square().mean() / (asymmetric(weight) - weight).square().mean()
    assert ratio == pytest.approx((15 / 7) ** 2, rel=0.1)  # the steps' ratio, squared; rounding errors of 600 weights


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.floats(-1e3, 1e3, width=32), min_size=4, max_size=4), min_size=2, max_size=5),
    st.sampled_from(BITS),
    st.sampled_from(GRIDS),
)
def test_inside_the_range_the_error_is_half_a_step_and_the_same_comes_out_twice(rows, bits, grid):
    weight = torch.tensor(rows)
    quantizer = made(weight, bits, symmetric=grid[0], per_channel=grid[1]).eval()
    stored = quantizer.stored(weight)
    used, scale = quantizer(weight), torch.from_numpy(stored.scale)[:, None]
    assert used.isfinite().all()
    assert (scale > 0).all()
    low, high = (torch.as_tensor(bound, dtype=torch.float32).reshape(-1, 1) for bound in quantizer.bounds())
    inside = (weight >= low * scale) & (weight <= high * scale)
    # Half a step inside the range, with the rounding of one division and one product.
    assert ((used - weight).abs() <= scale * 0.5 * (1 + 1e-4) + 1e-30)[inside].all()
    again = made(used, bits, symmetric=grid[0], per_channel=grid[1], rule="minmax").eval()
    if grid[0]:  # the scale is found again from the largest number, up to two roundings
        torch.testing.assert_close(again(used), used, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("symmetric", "per_channel"), GRIDS)
@pytest.mark.parametrize("rule", ["mse", "minmax", "percentile", "kl"])
def test_a_dead_channel_is_no_division_by_zero(symmetric, per_channel, rule):
    weight = torch.zeros(3, 5)
    weight[1] = torch.arange(5.0) - 2
    for bits in BITS:
        quantizer = made(weight, bits, symmetric=symmetric, per_channel=per_channel, rule=rule).eval()
        assert torch.equal(quantizer(weight)[0], torch.zeros(5))
        assert quantizer(torch.zeros(3, 5)).abs().sum() == 0


def test_the_error_falls_with_every_bit_and_clipping_helps():
    weight = weights(16, 144)
    errors, unclipped = [], []
    for bits in BITS:
        for rule, found in (("mse", errors), ("minmax", unclipped)):
            found.append((made(weight, bits, rule=rule).eval()(weight) - weight).square().mean().item())
    assert all(a > b for a, b in pairwise(errors))
    assert all(a <= b for a, b in zip(errors, unclipped, strict=True))
    assert errors[0] < 0.6 * unclipped[0]


def test_a_masked_weight_does_not_count():
    weight, mask = weights(4, 40), weights(4, 40, seed=1) > 0
    weight[~mask] = 0
    for rule in ("percentile", "kl", "mse", "minmax"):
        for row in range(4):
            alone = made(weight[row : row + 1, mask[row]], 4, rule=rule)
            together = made(weight, 4, mask, rule=rule)
            assert together.clip[row].item() == pytest.approx(alone.clip.item(), rel=1e-6)


def test_gradients_pass_straight_through():
    weight = weights(4, 6).requires_grad_()
    quantizer, upstream = SymmetricQuantizer(weight, 3).train(), weights(4, 6, seed=1)
    (quantizer(weight) * upstream).sum().backward()
    assert torch.equal(weight.grad, upstream)


def test_a_repair_moves_weights_and_scale_together():
    torch.manual_seed(0)
    layer = quantize_layer(nn.Linear(6, 4), 4).train()
    before = layer.stored()["weight"].scale
    goal, x = nn.Linear(6, 4), torch.randn(64, 6)
    losses = _trained(layer, goal, x, 0.2)
    assert losses[-1] < 0.1 * losses[0]
    assert not np.array_equal(layer.stored()["weight"].scale, before)
    assert torch.equal(layer.eval()(x), layer.train()(x))


def _trained(layer, goal, x, rate, steps=40):
    optimizer = torch.optim.SGD(layer.parameters(), lr=rate)
    losses = []
    for _ in range(steps):
        loss = F.mse_loss(layer(x), goal(x).detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# Learned steps


@pytest.mark.parametrize(("symmetric", "per_channel"), GRIDS)
def test_lsq_gradients_are_the_papers(symmetric, per_channel):
    weight = (weights(5, 30) + 0.1).requires_grad_()
    quantizer = made(weight, 3, symmetric=symmetric, per_channel=per_channel, kind=LearnedStepQuantizer).train()
    upstream = weights(5, 30, seed=1)
    with torch.no_grad():
        quantizer.held.mul_(0.7)  # so that some weights are outside
    (quantizer(weight) * upstream).sum().backward()
    w, up = weight.detach().double().numpy(), upstream.double().numpy()
    step = np.broadcast_to(quantizer.held.detach().double().numpy()[:, None], (5, 1))
    zero = 0 if symmetric else np.broadcast_to(quantizer.zero.numpy()[:, None], (5, 1))
    low, high = (-3, 3) if symmetric else (-zero, 7 - zero)
    v = w / step
    slope = np.where(v <= low, low, np.where(v >= high, high, np.rint(v) - v))
    wanted = (up * slope).sum(axis=1 if per_channel else None)
    n = 30 if per_channel else 150
    wanted = np.atleast_1d(wanted) / np.sqrt(n * (3 if symmetric else 7))
    assert ((v < low) | (v > high)).any()
    np.testing.assert_allclose(quantizer.held.grad.numpy(), wanted, rtol=1e-4, atol=1e-5)  # sums in single precision
    inside = np.where((v < low) | (v > high), 0, up)
    np.testing.assert_allclose(weight.grad.numpy(), inside, rtol=3e-7)  # multiplied and divided by s once each


def test_lsq_gradient_of_the_soft_part_by_finite_differences():
    """Outside the range a weight is the largest code times s, so nothing is rounded and the slope can be measured."""
    weight = torch.full((1, 4), 50.0) * torch.tensor([1.0, -1.0, 2.0, -3.0])
    quantizer = made(weight, 3, kind=LearnedStepQuantizer).train()
    with torch.no_grad():
        quantizer.held.fill_(1.0)
    upstream = torch.tensor([[1.0, 2.0, -0.5, 0.25]])
    (quantizer(weight) * upstream).sum().backward()
    ends = []
    for shift in (1e-2, -1e-2):
        with torch.no_grad():
            quantizer.held.fill_(1.0 + shift)
            ends.append((quantizer(weight) * upstream).sum().item())
    # Linear in s, so the central difference is exact up to single precision.
    assert quantizer.held.grad.item() * np.sqrt(4 * 3) == pytest.approx((ends[0] - ends[1]) / 2e-2, rel=1e-3)


def test_learned_steps_learn():
    torch.manual_seed(0)
    goal, x = nn.Linear(6, 4), torch.randn(64, 6)
    layer = quantize_layer(nn.Linear(6, 4), 4, qat="lsq").train()
    held = layer.ways["weight"].quantizer.held
    before = held.detach().clone()
    losses = _trained(layer, goal, x, 0.2)
    assert losses[-1] < 0.1 * losses[0]
    assert not torch.equal(held, before)
    assert torch.equal(layer.eval()(x), layer.train()(x))


def test_a_learned_step_stays_positive_whatever_the_optimizer_does():
    weight = weights(3, 8)
    quantizer = made(weight, 4, kind=LearnedStepQuantizer)
    with torch.no_grad():
        quantizer.held.copy_(torch.tensor([-0.1, 0.0, 1e-40]))
    stored = quantizer.stored(weight)
    assert (stored.scale > 0).all()
    assert np.isfinite(stored.dense()).all()


# Batch norm behind it


@pytest.mark.parametrize("bits", BITS)
def test_quantize_then_fold_is_fold_then_quantize(bits):
    """With a symmetric scale a channel the codes are the same: a channel's factor goes into its scale."""
    weight, factor = weights(12, 4, 3, 3, seed=bits), weights(12, seed=9).double() * 2
    first = SymmetricQuantizer(weight, bits).stored(weight).scaled(factor.numpy())
    folded = (weight.double() * factor.view(-1, 1, 1, 1)).float()
    second = SymmetricQuantizer(folded, bits).stored(folded)
    np.testing.assert_array_equal(first.codes, second.codes)
    np.testing.assert_allclose(first.scale, second.scale, rtol=1e-6)  # two roundings of single precision
