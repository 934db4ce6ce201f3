"""The operator: what it does to a network, in any order with others, and what combinations of settings mean."""

import copy
from dataclasses import replace
from functools import cache

import cloudpickle
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import make
from torch import nn

from automc.core.policy import Policy, Site
from automc.errors import CompressionError
from automc.operators.base import Compression, compress
from automc.operators.factorized import Factorized
from automc.operators.layers import trace
from automc.operators.live import LiveLayer
from automc.operators.offers.quantize import QUANTIZE
from automc.operators.quantize import quantize, quantize_layer
from automc.operators.quantizers import InputQuantizer
from automc.operators.quantizers.choose import Choice
from automc.operators.recalibrate import recalibrate

NEUTRAL = {name: setting.neutral for name, setting in QUANTIZE.settings.items()}


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
    found = {n: (m.weight_bits, m.activation_bits) for n, m in after.model.named_modules() if isinstance(m, LiveLayer)}
    assert found == {"expand.0": (4, 8), "depth.0": (3, 32), "project.0": (32, 5)}
    assert after.realized["expand.0"] == {"weight_bits": 4, "activation_bits": 8}
    assert after.realized["head"] == {"weight_bits": 32, "activation_bits": 32}
    assert after.model.project[0].stored() == {}
    assert not any(isinstance(m, LiveLayer) for m in state.model.modules())


def test_eight_bits_everywhere_change_little_and_two_bits_much():
    state = state_of("resnet_b")
    x = state.calibration
    names = [layer.name for layer in state.trace.table.layers]
    base, gaps = state.model(x).detach(), {}
    for bits in (8, 4, 2):
        after = compress(state, policy(**{n.replace(".", "__"): (bits, bits) for n in names}), ("quantize",))
        gaps[bits] = ((after.model(x).detach() - base).norm() / base.norm()).item()
    assert 5 * gaps[8] < gaps[4] < gaps[2]


def test_observed_ranges_are_those_of_the_pruned_recalibrated_network():
    state = replace(state_of("conv_bn_relu"), ranges="observed")
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
    stored = after.model.layer2[0].conv1.stored()["weight"]
    assert (stored.codes.shape, stored.scale.shape) == ((8, 4, 3, 3), (8,))
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
    with pytest.raises(CompressionError, match="a Bilinear has no live kind"):
        quantize_layer(nn.Bilinear(1, 1, 1), 8)


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


# What combinations mean

MEANT = [
    (nn.Conv2d, {"weight_bits": 1, "weight_format": "codebook"}, {"weight_format": "binary"}),
    (nn.Linear, {"weight_bits": 3, "weight_format": "ternary"}, {"weight_format": "symmetric"}),
    (nn.Linear, {"weight_bits": 2, "weight_format": "ternary"}, {}),
    (nn.ConvTranspose2d, {"weight_bits": 4, "rounding": "adaptive"}, {"granularity": "tensor", "rounding": "nearest"}),
    (nn.LSTM, {"weight_bits": 4, "rounding": "adaptive"}, {"rounding": "nearest"}),
    (nn.Linear, {"weight_bits": 4, "rounding": "adaptive", "qat": "dorefa"}, {"rounding": "nearest"}),
    (nn.Linear, {"weight_bits": 4, "rounding": "adaptive", "qat": "lsq"}, {}),
    (nn.Linear, {"weight_bits": 4, "qat": "pact"}, {"qat": "ste"}),
    (nn.Linear, {"weight_bits": 4, "activation_bits": 4, "qat": "pact"}, {}),
    (nn.Linear, {"weight_bits": 4, "weight_format": "codebook", "qat": "lsq"}, {"qat": "ste"}),
    (nn.Linear, {"activation_bits": 4, "qat": "incremental"}, {"qat": "ste"}),
]


@pytest.mark.parametrize(("kind", "asked", "differs"), MEANT)
def test_ill_matched_settings_mean_the_nearest_that_fit(kind, asked, differs):
    choice = Choice.of({**NEUTRAL, **asked})
    assert choice.differences(choice.meant(kind)) == differs


