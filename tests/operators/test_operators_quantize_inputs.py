"""Rounded inputs: against torch's fake quantization, and the gradients of learned steps and clips."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from automc.errors import CompressionError
from automc.operators.quantize import quantize_layer
from automc.operators.quantizers import InputQuantizer, LearnedClipInput, LearnedStepInput, straight_through

BITS = [1, 2, 3, 4, 5, 6, 7, 8]


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


@pytest.mark.parametrize(("bits", "low", "high"), [(8, -1.3, 2.1), (3, 0.0, 6.0), (1, -0.5, 0.5)])
def test_evaluation_rounds_to_the_same_bits_and_leaves_its_input(bits, low, high):
    quantizer = InputQuantizer(bits, low, high).eval()
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(bits)) * 2
    recorded, kept = quantizer(x), x.clone()
    with torch.inference_mode():
        assert torch.equal(quantizer(x), recorded)
    assert torch.equal(x, kept)


@given(st.integers(1, 8), st.floats(0, 100), st.floats(0, 100))
def test_zero_is_exact_and_the_range_is_covered(bits, below, above):
    quantizer = InputQuantizer(bits, -below, above).eval()
    assert quantizer(torch.zeros(1)).item() == 0.0
    assert quantizer.scale > 0
    ends = quantizer(torch.tensor([-below, above]))
    # The zero point is rounded, so the range may be shifted by up to half a step, and the ends rounded by another half.
    assert ((ends - torch.tensor([-below, above])).abs() <= quantizer.scale * 1.001 + 1e-6).all()


def test_straight_through_has_one_value_and_the_others_gradient():
    x = torch.tensor([0.1, 1e8, -3.7], requires_grad=True)
    y = straight_through(torch.round(x), x)
    assert torch.equal(y, torch.round(x))
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.ones(3))


RANGES = [(-1.0, 3.0), (0.0, 2.0), (-2.0, 0.5)]


@pytest.mark.parametrize("kind", [LearnedStepInput, LearnedClipInput])
@pytest.mark.parametrize(("low", "high"), RANGES)
def test_learned_ones_round_alike_in_training_and_eval(kind, low, high):
    x = torch.randn(500, generator=torch.Generator().manual_seed(0)) * 2
    plain, learned = InputQuantizer(3, low, high).eval(), kind(3, low, high)
    assert [name for name, _ in learned.named_parameters()] == ["scale"]
    assert torch.equal(learned.train()(x), plain(x))
    assert torch.equal(learned.eval()(x), plain(x))


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_lsq_gradients_of_inputs_are_the_papers(low, high):
    x = (torch.randn(6, 40, generator=torch.Generator().manual_seed(0)) * 2).requires_grad_()
    upstream = torch.randn(6, 40, generator=torch.Generator().manual_seed(1))
    quantizer = LearnedStepInput(3, low, high).train()
    (quantizer(x) * upstream).sum().backward()
    zero, v = quantizer.zero.item(), x.detach().double().numpy() / quantizer.scale.item()
    least, most = -zero, 7 - zero
    slope = np.where(v <= least, least, np.where(v >= most, most, np.rint(v) - v))
    wanted = (slope * upstream.double().numpy()).sum() / np.sqrt(40 * 7)
    assert quantizer.scale.grad.item() == pytest.approx(wanted, rel=1e-4)  # a sum in single precision
    inside = np.where((v < least) | (v > most), 0, upstream.numpy())
    np.testing.assert_allclose(x.grad.numpy(), inside, rtol=3e-7)


def test_pact_gradients_are_the_papers_and_move_the_clip_as_if_it_were_the_parameter():
    x = (torch.randn(6, 40, generator=torch.Generator().manual_seed(0)) * 2).requires_grad_()
    upstream = torch.randn(6, 40, generator=torch.Generator().manual_seed(1))
    quantizer = LearnedClipInput(4, 0.0, 1.5).train()
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=0.01)
    (quantizer(x) * upstream).sum().backward()
    before = quantizer.scale.item() * 15
    optimizer.step()
    slope = upstream[x.detach() > 1.5].sum().item()  # Choi et al. (2018), equation 3
    assert quantizer.scale.item() * 15 - before == pytest.approx(-0.01 * slope, rel=1e-3)
    assert torch.equal(x.grad, torch.where((x > 1.5) | (x < 0), 0.0, upstream))


def test_a_clip_at_both_ends_by_finite_differences():
    """Beyond the range nothing is rounded in the soft part, so its slope can be measured."""
    x = torch.tensor([[9.0, -7.0, 8.0]])
    quantizer = LearnedClipInput(4, -1.0, 2.0).train()
    quantizer(x).sum().backward()
    reach, ends = 15 - quantizer.zero.item(), []
    for shift in (1e-3, -1e-3):
        moved = LearnedClipInput(4, -1.0, 2.0)
        with torch.no_grad():
            moved.scale += shift
            ends.append(moved.eval()(x).sum().item())
    assert quantizer.scale.grad.item() * reach**2 == pytest.approx((ends[0] - ends[1]) / 2e-3, rel=1e-3)


@pytest.mark.parametrize("kind", [LearnedStepInput, LearnedClipInput])
def test_a_learned_step_below_zero_is_put_right_before_it_is_used(kind):
    quantizer = kind(4, 0.0, 1.0)
    with torch.no_grad():
        quantizer.scale.fill_(-0.5)
    assert quantizer.eval()(torch.rand(20)).isfinite().all()
    assert quantizer.scale > 0


@pytest.mark.parametrize("kind", [LearnedStepInput, LearnedClipInput])
def test_a_learned_step_below_zero_is_its_size_while_it_trains(kind):
    x = torch.linspace(-1, 3, 40).view(4, 10)
    below, above = kind(4, -1.0, 2.0).train(), kind(4, -1.0, 2.0).train()
    with torch.no_grad():
        below.scale.neg_()  # as an optimizer's step may leave it
    assert torch.equal(below(x), above(x))
    for quantizer in (below, above):
        quantizer(x).square().sum().backward()
    assert below.scale.grad == -above.scale.grad != 0  # the slope of |s|
    assert torch.equal(below.eval()(x), above.eval()(x))
    assert below.scale == above.scale > 0


def test_freeze_uses_the_weight_as_it_is_and_still_rounds_the_input():
    layer = quantize_layer(nn.Linear(3, 2), 2).eval()
    layer.input_quantizer = InputQuantizer(2, 0.0, 3.0).eval()
    weight, bias = torch.tensor([[0.123, 1.0, -2.0], [3.0, 0.5, 0.25]]), torch.tensor([1.0, -1.0])
    layer.freeze({"weight": weight, "bias": bias})
    x = torch.tensor([[0.4, 1.6, 9.0]])
    assert torch.equal(layer(x), F.linear(torch.tensor([[0.0, 2.0, 3.0]]), weight, bias))
    with pytest.raises(CompressionError, match="LiveLinear has no codes: its weights are frozen"):
        layer.stored()


def test_freeze_can_add_the_bias_that_a_folded_norm_needs():
    layer = quantize_layer(nn.Conv2d(1, 2, 1, bias=False), 4)
    layer.freeze({"weight": layer.weight, "bias": torch.tensor([1.0, 2.0])})
    assert layer(torch.zeros(1, 1, 1, 1)).flatten().tolist() == [1.0, 2.0]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_the_input_of_a_recurrent_layer_is_rounded_packed_or_not(kind):
    torch.manual_seed(0)
    layer, x = kind(3, 4, batch_first=True), torch.randn(2, 5, 3)
    rounded = InputQuantizer(3, -2.0, 2.0).eval()
    wanted, _ = layer(rounded(x))
    packed, _ = layer(pack_padded_sequence(rounded(x), torch.tensor([5, 3]), batch_first=True))
    layer = quantize_layer(layer, 32)
    layer.input_quantizer = rounded
    assert torch.equal(layer(x)[0], wanted)
    assert torch.equal(layer(pack_padded_sequence(x, torch.tensor([5, 3]), batch_first=True))[0].data, packed.data)
