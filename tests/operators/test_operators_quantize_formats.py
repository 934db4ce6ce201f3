"""Tables, signs and powers against closed forms, enumeration and optimal clustering; laws that all formats obey."""

import copy

import cloudpickle
import numpy as np
import pytest
import torch
from torch import nn

from automc.operators.live_kinds import live
from automc.operators.quantize import quantize_layer
from automc.operators.quantizers import (
    BinaryQuantizer,
    CodebookQuantizer,
    DoReFaQuantizer,
    PowerOfTwoQuantizer,
    TernaryQuantizer,
    kmeans,
)

FORMATS = ["symmetric", "asymmetric", "codebook", "ternary", "power_of_two"]
QATS = ["ste", "lsq", "dorefa", "pact", "incremental"]


def weights(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# k-means


def best_clusters(values, count):
    """The least sum of squared distances of ``count`` clusters on a line: dynamic programming over sorted values."""
    x = np.sort(np.asarray(values, float))
    s, q = np.concatenate([[0], np.cumsum(x)]), np.concatenate([[0], np.cumsum(x**2)])
    least = np.full(len(x) + 1, np.inf)
    least[0] = 0
    for _ in range(count):
        least = np.array(
            [0.0]
            + [
                min(least[i] + q[j] - q[i] - (s[j] - s[i]) ** 2 / (j - i) for i in range(j))
                for j in range(1, len(x) + 1)
            ]
        )
    return least[-1]


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_kmeans_against_optimal_clusters(bits):
    for seed in range(6):
        values = weights(60, seed=seed)
        centres = kmeans(values, 2**bits)
        found = (values[:, None] - centres).abs().amin(1).double().square().sum().item()
        assert found == pytest.approx(best_clusters(values, 2**bits), rel=1e-4)  # centres in single precision


def test_kmeans_of_many_values_is_close_to_optimal_clusters():
    values = weights(600)
    centres = kmeans(values, 5)
    found = (values[:, None] - centres).abs().amin(1).double().square().sum().item()
    best = best_clusters(values, 5)
    assert best * (1 - 1e-5) < found < best * 1.001


def test_kmeans_of_few_values_is_exact_and_ascending():
    assert kmeans(torch.tensor([3.0, -1.0, 3.0]), 4).tolist() == [-1.0, 3.0]
    assert kmeans(torch.empty(0), 4).tolist() == [0.0]
    centres = kmeans(weights(500), 16)
    assert (centres.diff() > 0).all()
    assert len(centres) == 16


def test_a_codebook_shares_values_and_is_fitted_to_kept_weights():
    weight, mask = weights(5, 30), weights(5, 30, seed=1) > -0.5
    weight[~mask] = 0
    quantizer = CodebookQuantizer(weight, 3, mask, per_channel=False).eval()
    used = quantizer(weight, mask)[mask]
    assert len(used.unique()) <= 8
    assert torch.equal(quantizer.anchors, kmeans(weight[mask], 8))
    stored = quantizer.stored(weight)
    assert stored.scale is None
    # Each entry is the mean of its weights, as it is where Lloyd's algorithm stops.
    codes = torch.from_numpy(stored.codes)[mask].long()
    for code, level in enumerate(stored.levels):
        assert level == pytest.approx(weight[mask][codes == code].mean().item(), rel=1e-5)


@pytest.mark.parametrize("per_channel", [True, False])
def test_codebook_gradients_are_sums_over_the_weights_of_an_entry(per_channel):
    weight, upstream = weights(5, 30).requires_grad_(), weights(5, 30, seed=1)
    quantizer = CodebookQuantizer(weight, 2, None, per_channel).train()
    (quantizer(weight) * upstream).sum().backward()
    stored = quantizer.stored(weight)
    rate = np.ones((5, 1)) if stored.scale is None else stored.scale[:, None]
    sums = [(upstream.numpy() * rate)[stored.codes == code].sum() for code in range(4)]
    np.testing.assert_allclose(quantizer.levels.grad.numpy(), np.array(sums) * 4 / 150, rtol=1e-4, atol=1e-6)
    assert weight.grad is None


def test_a_codebook_gradient_by_finite_differences():
    weight, upstream = weights(3, 8), weights(3, 8, seed=1)
    quantizer = CodebookQuantizer(weight, 2, None, per_channel=False).train()
    (quantizer(weight) * upstream).sum().backward()
    slopes = []
    for code in range(4):
        ends = []
        for shift in (0.01, -0.01):
            moved = copy.deepcopy(quantizer)
            with torch.no_grad():
                moved.levels[code] += shift
                ends.append((moved(weight) * upstream).sum().item())
        slopes.append((ends[0] - ends[1]) / 0.02)
    # Linear in the entries: exact but for single precision; 4 entries on 24 weights scale the gradient.
    np.testing.assert_allclose(quantizer.levels.grad.numpy() * 24 / 4, slopes, rtol=1e-3, atol=1e-4)


# Closed forms


@pytest.mark.parametrize("axis", [None, 1])
def test_binary_is_the_sign_times_the_mean_size(axis):
    weight = weights(4, 30)
    weight[0, 0] = 0.0
    w = weight.numpy()
    wanted = np.where(w < 0, -1, 1) * np.abs(w).mean(axis=axis, keepdims=True)
    np.testing.assert_allclose(BinaryQuantizer(axis == 1).eval()(weight).numpy(), wanted, rtol=1e-6)
    mask = weights(4, 30, seed=1) > 0
    kept = BinaryQuantizer(True).scale(torch.where(mask, weight, 0.0), mask)
    np.testing.assert_allclose(kept.numpy(), [np.abs(w[r][mask[r].numpy()]).mean() for r in range(4)], rtol=1e-6)


def test_one_bit_of_a_normal_distribution_loses_what_max_says():
    weight = weights(16, 5000)
    error = (BinaryQuantizer(True).eval()(weight) - weight).square().mean().item()
    assert error == pytest.approx(1 - 2 / np.pi, rel=0.01)  # Max 1960; 80,000 draws


@pytest.mark.parametrize("axis", [None, 1])
def test_ternary_is_the_papers_threshold_and_scale(axis):
    w = weights(4, 30).numpy()
    threshold = 0.7 * np.abs(w).mean(axis=axis, keepdims=True)
    above = np.abs(w) > threshold
    scale = (np.abs(w) * above).sum(axis=axis, keepdims=True) / above.sum(axis=axis, keepdims=True)
    quantizer = TernaryQuantizer(axis == 1).eval()
    np.testing.assert_allclose(quantizer(torch.from_numpy(w)).numpy(), np.sign(w) * above * scale, rtol=1e-5)
    again = quantizer(quantizer(torch.from_numpy(w)))
    torch.testing.assert_close(again, quantizer(torch.from_numpy(w)), rtol=1e-6, atol=0)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("rule", ["minmax", "mse"])
def test_powers_of_two_by_enumeration(bits, rule):
    weight = weights(4, 30, seed=bits)
    used = PowerOfTwoQuantizer(weight, bits, None, True, rule).eval()(weight).numpy()
    powers = min(2 ** (bits - 1) - 1, 31)
    for row, got in zip(weight.numpy().astype(float), used, strict=True):
        first = int(np.floor(np.log2(4 / 3 * np.abs(row).max())))
        tables = [
            np.array([0.0, *(s * 2.0 ** (n - i) for i in range(powers) for s in (-1, 1))])
            for n in range(first, first - (3 if rule == "mse" else 1), -1)
        ]
        rounded = [table[np.abs(row[:, None] - table).argmin(axis=1)] for table in tables]
        best = min(((value - row) ** 2).sum() for value in rounded)
        assert ((got - row) ** 2).sum() == pytest.approx(best, rel=1e-5)
        nonzero = np.abs(got[got != 0])
        assert np.array_equal(np.log2(nonzero), np.rint(np.log2(nonzero)))


@pytest.mark.parametrize("per_channel", [True, False])
def test_dorefa_is_the_papers_formula_times_a_least_squares_scale(per_channel):
    w = weights(4, 30).numpy().astype(float)
    axis = 1 if per_channel else None
    t = np.tanh(w)
    grid = 2 * np.rint((t / (2 * np.abs(t).max(axis=axis, keepdims=True)) + 0.5) * 7) / 7 - 1
    scale = (grid * w).sum(axis=axis, keepdims=True) / (grid**2).sum(axis=axis, keepdims=True)
    got = DoReFaQuantizer(3, per_channel).eval()(torch.from_numpy(w).float())
    np.testing.assert_allclose(got.numpy(), grid * scale, rtol=1e-5, atol=1e-6)


def test_dorefa_gradients_are_those_of_tanh_over_max():
    weight = weights(2, 9).double().requires_grad_()
    quantizer = DoReFaQuantizer(3, True).double().train()
    upstream = weights(2, 9, seed=1).double()
    (quantizer(weight) * upstream).sum().backward()
    scale = quantizer.scale(weight)[:, None]
    numeric = torch.zeros(2, 9, dtype=torch.double)
    for place in np.ndindex(2, 9):
        ends = []
        for shift in (1e-6, -1e-6):
            moved = weight.detach().clone()
            moved[place] += shift
            soft = torch.tanh(moved) / torch.tanh(moved).abs().amax(1, keepdim=True)
            ends.append((soft * scale * upstream).sum())
        numeric[place] = (ends[0] - ends[1]) / 2e-6
    torch.testing.assert_close(weight.grad, numeric, rtol=1e-6, atol=1e-7)  # central differences in double precision


# What all formats have in common

LAYERS = {
    "conv1d": lambda: (nn.Conv1d(4, 6, 3, padding=1), (4, 9)),
    "conv2d": lambda: (nn.Conv2d(4, 6, 3, stride=2, padding=1, padding_mode="reflect"), (4, 8, 8)),
    "conv3d": lambda: (nn.Conv3d(2, 4, 2, bias=False), (2, 4, 4, 4)),
    "depthwise": lambda: (nn.Conv2d(6, 6, 3, groups=6), (6, 8, 8)),
    "transposed1d": lambda: (nn.ConvTranspose1d(4, 6, 3, stride=2), (4, 9)),
    "transposed2d": lambda: (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), (4, 5, 5)),
    "transposed3d": lambda: (nn.ConvTranspose3d(2, 3, 2, bias=False), (2, 3, 3, 3)),
    "linear": lambda: (nn.Linear(7, 5), (3, 7)),
    "lstm": lambda: (nn.LSTM(5, 4, num_layers=2, bidirectional=True, batch_first=True), (6, 5)),
    "gru": lambda: (nn.GRU(5, 4, batch_first=True), (6, 5)),
}


