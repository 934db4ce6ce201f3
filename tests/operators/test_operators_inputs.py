"""Ranges of layer inputs from what is known of the original network: once, of the kept channels, where it is sound."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import make
from torch import nn

from automc.core.policy import Policy, Site
from automc.operators.base import Compression, compress
from automc.operators.inputs import Seen, observed_inputs, original_inputs, unchanged_inputs
from automc.operators.layers import trace
from automc.operators.live import LiveLayer
from automc.operators.quantizers import InputQuantizer
from automc.operators.recalibrate import recalibrate

RULES = ("mse", "minmax", "percentile", "kl")


def state_of(net, count=96):
    torch.manual_seed(3)
    model, inputs = make(net)
    return Compression(model, model, trace(model, inputs), torch.randn(count, *inputs.shape[1:]))


def policy(state, bits=8, ratio=0.0, **settings):
    values = {Site("quantize", layer.name, "activation_bits"): bits for layer in state.trace.table.layers}
    for name, value in settings.items():
        values |= {Site("quantize", layer.name, name): value for layer in state.trace.table.layers}
    if ratio:
        values |= {Site("prune", group.name, "prune_ratio"): ratio for group in state.trace.table.groups}
    return Policy(values)


def pruning(state):
    return Policy({site: value for site, value in policy(state, 8, 0.5).items() if site.operator == "prune"})


def passes(model):
    """How many inputs ran through it, counted from now on."""
    counted = []
    model.register_forward_pre_hook(lambda module, args: counted.append(len(args[0])))
    return counted


def read(model, name, x):
    """What a layer of the network reads, shape (channels, values), without any code of the operators."""
    seen = []
    hook = model.get_submodule(name).register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        model(x)
    hook.remove()
    values = seen[0]
    return values.movedim(1 if values.dim() == 4 else -1, 0).flatten(1)


@pytest.mark.parametrize("net", ["resnet_b", "inverted"])
def test_one_pass_of_the_original_serves_all_layers_and_policies(net):
    state = state_of(net)
    counted = passes(state.model)
    seen = original_inputs(state)
    assert sum(counted) == 96
    for bits, ratio, rule in ((8, 0.5, "mse"), (4, 0.25, "kl"), (3, 0.0, "percentile")):
        compress(state, policy(state, bits, ratio, activation_range=rule), ("prune", "quantize"))
    trials = [n for n in counted[2:] if n != 1]  # each trial tries its network on one input
    assert not trials
    for name, own in seen.items():
        values = read(state.model, name, state.calibration)
        assert torch.equal(own.low, values.amin(1))
        assert torch.equal(own.high, values.amax(1))
        for channel in range(len(values)):
            assert np.isin(own.sample[channel].numpy(), values[channel].numpy()).all()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("net", ["resnet_b", "inverted"])
def test_a_pruned_layers_range_is_that_of_the_originals_kept_channels(net, rule):
    """Against a network that reads only these channels: its inputs, observed, and the rule applied to them."""
    state = state_of(net)
    after = compress(state, policy(state, 5, 0.5, activation_range=rule), ("prune", "quantize"))
    narrowed = 0
    for layer in state.trace.table.layers:
        own, module = read(state.model, layer.name, state.calibration), after.model.get_submodule(layer.name)
        width = module.in_features if isinstance(module, nn.Linear) else module.in_channels
        kept = kept_channels(state, after, layer.name)
        assert len(kept) == width
        narrowed += width < len(own)
        low, high = own[kept].min().item(), own[kept].max().item()
        quantizer = module.input_quantizer
        if rule == "minmax":
            wanted = InputQuantizer(5, min(low, 0.0), max(high, 0.0))
            assert torch.equal(quantizer.scale, wanted.scale)
            assert torch.equal(quantizer.zero, wanted.zero)
        sample = original_inputs(state)[layer.name].sample[kept].flatten()
        assert torch.equal(quantizer.scale, InputQuantizer.fit(5, sample, low, high, rule).scale)
        if rule == "mse":  # nearly the least error on all values; how many of the few large ones a sample has is luck
            tried = [InputQuantizer(5, share * min(low, 0.0), share * high) for share in np.geomspace(0.05, 1, 40)]
            errors = [((each.eval()(own[kept]) - own[kept]) ** 2).sum() for each in tried]
            assert ((quantizer(own[kept]) - own[kept]) ** 2).sum() <= 1.5 * min(errors)
    assert narrowed


def kept_channels(state, after, name):
    """Found by matching numbers: which input channels of the original's weight (or which filters) are left."""
    gone = {c for group, channels in after.removed.items() for c in _places(state, group, channels, name)}
    module = state.model.get_submodule(name)
    width = module.in_features if isinstance(module, nn.Linear) else module.in_channels
    return [c for c in range(width) if c not in gone]


def _places(state, group, channels, name):
    cuts = [cut for cut in state.trace.plans[group].cuts if cut.module == name and cut.role in ("in", "depthwise")]
    return [place for cut in cuts for channel in channels for place in cut.index[channel]]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.booleans(), min_size=6, max_size=6).filter(any), st.integers(0, 1000))
