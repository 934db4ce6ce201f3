"""A pruned network equals the original in which the same channels are silenced."""

import copy
import math

import pytest
import torch
import torch_pruning
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import PRUNABLE, ResNet, make
from torch import nn
from torch.nn import functional as F

from automc.core.layers import Group
from automc.core.policy import Policy, Site
from automc.errors import CompressionError
from automc.operators.base import Compression, compress
from automc.operators.groups.slicing import Plan, remove_channels
from automc.operators.layers import trace
from automc.operators.prune import how_many, least

# Rounding of single precision, times the length of the sums, times a few layers.
CLOSE = {"rtol": 1e-4, "atol": 2e-5}
RELU = ["plain", "conv_bn_relu", "resnet_a", "resnet_b", "inverted", "dense", "wide_sum", "flatten", "grouped", "mlp"]
# Where f(0) is not 0, or a shortcut without weights carries on: who reads the channels, in the group's order.
READERS = {
    ("sigmoid", "a"): ["b"],
    ("sigmoid", "b"): ["gate", "head"],
    ("sigmoid", "gate"): ["open"],
    ("functional", "layers.0"): ["layers.1", "out"],
    ("volume", "a"): ["up"],
    ("volume", "up"): ["b"],
    ("volume", "b"): ["out"],
    ("normed", "b"): ["c"],
    ("resnet_a", "layer2.0.conv2"): ["layer2.1.conv1", "layer3.0.conv1", "layer3.0.shortcut"],
    ("resnet_a", "layer3.0.conv2"): ["layer3.1.conv1", "linear"],
}
# Where a channel of the group is not the module's channel of the same number: (first channel, how many).
RANGES = {("wide_sum", "a"): {"a": (0, 4), "b": (4, 6)}}
# Norms that no name rule finds, and where the group's channels begin in them.
NORMS = {("dense", "a"): ("norm", 0), ("dense", "b"): ("norm", 6)}


