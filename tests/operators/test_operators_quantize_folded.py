"""One scale for a whole weight is that of the folded weight: codes as numpy finds them, one scale in the file."""

import numpy as np
import pytest
import torch
from nets import make
from torch import nn

from automc.core.policy import Policy, Site
from automc.core.stored import Stored
from automc.export import packed
from automc.export.baking.bake import fold
from automc.operators.base import Compression, compress
from automc.operators.layers import trace
from automc.operators.live import LiveLayer, advance
from automc.operators.quantizers import AffineQuantizer, rows
from automc.operators.recalibrate import recalibrate


def state_of(net="resnet_b"):
    torch.manual_seed(5)
    model, inputs = make(net)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.1, 9.0)
            module.running_mean.normal_()
            nn.init.normal_(module.weight)  # of both signs
    model.bn1.weight.data[1] = 0.0  # a channel that the norm switches off
    return Compression(model, model, trace(model, inputs), torch.randn(64, *inputs.shape[1:]))


def policy(state, **settings):
    names = [layer.name for layer in state.trace.table.layers]
    return Policy({Site("quantize", name, key): value for name in names for key, value in settings.items()})


def folded(layer, norm):
    """The convolution's weight with the batch norm taken in, float64, in numpy."""
    weight, gamma, variance = (t.detach().double().numpy() for t in (layer.weight, norm.weight, norm.running_var))
    return weight * (gamma / np.sqrt(variance + norm.eps))[:, None, None, None]


def reference(weight, bits):
    """Symmetric codes with one scale, by least squared error over a fine grid of scales."""
    top = 2 ** (bits - 1) - 1
    scales = np.linspace(0.2, 1.0, 401) * np.abs(weight).max() / top
    errors = [((np.clip(np.rint(weight / s), -top, top) * s - weight) ** 2).sum() for s in scales]
    return min(errors), top


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_codes_are_those_of_the_folded_weight_with_one_scale(bits):
    state = state_of()
    after = compress(state, policy(state, weight_bits=bits, granularity="tensor"), ("quantize",))
    _, stored = packed.read(packed.dumps(after.model, state.calibration[:2]))
    for layer, norm in (("conv1", "bn1"), ("layer2.0.conv2", "layer2.0.bn2"), ("layer1.1.conv1", "layer1.1.bn1")):
        weight = folded(state.model.get_submodule(layer), state.model.get_submodule(norm))
        own = stored[f"{layer}.weight"]
        assert len(np.unique(own.scale)) == 1
        assert own.scale[0] > 0
        least, top = reference(weight, bits)
        exact = weight / float(own.scale[0])
        wanted = np.clip(np.rint(exact), -top, top)
        ties = np.abs(np.abs(exact - np.trunc(exact)) - 0.5) < 1e-4  # single precision may round these the other way
        assert (own.codes == wanted)[~ties].all()
        assert ((own.dense() - weight) ** 2).sum() <= 1.1 * least  # the quantizer tries 17 of the 401 scales


FORMATS = [("symmetric", 4), ("asymmetric", 4), ("codebook", 3), ("power_of_two", 4), ("ternary", 2), ("symmetric", 1)]


@pytest.mark.parametrize("qat", ["ste", "lsq", "dorefa", "incremental"])
@pytest.mark.parametrize(("form", "bits"), FORMATS)
def test_whatever_the_format_the_file_has_one_scale_and_the_same_outputs(form, bits, qat, monkeypatch):
    monkeypatch.setattr(rows, "LEAP", float("inf"))  # a random network's norms leap, and rows that do keep own scales
    state = state_of()
    chosen = policy(state, weight_bits=bits, granularity="tensor", weight_format=form, qat=qat)
    after = compress(state, chosen, ("quantize",))
    recalibrate(after.model, state.calibration)
    live = [module for module in after.model.modules() if isinstance(module, LiveLayer)]
    for layer in live:
        dense = layer.stored()["weight"].dense()
        assert dense.tobytes() == layer.used("weight").detach().contiguous().numpy().tobytes()
    baked = fold(after.model, state.calibration[:2])
    assert not any(isinstance(module, nn.BatchNorm2d) for module in baked.model.modules())
    zero = form in ("symmetric", "asymmetric", "power_of_two", "ternary") and qat != "dorefa" and bits > 1
    for name, stored in baked.stored.items():
        scales = np.unique(stored.scale) if stored.scale is not None else np.ones(1)
        # A format without a zero keeps a scale of 0 for the row that the norm switches off.
        assert len(scales if zero or name != "conv1.weight" else scales[scales != 0]) == 1
    with torch.no_grad():
        wanted = after.model(state.calibration)
        difference = (baked.model(state.calibration) - wanted).abs().max()
    assert difference <= 1e-4 * wanted.abs().max()  # bake.TOLERANCE


def test_the_file_is_smaller_by_the_scales_of_the_rows():
    state = state_of()
    size = {}
    for granularity in ("channel", "tensor"):
        after = compress(state, policy(state, weight_bits=4, granularity=granularity), ("quantize",))
        _, stored = packed.read(data := packed.dumps(after.model, state.calibration[:2]))
        codes = [codes_bytes(weight.codes) for weight in stored.values()]
        size[granularity] = len(data) - sum(codes)
    count = sum(len(weight.scale) for weight in stored.values())
    # Three bytes and a coded exponent for each scale; tables of frequencies, their notes and padding make the rest.
    assert 3 * count <= size["channel"] - size["tensor"] <= 4 * count + 24 * len(stored)


