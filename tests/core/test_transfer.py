"""Carrying trials between studies: nothing changes within a space, and layers meet by the part they play."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automc.core.layers import Group, Layer, LayerTable
from automc.core.metrics import Measurement
from automc.core.policy import Policy, Site
from automc.core.probing import probes_of
from automc.core.rules import Rule, resolve
from automc.core.sensitivity import Probe, Sensitivity
from automc.core.space import Choice, Real
from automc.core.study import Rung
from automc.core.transfer import FAR, Roles, Setup, carried, carried_sensitivity, same_network
from automc.core.trial import Trial, TrialState
from automc.operators import OPERATORS, ORDER

PRUNE = Rule("prune", {"prune_ratio": Real(0.0, 0.8, step=0.1), "criterion": Choice(("l1", "l2"))})
QUANTIZE = Rule("quantize", {"weight_bits": Choice((2, 4, 8))})
DISTILL = Rule("distill", {"kd_temperature": Real(1.0, 10.0, log=True), "kd_alpha": Real(0.0, 1.0)})
BASELINE = {"top1": 0.9, "macs": 1000.0, "size_bytes": 4000.0, "macs_ratio": 1.0, "latency_ms": 2.0}


def resnet(blocks: int) -> LayerTable:
    """Names, kinds and groups of a CIFAR ResNet with 6 * blocks + 2 layers (He et al. 2016)."""
    names = ["conv1"]
    names += [f"layer{s}.{b}.conv{c}" for s in (1, 2, 3) for b in range(blocks) for c in (1, 2)]
    convs = [Layer(n, i, "conv", 8, 8, (3, 3), (1, 1), (8, 4, 4), 576, 9216, n) for i, n in enumerate(names)]
    layers = (*convs, Layer("linear", len(names), "linear", 8, 10, (), (), (10,), 90, 80))
    return LayerTable(layers, tuple(Group(n, 8, (n,), ()) for n in names), (3, 32, 32))


def setup(table: LayerTable, *rules: Rule, baseline=BASELINE, orders=()) -> Setup:
    return Setup(resolve(rules, ORDER, table, OPERATORS, orders), baseline, (Rung(),))


def measured(policy, number=0, rung=0, state=TrialState.COMPLETE, reason="", **metrics) -> Trial:
    found = Measurement(
        metrics or {"top1": 0.8, "size_bytes": 1000.0}, {"a": {"b": 1}}, "0" * 64, 1.5, {"top1": 0.01}, 9
    )
    return Trial(number, policy, "memo", state, rung, found, reason)


def one(policy, old, new, metrics=()):
    """The policy in the new space, or why not."""
    result = carried([measured(policy)], old, new, metrics, OPERATORS)
    return result.trials[0].policy if result.trials else next(iter(result.excluded))


SAME = setup(
    resnet(1), PRUNE, QUANTIZE, DISTILL, orders=(("prune", "quantize", "distill"), ("quantize", "prune", "distill"))
)
CUBES = st.lists(st.floats(0, 1), min_size=len(SAME.space), max_size=len(SAME.space))


@given(st.lists(CUBES, max_size=4))
@settings(max_examples=30)
def test_within_a_space_nothing_changes(cubes):
    trials = [measured(SAME.space.decode(cube), number=i) for i, cube in enumerate(cubes)]
    result = carried(trials, SAME, SAME, ["top1", "size_bytes"], OPERATORS)
    assert result.excluded == {}
    assert [t.policy for t in result.trials] == [t.policy for t in trials]
    assert [t.number for t in result.trials] == list(range(-len(cubes), 0))
    assert all((t.state, t.memo, t.rung) == (TrialState.COMPLETE, "", 0) for t in result.trials)
    assert [t.measurement.metrics for t in result.trials] == [t.measurement.metrics for t in trials]
    assert [t.measurement.errors for t in result.trials] == [t.measurement.errors for t in trials]


@given(CUBES)
@settings(max_examples=30)
def test_what_is_carried_is_a_policy_of_the_new_space(cube):
    narrower = setup(
        resnet(2),
        Rule("prune", {"prune_ratio": Real(0.1, 0.75, step=0.05), "criterion": Choice(("l1", "l2"))}),
        Rule("quantize", {"weight_bits": Choice((3, 4, 8))}),
        DISTILL,
    )
    found = one(SAME.space.decode(cube), SAME, narrower)
    assert str(found).startswith("outside this space, first at ") or narrower.space.policy(found) == found


def test_layers_meet_by_name_and_else_by_relative_depth():
    """ResNet-20 to ResNet-56: what the small one has by that name, else the conv at the same share of all convs."""
    small, large = setup(resnet(3), QUANTIZE), setup(resnet(9), QUANTIZE)
    names = [layer.name for layer in small.space.layers.layers if layer.kind == "conv"]
    bits = {name: (2, 4, 8)[i % 3] for i, name in enumerate(names)} | {"linear": 8}
    policy = Policy({Site("quantize", name, "weight_bits"): value for name, value in bits.items()})
    found = one(policy, small, large)
    many = [layer.name for layer in large.space.layers.layers if layer.kind == "conv"]
    for i, name in enumerate(many):
        share = (i + 0.5) / len(many)
        by_depth = min(range(len(names)), key=lambda k: (abs((k + 0.5) / len(names) - share), k))
        expected = bits[name] if name in bits else bits[names[by_depth]]
        assert found[Site("quantize", name, "weight_bits")] == expected, name
    assert found[Site("quantize", "linear", "weight_bits")] == 8


@pytest.mark.parametrize(("old", "new"), [(1, 3), (3, 9), (9, 3), (3, 1)])
def test_a_uniform_policy_stays_uniform_in_a_deeper_or_shallower_network(old, new):
    first, second = (setup(resnet(n), PRUNE, QUANTIZE) for n in (old, new))
    policy = first.space.policy(
        {
            d.site: {"prune_ratio": 0.3, "criterion": "l2", "weight_bits": 4}[d.site.setting]
            for d in first.space.decisions
        }
    )
    found = one(policy, first, second)
    assert {(site.setting, value) for site, value in found.items()} == {
        ("prune_ratio", 0.3),
        ("criterion", "l2"),
        ("weight_bits", 4),
    }


def test_a_layer_that_the_old_study_left_alone_is_left_alone():
    """The new space also prunes layer1.0.conv1: the old policies kept it whole, whatever they did to its neighbours."""
    old = setup(resnet(1), replace(PRUNE, exclude=("layer1.0.conv1",)))
    new = setup(resnet(1), PRUNE)
    cube = [0.99] * len(old.space)
    found = one(old.space.decode(cube), old, new)
    ratios = {site.layer: value for site, value in found.items() if site.setting == "prune_ratio"}
    assert ratios.pop("layer1.0.conv1") == 0.0
    assert set(ratios.values()) == {0.8}


def test_what_the_new_space_cannot_undo_is_left_out():
    """Old policies that also quantize say nothing of pruning alone, but for those that did not quantize."""
    bits = Rule("quantize", {"weight_bits": Choice((2, 32))})
    old, new = setup(resnet(1), PRUNE, bits), setup(resnet(1), PRUNE)
    quantized, whole = old.space.decode([0.3] * len(old.space)), {}
    for d in old.space.decisions:
        whole[d.site] = 32 if d.site.setting == "weight_bits" else d.domain.decode(0.3)
    first = old.space.decisions[[d.site.setting for d in old.space.decisions].index("weight_bits")].site
    assert one(quantized, old, new) == f"outside this space, first at {first}"
    found = one(Policy(whole), old, new)
    assert dict(found) == {site: value for site, value in whole.items() if site.operator == "prune"}


def test_values_move_to_the_nearest_there_is_and_not_far():
    old = setup(resnet(3), Rule("prune", {"prune_ratio": Real(0.0, 0.8)}))
    new = setup(resnet(3), Rule("prune", {"prune_ratio": Real(0.0, 0.5, step=0.1)}))

    def ratios(ratio):
        found = one(old.space.policy({d.site: ratio for d in old.space.decisions}), old, new)
        return found if isinstance(found, str) else set(found.values())

    assert ratios(0.33) == {0.3}
    assert ratios(0.5 + 0.8 * FAR * 0.99) == {0.5}
    assert ratios(0.5 + 0.8 * FAR * 1.01) == f"outside this space, first at {new.space.decisions[0].site}"


def test_words_are_not_guessed():
    other = replace(PRUNE, settings={**PRUNE.settings, "criterion": Choice(("l2", "random"))})
    old, new = setup(resnet(1), PRUNE), setup(resnet(1), other)
    first = next(d.site for d in new.space.decisions if d.site.setting == "criterion")
    assert one(old.space.decode([0.1] * len(old.space)), old, new) == f"outside this space, first at {first}"  # l1
    assert not isinstance(one(old.space.decode([0.6] * len(old.space)), old, new), str)  # l2


@pytest.mark.parametrize("chosen", [0, 1])
def test_an_order_that_was_fixed_is_the_one_that_was_kept(chosen):
    orders = (ORDER, (*(name for name in ORDER if name != "prune"), "prune"))[:: 1 if chosen == 0 else -1]
    old, new = setup(resnet(1), PRUNE, QUANTIZE), setup(resnet(1), PRUNE, QUANTIZE, orders=orders)
    found = one(old.space.decode([0.5] * len(old.space)), old, new)
    assert found[Site("order", "*", "order")] == " ".join(ORDER)
    again = one(found, new, old)
    assert again == old.space.decode([0.5] * len(old.space))


def test_costs_follow_the_two_originals_and_ratios_stay():
    large = {"top1": 0.95, "macs": 3000.0, "size_bytes": 8000.0, "macs_ratio": 1.0}
    old, new = setup(resnet(1), PRUNE), setup(resnet(3), PRUNE, baseline=large)
    policy = old.space.decode([0.2] * len(old.space))
    trial = measured(policy, top1=0.8, macs=500.0, macs_ratio=0.5, size_bytes=1000.0, latency_ms=1.0)
    found = carried([trial], old, new, ["macs"], OPERATORS).trials[0].measurement
    # The new original's latency is not known, so the trial has none either.
    assert found.metrics == {"top1": 0.8, "macs": 1500.0, "macs_ratio": 0.5, "size_bytes": 2000.0}
    assert (found.errors, found.samples, found.realized, found.artifact) == ({"top1": 0.01}, 9, {}, None)


def test_what_is_left_out_is_counted_by_reason():
    policy = SAME.space.decode([0.5] * len(SAME.space))
    old = replace(SAME, rungs=(Rung(0), Rung(100)))
    trials = [
        measured(policy, 0),
        replace(measured(policy, 1), state=TrialState.FAILED, measurement=None, reason="oom"),
        replace(measured(policy, 2), state=TrialState.STOPPED),
        replace(measured(policy, 3), state=TrialState.STOPPED, reason="dominated"),
        replace(measured(policy, 4), state=TrialState.RUNNING, measurement=None),
        measured(policy, 5, rung=1),
        measured(policy, 6, top1=math.nan, size_bytes=1.0),
        measured(policy, 7, top1=0.5),
    ]
    result = carried(trials, old, SAME, ["top1", "size_bytes"], OPERATORS)
    assert [t.number for t in result.trials] == [-2, -1]
    assert result.excluded == {
        "not measured to the end": 3,
        "trained, as on no rung here": 1,
        "without top1": 1,
        "without size_bytes": 1,
    }


@pytest.mark.parametrize(("steps", "rung"), [(0, 0), (90, 1), (400, 1), (800, 2), (9000, 2)])
def test_a_rung_stands_for_the_one_that_trains_about_as_long(steps, rung):
    new = replace(SAME, rungs=(Rung(0), Rung(100), Rung(2000)))
    trial = measured(SAME.space.decode([0.5] * len(SAME.space)))
    result = carried([trial], replace(SAME, rungs=(Rung(steps),)), new, [], OPERATORS)
    assert [t.rung for t in result.trials] == [rung]


def table_of(space):
    return Sensitivity(tuple(Probe(s, v, {"loss": hash((s, v)) % 97 / 7}) for s, v, _ in probes_of(space)))


def test_a_sensitivity_table_is_carried_by_the_same_roles():
    small, large = (setup(resnet(n), PRUNE, QUANTIZE) for n in (3, 9))
    known = table_of(small.space)
    found = carried_sensitivity(known, small.space.layers, large.space, OPERATORS)
    roles = Roles(small.space.layers, large.space.layers, (p.site for p in known.probes), OPERATORS)
    assert [(p.site, p.value) for p in found.probes] == [(s, v) for s, v, _ in probes_of(large.space)]
    assert all(p.damage["loss"] == known.damage(roles.of(p.site), p.value) for p in found.probes)
    assert carried_sensitivity(known, small.space.layers, small.space, OPERATORS) == known
    # Where a site has no counterpart there is no table: a missing row would read as harmless.
    partial = Sensitivity(tuple(p for p in known.probes if p.site.operator == "prune"))
    assert not carried_sensitivity(partial, small.space.layers, large.space, OPERATORS)


def test_the_same_network_has_the_same_layers_and_answers():
    table, other = resnet(1), resnet(2)
    times = {**BASELINE, "latency_ms": 7.0}
    assert same_network(table, replace(table, sensitivity=table_of(SAME.space)), (BASELINE, times))
    assert not same_network(table, other, (BASELINE, BASELINE))
    assert not same_network(table, table, (BASELINE, {**BASELINE, "top1": 0.91})), "trained otherwise"