def test_what_was_done_instead_is_told():
    state = state_of("plain")
    values = {Site("quantize", "a", "weight_bits"): 4, Site("quantize", "a", "weight_format"): "ternary"}
    after = compress(state, Policy(values), ("quantize",))
    assert after.realized["a"] == {"weight_bits": 4, "activation_bits": 32, "weight_format": "symmetric"}


@cache
def plain_state():
    state = state_of("plain")
    return Compression(state.model, state.model, state.trace, state.calibration[:8])


LEGAL = st.fixed_dictionaries(
    {name: st.sampled_from(setting.legal.options) for name, setting in QUANTIZE.settings.items()}
)


@settings(max_examples=12, deadline=None)
@given(LEGAL, LEGAL)
def test_no_legal_combination_fails(first, second):
    state = plain_state()
    names = [layer.name for layer in state.trace.table.layers]
    chosen = zip(names, (first, second, first), strict=True)
    policy = Policy({Site("quantize", n, key): value for n, values in chosen for key, value in values.items()})
    after = compress(state, policy, ("quantize",))
    x = state.calibration
    assert after.model(x).isfinite().all()
    layers = [module for module in after.model.modules() if isinstance(module, LiveLayer)]
    for layer in layers:
        layer.train().advance(0.5)
    after.model(x).square().sum().backward()
    for layer in layers:
        layer.eval()
        for own, stored in layer.stored().items():
            assert stored.dense().tobytes() == layer.used(own).detach().contiguous().numpy().tobytes()
    twin = cloudpickle.loads(cloudpickle.dumps(after.model))
    assert torch.equal(twin(x), after.model(x))


# Parts, and what is remembered


def test_all_parts_of_a_factorized_layer_are_quantized_inside_too():
    state = state_of("plain")
    model = copy.deepcopy(state.model)
    torch.manual_seed(0)
    model.b = Factorized(nn.Conv2d(8, 3, 3, stride=2, bias=False), nn.Conv2d(3, 12, 1))
    state = Compression(model, state.teacher, state.trace, state.calibration)
    chosen = {**NEUTRAL, "weight_bits": 4, "activation_bits": 5, "weight_format": "asymmetric"}
    after = quantize(state, {"b": chosen})
    for part in after.model.b:
        assert (part.weight_bits, part.activation_bits) == (4, 5)
        assert part.stored()["weight"].zero is not None
    inner = after.model.b[1].input_quantizer
    seen = []
    after.model.b[1].register_forward_pre_hook(lambda module, args: seen.append(inner(args[0])))
    after.model(state.calibration)
    assert len(seen[0].unique()) <= 32
    assert after.realized["b"] == {"weight_bits": 4, "activation_bits": 5}


def test_the_original_weights_are_fitted_once_and_pruned_ones_anew():
    state = state_of("resnet_b")
    bits = {layer.name.replace(".", "__"): (4, 32) for layer in state.trace.table.layers}
    first = compress(state, policy(**bits), ("quantize",)).model
    kept = dict(state.memory)
    assert len(kept) == len(bits) + 1  # and how many bytes they take
    second = compress(state, policy(**bits), ("quantize",)).model
    assert all(state.memory[key] is kept[key] for key in kept)
    x = state.calibration
    assert torch.equal(first(x), second(x))
    for module in second.modules():  # what a trial does to its quantizers stays in the trial
        if hasattr(module, "clip"):
            module.clip.fill_(0.01)
    assert torch.equal(compress(state, policy(**bits), ("quantize",)).model(x), first(x))
    cut = {Site("prune", group.name, "prune_ratio"): 0.5 for group in state.trace.table.groups}
    both = Policy({**cut, **policy(**bits)})
    fresh = Compression(state.model, state.model, state.trace, state.calibration)
    pruned = [compress(s, both, ("prune", "quantize")).model(x) for s in (state, fresh)]
    assert torch.equal(*pruned)