def codes_bytes(codes):
    """What the codes take about: their entropy, or their bits where there are few."""
    _, counts = np.unique(codes, return_counts=True)
    entropy = float(-(counts * np.log2(counts / codes.size)).sum()) / 8
    return min(entropy + 1.2 * 16 + 16, codes.size / 2)


def test_weights_follow_their_norm_through_recalibration_and_training():
    state = state_of()
    after = compress(state, policy(state, weight_bits=4, granularity="tensor"), ("quantize",))
    layer, norm = after.model.conv1, after.model.bn1
    before = layer.ways["weight"].quantizer.factor.clone()
    recalibrate(after.model, 2 * state.calibration)
    for _ in range(2):
        factor = (norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)).abs().float().detach()
        assert torch.equal(layer.ways["weight"].quantizer.factor, factor)
        assert not torch.equal(before, factor)
        before = factor
        after.model.train()(state.calibration * 3)
        after.model.eval()
        advance(after.model, 0.5)


def test_gradients_pass_to_weights_and_learned_steps():
    state = state_of()
    chosen = policy(state, weight_bits=4, granularity="tensor", qat="lsq")
    model = compress(state, chosen, ("quantize",)).model.train()
    layer = model.layer1[0].conv1
    quantizer, weight = layer.ways["weight"].quantizer, layer.weight
    upstream = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    (layer.used("weight") * upstream).sum().backward()
    factor = quantizer.factor.view(-1, 1, 1, 1)
    step = quantizer.held.detach().abs()
    exact = (weight.detach() * factor / step).double()
    inside = exact.abs() < 7
    torch.testing.assert_close(weight.grad, torch.where(inside, upstream, 0.0), rtol=1e-4, atol=1e-5)
    slope = torch.where(inside, torch.round(exact) - exact, torch.sign(exact) * 7) / factor
    wanted = (slope * upstream).sum() / np.sqrt(weight.numel() * 7)
    assert quantizer.held.grad.item() == pytest.approx(wanted.item(), rel=1e-3)


def test_pruned_rows_take_their_share_of_the_norm_along():
    state = state_of()
    after = compress(state, policy(state, weight_bits=4, granularity="tensor"), ("quantize",))
    cut = {Site("prune", group.name, "prune_ratio"): 0.5 for group in state.trace.table.groups}
    both = Policy({**cut, **policy(state, weight_bits=4, granularity="tensor")})
    pruned = compress(state, both, ("quantize", "prune")).model
    wide, narrow = (model.layer2[0].conv1.ways["weight"].quantizer.factor for model in (after.model, pruned))
    assert len(narrow) == pruned.layer2[0].conv1.out_channels < len(wide)
    assert np.isin(narrow.numpy(), wide.numpy()).all()
    assert pruned(state.calibration).isfinite().all()


def test_without_a_norm_behind_it_a_weight_is_its_own():
    state = state_of()
    after = compress(state, policy(state, weight_bits=4, granularity="tensor"), ("quantize",))
    last = [module for module in after.model.modules() if isinstance(module, LiveLayer)][-1]
    assert isinstance(last, nn.Linear)
    assert last.norm == ""
    assert last.ways["weight"].quantizer.factor is None
    whole = compress(state, policy(state, weight_bits=4), ("quantize",))
    assert all(not module.norm for module in whole.model.modules() if isinstance(module, LiveLayer))


def test_scales_become_one_only_where_that_changes_nothing_but_rounding():
    codes = np.array([[1, -2], [0, 0], [3, 1]], np.int16)
    one = np.float32(0.1)
    near = Stored(4, codes, np.array([one, 0.5, np.nextafter(one, np.float32(1))], np.float32))
    assert np.unique(near.scaled(np.array([1.0, 0.0, -1.0])).scale).tolist() == [one]
    assert near.scaled(np.array([1.0, 0.0, -1.0])).codes[2].tolist() == [-3, -1]
    far = Stored(4, codes, np.array([0.1, 0.1, 0.1001], np.float32))
    assert len(np.unique(far.scaled(np.ones(3)).scale)) == 2
    binary = Stored(1, np.array([[1, -1], [1, 1]], np.int16), np.array([0.5, 0.5], np.float32))
    assert binary.scaled(np.array([1.0, 0.0])).dense()[1].tolist() == [0.0, 0.0]


def test_a_row_whose_factor_leaps_keeps_the_old_one():
    """Rounded to nothing it has no variance, and 1 / sqrt(eps) would be a factor of hundreds."""
    quantizer = AffineQuantizer(torch.randn(3, 8), 4, None, symmetric=True, per_channel=False, rule="mse")
    quantizer.factor = torch.tensor([1.0, 2.0, 0.5])
    quantizer.fold(torch.tensor([1.5, 2.0 * rows.LEAP * 1.01, 0.5 / (rows.LEAP * 1.01)]))
    assert quantizer.factor.tolist() == [1.5, 2.0, 0.5]