def output(layer, x):
    made = layer(x)
    return made[0] if isinstance(made, tuple) else made


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_what_is_stored_is_what_is_used_to_the_last_bit(name, form, bits):
    for qat in QATS:
        for granularity in ("channel", "tensor"):
            torch.manual_seed(bits)
            layer, shape = LAYERS[name]()
            plain, x = copy.deepcopy(layer).eval(), torch.randn(2, *shape)
            layer = quantize_layer(layer, bits, weight_format=form, qat=qat, granularity=granularity).eval()
            for own, stored in layer.stored().items():
                assert stored.bits == (2 if form == "ternary" and bits == 2 else bits)
                _check_codes(stored, bits)
                used = layer.used(own).detach()
                assert stored.dense().tobytes() == used.contiguous().numpy().tobytes()
                setattr(plain, own, nn.Parameter(torch.from_numpy(stored.dense())))
            # Recurrent kernels add in another order where the weights lie elsewhere in memory.
            torch.testing.assert_close(output(layer, x), output(plain, x), rtol=0, atol=1e-6 * (name == "gru"))
            assert torch.equal(output(copy.deepcopy(layer), x), output(layer, x))


def _check_codes(stored, bits):
    if stored.levels is not None or stored.zero is not None:
        assert stored.codes.min() >= 0
        assert stored.codes.max() < 2**bits
        assert stored.levels is None or len(stored.levels) <= 2**bits
    else:
        assert np.abs(stored.codes).max() <= max(2 ** (bits - 1) - 1, 1)
    assert bits > 1 or set(np.unique(stored.codes)) <= {-1, 1}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("qat", QATS)
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_training_moves_it_masks_hold_and_copies_agree(form, qat, bits):
    torch.manual_seed(0)
    layer = live(nn.Linear(12, 8))
    mask = torch.rand(8, 12) > 0.4
    layer.ways["weight"].mask = mask
    layer = quantize_layer(layer, bits, weight_format=form, qat=qat).train()
    x, goal = torch.randn(64, 12), torch.randn(64, 8)
    before = output(layer.eval(), x).detach()
    optimizer = torch.optim.SGD(layer.train().parameters(), lr=0.05)
    for step in range(8):
        layer.advance(step / 8)
        optimizer.zero_grad()
        (layer(x) - goal).square().mean().backward()
        optimizer.step()
    layer.eval()
    assert not torch.equal(output(layer, x), before)
    used = layer.used("weight")
    assert (used[~mask] == 0).all()
    stored = layer.stored()["weight"]
    assert stored.dense().tobytes() == used.detach().numpy().tobytes()
    assert np.array_equal(stored.mask, mask.numpy())
    twin = cloudpickle.loads(cloudpickle.dumps(layer))
    assert torch.equal(twin(x), layer(x))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("qat", ["ste", "lsq", "dorefa", "incremental"])
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_it_follows_a_weight_that_loses_channels(form, qat, granularity):
    """A scale that stays gives the same codes for the channels that are left; a live one follows what is left."""
    torch.manual_seed(0)
    layer = quantize_layer(
        nn.Linear(6, 8), 2 if form == "ternary" else 3, weight_format=form, qat=qat, granularity=granularity
    )
    layer.advance(0.3)
    layer.eval()
    before = layer.used("weight").detach()
    keep = torch.tensor([0, 2, 3, 7])
    layer.weight = nn.Parameter(layer.weight.detach()[keep])
    layer.bias = nn.Parameter(layer.bias.detach()[keep])
    layer.select("weight", 0, lambda tensor: tensor.index_select(0, keep))
    after = layer.used("weight").detach()
    if granularity == "channel" or qat in ("lsq", "incremental") or form == "codebook":
        exact = granularity == "channel" or form == "codebook" or qat == "incremental" or form in FORMATS[:2]
        assert not exact or torch.equal(after, before[keep])
    layer.weight = nn.Parameter(layer.weight.detach()[:, :5])
    layer.select("weight", 1, lambda tensor: tensor[:, :5])
    assert layer.used("weight").shape == (4, 5)
    assert layer.stored()["weight"].dense().tobytes() == layer.used("weight").detach().numpy().tobytes()


def test_incremental_fixes_the_largest_first_and_they_stay():
    torch.manual_seed(0)
    layer = quantize_layer(nn.Linear(20, 10), 4, weight_format="power_of_two", qat="incremental").train()
    quantizer = layer.ways["weight"].quantizer
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    shares, held = [], {}
    for step in range(12):
        sizes, fixed = layer.weight.detach().abs(), quantizer.fixed.clone()
        layer.advance(step / 12)
        new = quantizer.fixed & ~fixed
        if new.any() and (~quantizer.fixed).any():
            assert sizes[new].min() >= sizes[~quantizer.fixed].max()
        shares.append(quantizer.fixed.float().mean().item())
        used = layer.used("weight").detach()
        for place in quantizer.fixed.nonzero().tolist():
            assert held.setdefault(tuple(place), used[tuple(place)].item()) == used[tuple(place)].item()
        optimizer.zero_grad()
        layer(torch.randn(16, 20)).square().mean().backward()
        assert (layer.weight.grad[quantizer.fixed] == 0).all()
        optimizer.step()
    assert shares[0::3] == [0.5, 0.75, 0.875, 1.0]
    layer.eval()
    final = layer.used("weight")
    assert all(final[place].item() == value for place, value in held.items())