def half(plan: Plan, seed: int = 1) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    cells = plan.members()
    return sorted(
        c for m in cells for c in torch.tensor(m)[torch.randperm(len(m), generator=generator)[: len(m) // 2]].tolist()
    )


def norm_after(model: nn.Module, name: str) -> nn.Module | None:
    head, _, last = name.rpartition(".")
    following = {"0": "1", "conv1": "bn1", "conv2": "bn2"}.get(last, "")
    path = f"{head}.{following}" if head else following
    found = dict(model.named_modules()).get(path)
    return found if following and isinstance(found, nn.BatchNorm2d) else None


def silence(model: nn.Module, net: str, group: str, producers: tuple[str, ...], channels: list[int]) -> None:
    """Zero the producers' filters and biases, and what the batch norms behind them add."""
    with torch.no_grad():
        for name in producers:
            first, count = RANGES.get((net, group), {}).get(name, (0, max(channels) + 1))
            rows = [c - first for c in channels if first <= c < first + count]
            for module in (model.get_submodule(name), norm_after(model, name)):
                for parameter in () if module is None else (module.weight, module.bias):
                    if parameter is not None:
                        parameter[rows] = 0
        if (net, group) in NORMS:
            name, first = NORMS[net, group]
            module = model.get_submodule(name)
            module.weight[[first + c for c in channels]] = 0
            module.bias[[first + c for c in channels]] = 0


def ignore(model: nn.Module, readers: list[str], channels: list[int]) -> None:
    """Let these modules read zeros in the place of the channels."""

    def hook(module, args):
        x = args[0].clone()
        x[(..., channels) if isinstance(module, nn.Linear) else (slice(None), channels)] = 0
        return (x,)

    for name in readers:
        model.get_submodule(name).register_forward_pre_hook(hook)


def mask(model: nn.Module, net: str, group: Group, channels: list[int]) -> None:
    if (net, group.name) in READERS:
        ignore(model, READERS[net, group.name], channels)
    else:
        silence(model, net, group.name, group.producers, channels)


def cases():
    for name in PRUNABLE:
        model, inputs = make(name)
        for group in trace(model, inputs).table.groups:
            if (name, group.name) not in {("normed", "a"), ("normed", "c")}:
                yield name, group.name


@pytest.mark.parametrize(("net", "group"), list(cases()))
def test_pruned_by_half_equals_silenced(net, group):
    model, inputs = make(net)
    found = trace(model, inputs)
    removed = half(found.plans[group])
    pruned, masked = copy.deepcopy(model), copy.deepcopy(model)
    remove_channels(pruned, found.plans, {group: removed})
    mask(masked, net, found.table.group(group), removed)
    with torch.no_grad():
        torch.testing.assert_close(pruned(inputs), masked(inputs), **CLOSE)
        assert not torch.allclose(masked(inputs), model(inputs), **CLOSE)
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("net", RELU)
def test_all_groups_at_once_equal_all_silenced(net):
    model, inputs = make(net)
    found = trace(model, inputs)
    removed = {name: half(plan, seed=2) for name, plan in found.plans.items()}
    pruned, masked = copy.deepcopy(model), copy.deepcopy(model)
    remove_channels(pruned, found.plans, removed)
    for name, channels in removed.items():
        mask(masked, net, found.table.group(name), channels)
    with torch.no_grad():
        torch.testing.assert_close(pruned(inputs), masked(inputs), **CLOSE)


def test_group_norm_and_layer_norm_see_only_what_stays():
    model, inputs = make("normed")
    found = trace(model, inputs)
    removed = {name: half(found.plans[name]) for name in ("a", "c")}
    a, c = ([i for i in range(found.plans[n].channels) if i not in removed[n]] for n in ("a", "c"))
    assert [sum(i // 4 == block for i in a) for block in range(4)] == [2, 2, 2, 2]
    with torch.no_grad():
        x = F.conv2d(inputs, model.a.weight[a], model.a.bias[a], padding=1)
        x = F.gelu(F.group_norm(x, 4, model.gn.weight[a], model.gn.bias[a]))
        x = model.act(model.inorm(F.conv2d(x, model.b.weight[:, a], model.b.bias)))
        x = F.linear(x.mean((2, 3)), model.c.weight[c], model.c.bias[c])
        x = F.gelu(F.layer_norm(x, (len(c),), model.ln.weight[c], model.ln.bias[c]))
        wanted = F.linear(x, model.head.weight[:, c], model.head.bias)
        remove_channels(model, found.plans, removed)
        torch.testing.assert_close(model(inputs), wanted, **CLOSE)


def test_the_same_network_as_torch_pruning_makes():
    model, inputs = make("resnet_b")
    plan = trace(model, inputs).plans["layer2.0.conv2"]
    removed = half(plan)
    theirs = copy.deepcopy(model)
    graph = torch_pruning.DependencyGraph().build_dependency(theirs, (inputs,), verbose=False)
    graph.get_pruning_group(theirs.layer2[0].conv2, torch_pruning.prune_conv_out_channels, removed).prune()
    remove_channels(model, {plan.name: plan}, {plan.name: removed})
    ours, wanted = model.state_dict(), theirs.state_dict()
    assert ours.keys() == wanted.keys()
    assert all(torch.equal(ours[key], wanted[key]) for key in ours)


def state_of(net):
    model, inputs = make(net)
    return Compression(model, model, trace(model, inputs), inputs)


RESNET = state_of("resnet_a")


def inner(state):
    """The groups inside the blocks; the residual streams stay."""
    return [group for group in state.trace.table.groups if group.name.endswith(".conv1")]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.0, 0.99), min_size=6, max_size=6), st.sampled_from(["l1", "l2", "random"]))
def test_any_ratios_give_the_planned_sizes(ratios, criterion):
    groups = inner(RESNET)
    values = {Site("prune", g.name, "prune_ratio"): r for g, r in zip(groups, ratios, strict=True)}
    values |= {Site("prune", g.name, "criterion"): criterion for g in groups}
    after = compress(RESNET, Policy(values), ("prune",))
    params = 3 * 8 * 9 + 2 * 8 + 32 * 10 + 10  # the stem and the head
    widths = [(8, 8), (8, 8), (8, 16), (16, 16), (16, 32), (32, 32)]
    for group, ratio, (cin, cout) in zip(groups, ratios, widths, strict=True):
        gone = min(math.floor(ratio * group.channels + 1e-9), group.channels - 1)
        kept = group.channels - gone
        assert after.realized[group.name] == {"prune_ratio": gone / group.channels, "channels": kept}
        params += 9 * cin * kept + 2 * kept + 9 * kept * cout + 2 * cout
        block = after.model.get_submodule(group.name.rpartition(".")[0])
        assert (block.conv1.out_channels, block.bn1.num_features, block.conv2.in_channels) == (kept,) * 3
    assert sum(p.numel() for p in after.model.parameters()) == params
    with torch.no_grad():
        assert after.model(RESNET.calibration).isfinite().all()


def test_resnet20_at_half_its_inner_channels():
    model = ResNet()
    state = Compression(model, model, trace(model, torch.zeros(1, 3, 32, 32)), None)
    values = {Site("prune", g.name, "prune_ratio"): 0.5 for g in inner(state)}
    after = compress(state, Policy(values), ("prune",))
    table = trace(after.model, torch.zeros(1, 3, 32, 32)).table
    ends = 27 * 16 * 32 * 32 + 64 * 10  # the stem and the head stay
    assert table.macs - ends == (40_551_040 - ends) / 2
    assert {row["channels"] for row in after.realized.values()} == {8, 16, 32}


def test_the_best_channels_stay_in_their_order():
    state = state_of("plain")
    with torch.no_grad():
        for row, size in enumerate((3.0, 0.1, 5.0, 0.2, 4.0, 0.3, 6.0, 7.0)):
            state.model.a.weight[row] = size
    after = compress(state, Policy({Site("prune", "a", "prune_ratio"): 0.5}), ("prune",))
    assert after.model.a.weight[:, 0, 0, 0].tolist() == [5.0, 4.0, 6.0, 7.0]


@given(st.integers(1, 400), st.floats(0, 0.99))
def test_never_more_than_asked_and_never_everything(channels, ratio):
    plan = Plan("g", channels, (), (0,) * channels)
    count = how_many(plan, ratio)
    assert 0 <= count < channels
    assert count <= ratio * channels + 1e-6
    assert count == channels - 1 or count > ratio * channels - 1 - 1e-6


MULTIPLES = st.sampled_from([1, 2, 4, 8, 16, 32])


@given(st.integers(1, 40), st.integers(1, 6), st.floats(0, 0.99), MULTIPLES)
def test_what_stays_is_the_smallest_multiple_that_is_enough(cell, cells, ratio, multiple):
    channels = cell * cells
    plan = Plan("g", channels, (), tuple(c % cells for c in range(channels)))
    kept = channels - how_many(plan, ratio, multiple)
    # Counted, not computed: every number of channels that cells, multiple and ratio allow.
    enough = channels - math.floor(ratio * channels + 1e-9)
    fitting = [n for n in range(enough, channels + 1) if n % multiple == 0 and n % cells == 0]
    assert kept == min(fitting, default=channels)
    assert kept >= 1


@given(st.integers(1, 64), st.floats(0, 0.9), st.floats(0, 0.09), MULTIPLES)
def test_asking_for_more_never_removes_less(channels, ratio, more, multiple):
    plan = Plan("g", channels, (), (0,) * channels)
    assert how_many(plan, ratio + more, multiple) >= how_many(plan, ratio, multiple)
    assert how_many(plan, ratio, 2 * multiple) <= how_many(plan, ratio, multiple)


@pytest.mark.parametrize(
    ("multiple", "kept", "facts"),
    [(1, 4, {}), (2, 4, {"multiple_of": 2}), (4, 4, {"multiple_of": 4}), (8, 8, {"multiple_of": 8}), (16, 12, {})],
)
def test_the_kept_channels_are_a_multiple_or_the_group_stays_whole(multiple, kept, facts):
    state = state_of("plain")
    values = {"prune_ratio": 0.7, "channel_multiple": multiple}
    after = compress(state, Policy({Site("prune", "b", s): v for s, v in values.items()}), ("prune",))
    assert after.realized["b"] == {"prune_ratio": (12 - kept) / 12, "channels": kept, **facts}
    assert (after.model.b.out_channels, after.model.head.in_features) == (kept, kept)
    assert after.stale == (kept < 12)


def test_a_multiple_and_the_groups_of_a_grouped_convolution_hold_together():
    values = {"prune_ratio": 0.6, "channel_multiple": 8}
    after = compress(state_of("grouped"), Policy({Site("prune", "b.0", s): v for s, v in values.items()}), ("prune",))
    assert after.realized["b.0"] == {"prune_ratio": 8 / 24, "channels": 16, "multiple_of": 8}
    layer = after.model.b[0]
    assert (layer.out_channels, layer.groups) == (16, 4)
    with torch.no_grad():
        assert after.model(torch.ones(2, 3, 8, 8)).isfinite().all()


def test_thirty_percent_of_ten_is_three():
    assert how_many(Plan("g", 10, (), (0,) * 10), 0.3) == 3
    assert how_many(Plan("g", 10, (), (0,) * 10), 0.1 * 3) == 3


def test_groups_of_a_grouped_convolution_stay_equal_and_realized_says_so():
    after = compress(state_of("grouped"), Policy({Site("prune", "a.0", "prune_ratio"): 0.7}), ("prune",))
    assert after.realized["a.0"] == {"prune_ratio": 0.5, "channels": 8, "multiple_of": 4}
    layer = after.model.b[0]
    assert (layer.in_channels, layer.groups, tuple(layer.weight.shape)) == (8, 4, (24, 2, 3, 3))
    assert how_many(Plan("g", 8, (), (0, 0, 1, 1, 2, 2, 3, 3)), 0.99) == 4


@given(st.lists(st.floats(-5, 5), min_size=8, max_size=8), st.sampled_from([0, 2, 4, 6]))
def test_the_lowest_of_each_cell_go(scores, count):
    plan = Plan("g", 8, (), (0, 1) * 4)
    gone = least(torch.tensor(scores, dtype=torch.float64), plan, count)
    for cell in (0, 1):
        left = [scores[c] for c in range(cell, 8, 2) if c not in gone]
        lost = [scores[c] for c in range(cell, 8, 2) if c in gone]
        assert len(lost) == count // 2
        assert not lost or max(lost) <= min(left)


def test_a_layer_pruned_to_nothing_is_an_error():
    model, inputs = make("plain")
    plans = trace(model, inputs).plans
    with pytest.raises(CompressionError, match="'a' is pruned to nothing: all its 8 channels would go"):
        remove_channels(model, plans, {"a": range(8)})


def test_a_network_that_was_pruned_already_is_an_error():
    model, inputs = make("plain")
    plans = trace(model, inputs).plans
    remove_channels(model, plans, {"a": [0]})
    with pytest.raises(CompressionError, match="'a' has 7 channels on axis 0, 8 when it was traced"):
        remove_channels(model, plans, {"a": [0]})


def test_unequal_groups_are_an_error():
    model, inputs = make("grouped")
    plans = trace(model, inputs).plans
    with pytest.raises(CompressionError, match=r"'b.0' needs equally many channels in each of its groups, not \[3, 4"):
        remove_channels(model, plans, {"a.0": [0]})