def test_of_some_channels_is_what_would_have_been_seen_of_them_alone(chosen, seed):
    values = torch.randn(6, 50, generator=torch.Generator().manual_seed(seed))
    keep = [i for i, wanted in enumerate(chosen) if wanted]
    part = Seen(values.amin(1), values.amax(1), values).of(keep)
    assert part.low.min() == values[keep].min()
    assert part.high.max() == values[keep].max()
    assert torch.equal(part.sample, values[keep])


def test_what_is_seen_is_bounded_and_exact_for_few_positions():
    state = state_of("resnet_b")
    seen = original_inputs(state)
    for own in seen.values():
        assert own.sample.numel() <= max(2**15, 64 * len(own.low)) + 2 * 64 * len(own.low)
    name = state.trace.table.layers[-1].name  # a linear layer reads each input at one position
    values = read(state.model, name, state.calibration)
    assert torch.equal(seen[name].sample.sort(1).values, values.sort(1).values)


def test_observing_sees_the_original_as_the_memory_has_it():
    state = state_of("resnet_b")
    found, stale = observed_inputs(state, ["conv1", "layer2.0.conv2"])
    assert not stale
    for name, own in found.items():
        for field in ("low", "high", "sample"):
            assert torch.equal(getattr(own, field), getattr(original_inputs(state)[name], field))


# Where it is not sound


def test_layers_behind_a_dropped_block_are_observed_and_those_before_it_are_not():
    state = state_of("resnet_b")
    block = state.trace.table.blocks[-1]
    drops = {Site("drop", block.name, "dropped"): True}
    dropped = compress(state, Policy(drops), ("drop",))
    names = {layer.name: layer.name for layer in state.trace.table.layers if layer.name not in block.layers}
    first = min(layer.index for layer in state.trace.table.layers if layer.name in block.layers)
    before = {layer.name for layer in state.trace.table.layers if layer.index < first}
    assert before
    assert set(unchanged_inputs(dropped, names)) == before
    both = {site: value for site, value in policy(state).items() if site.layer not in block.layers}
    after = compress(state, Policy({**drops, **both}), ("drop", "quantize"))
    assert all(m.input_quantizer is not None for m in after.model.modules() if isinstance(m, LiveLayer))


def test_without_batch_norm_a_pruned_network_is_observed():
    """Nothing brings what pruned layers make back to its old scale."""
    state = state_of("plain")
    names = {layer.name: layer.name for layer in state.trace.table.layers}
    assert set(unchanged_inputs(state, names)) == set(names)
    after = compress(state, policy(state, 8, 0.5, activation_range="minmax"), ("prune", "quantize"))
    bare = compress(
        state, Policy({s: v for s, v in policy(state, 8, 0.5).items() if s.operator == "prune"}), ("prune",)
    )
    for name in names:
        values = read(bare.model, name, state.calibration)
        wanted = InputQuantizer(8, min(values.min().item(), 0.0), max(values.max().item(), 0.0))
        assert torch.equal(after.model.get_submodule(name).input_quantizer.scale, wanted.scale)


def test_ranges_can_be_those_of_the_network_as_it_is():
    state = replace(state_of("resnet_b"), ranges="observed")
    after = compress(state, policy(state, 8, 0.5, activation_range="minmax"), ("prune", "quantize"))
    bare = compress(
        state, Policy({s: v for s, v in policy(state, 8, 0.5).items() if s.operator == "prune"}), ("prune",)
    )
    recalibrate(bare.model, state.calibration)
    top = read(bare.model, "layer3.1.conv2", state.calibration).max().item()
    own = after.model.get_submodule("layer3.1.conv2").input_quantizer
    # Batch norm used the statistics of each of the two batches while observing, those of both now.
    assert (own.scale * own.top).item() == pytest.approx(top, rel=0.2)
    original = read(state.model, "layer3.1.conv2", state.calibration).max().item()
    assert abs((own.scale * own.top).item() - top) < abs(original - top)
    assert not after.stale


def test_inner_parts_of_a_factorized_layer_are_observed():
    state = state_of("plain")
    values = {Site("factorize", "b", "rank_ratio"): 0.3, Site("quantize", "b", "activation_bits"): 8}
    values[Site("quantize", "b", "activation_range")] = "minmax"
    after = compress(state, Policy(values), ("factorize", "quantize"))
    inner = after.model.b[1]
    seen = []
    inner.register_forward_pre_hook(lambda module, args: seen.append(args[0].max().item()))
    first = after.model.b[0].input_quantizer
    after.model.b[0].input_quantizer = None
    after.model(state.calibration)
    reach = (inner.input_quantizer.scale * (inner.input_quantizer.top - inner.input_quantizer.zero)).item()
    assert reach == pytest.approx(seen[0], rel=0.02)  # the zero point is rounded
    wanted = read(state.model, "b", state.calibration)
    assert (first.scale * (first.top - first.zero)).item() == pytest.approx(wanted.max().item(), rel=0.02)
