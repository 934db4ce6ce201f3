"""Clusters: trees against scipy's cut, the way between small and whole space, splitting, and what the search gains."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from test_greedy import BITS, FRONT, HALF, PRUNE, TOP1, network, search

from automc.core.layers import Block, Layer, LayerTable
from automc.core.metrics import feasible
from automc.core.policy import Site
from automc.core.rules import Rule, resolve
from automc.core.sensitivity import Probe, Sensitivity
from automc.core.space import Choice, Real
from automc.core.trial import Trial, TrialState
from automc.errors import SpecError
from automc.operators import OPERATORS, ORDER
from automc.proposers.alike import Trees, _features
from automc.proposers.cluster import ClusterProposer
from automc.proposers.clustered import Clustered
from automc.proposers.members import member
from automc.proposers.random import RandomProposer
from automc.proposers.uniform import UniformProposer


def ratios(space) -> list[int]:
    return [i for i, d in enumerate(space.decisions) if d.site.setting == "prune_ratio"]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9, 50])
def test_a_cut_is_that_of_scipy(count):
    _, space = network(10, PRUNE, BITS)
    index = ratios(space)
    labels = fcluster(linkage(_features([space.decisions[i] for i in index], space.layers), "ward"), count, "maxclust")
    wanted = {tuple(i for i, label in zip(index, labels, strict=True) if label == one) for one in labels}
    assert {part for part in Trees(space).cut(count) if part[0] in index} == wanted


def test_cuts_are_nested_and_have_every_decision_once():
    _, space = network(12, PRUNE, BITS)
    trees = Trees(space)
    assert trees.most == 12
    for count in (1, 2, 4, 8):
        coarse, fine = trees.cut(count), trees.cut(2 * count)
        assert sorted(i for part in coarse for i in part) == list(range(len(space)))
        assert all(any(set(part) <= set(whole) for whole in coarse) for part in fine)
        for part in coarse:
            assert len({(space.decisions[i].site.operator, space.decisions[i].site.setting) for i in part}) == 1
    assert len(trees.cut(1)) == 3
    assert len(trees.cut(12)) == len(space)


def test_layers_that_suffer_alike_are_together():
    """Of two kinds of damage, mixed over a network of layers that are the same otherwise."""
    layers = tuple(Layer(f"l{i}", i, "conv", 8, 8, (3, 3), (1, 1), (8, 4, 4), 576, 9216) for i in range(8))
    probes = tuple(
        Probe(Site("quantize", f"l{i}", "weight_bits"), bits, {"loss": (1.0 if i % 3 == 0 else 0.001) / bits})
        for i in range(8)
        for bits in (2, 4)
    )
    table = LayerTable(layers, (), (8, 4, 4), Sensitivity(probes))
    space = resolve([Rule("quantize", {"weight_bits": Choice((2, 4))})], ORDER, table, OPERATORS)
    assert Trees(space).cut(2) == ((0, 3, 6), (1, 2, 4, 5, 7))


def mixed():
    """Domains that differ within a cluster, words, blocks and a setting of the whole network."""
    layers = tuple(Layer(f"b{i}.a", i, "conv", 8, 8, (3, 3), (1, 1), (8, 4, 4), 576, 9216) for i in range(6))
    blocks = tuple(Block(f"b{i}", (f"b{i}.a",), 576, 9216) for i in range(6))
    rules = [
        Rule("drop", {"dropped": Choice((False, True))}),
        Rule("quantize", {"weight_bits": Choice((2, 3, 4, 8)), "activation_bits": Choice((4, 8))}),
        Rule("quantize", {"weight_bits": Choice((4, 8))}, indices=(0,)),
        Rule("factorize", {"rank_ratio": Real(0.2, 1.0), "method": Choice(("svd", "spatial"))}),
        Rule("distill", {"kd_alpha": Real(0.0, 1.0), "kd_temperature": Real(1.0, 8.0, log=True)}),
    ]
    return resolve(rules, ORDER, LayerTable(layers, (), (8, 4, 4), blocks=blocks), OPERATORS)


def same(one, other) -> bool:
    """Equal but for the rounding of logarithms."""
    numbers = {site: value for site, value in one.items() if isinstance(value, float)}
    words = {site: value for site, value in one.items() if site not in numbers}
    return words.items() <= other.items() and numbers == pytest.approx({site: other[site] for site in numbers})


@pytest.mark.parametrize("count", [1, 2, 6])
def test_a_policy_of_the_small_space_comes_back_from_the_whole_one(count):
    space = mixed()
    small = Clustered(space, Trees(space).cut(count))
    for cube in np.random.default_rng(0).random((60, len(small.space))):
        policy = small.space.decode(cube.tolist())
        whole = np.array(space.encode(small.whole(policy)))
        back, distance = small.nearest(whole)
        assert distance == pytest.approx(0, abs=1e-9)
        assert same(small.whole(back), small.whole(policy))


def test_as_many_clusters_as_sites_are_the_whole_space():
    space = mixed()
    small = Clustered(space, Trees(space).cut(100))
    assert [d.site for d in small.space.decisions] == [d.site for d in space.decisions]
    for cube in np.random.default_rng(0).random((20, len(space))):
        policy = space.decode(cube.tolist())
        found, distance = small.nearest(np.array(space.encode(policy)))
        assert same(small.whole(found), policy)
        assert distance == pytest.approx(0, abs=1e-9)


def test_the_nearest_policy_has_the_means_and_says_how_far_it_is():
    _, space = network(4, Rule("prune", {"prune_ratio": Real(0.0, 0.8)}))
    small = Clustered(space, Trees(space).cut(1))
    cube = np.array([0.1, 0.2, 0.6])
    policy, distance = small.nearest(cube)
    assert list(policy.values()) == pytest.approx([0.3 * 0.8])
    assert distance == pytest.approx(cube.std())


def test_clusters_split_when_enough_has_taught_and_begin_uniform():
    evaluator, space = network(9, PRUNE, BITS)
    trials = search(ClusterProposer(space, FRONT, (), 0, patience=3), evaluator, 60)
    counts = [json.loads(t.memo)["clusters"] for t in trials]
    assert [counts.index(k) for k in (1, 2, 4)] == [0, 9, 18], "3 x 3, 3 x 6, of all that were told"
    for trial, count in zip(trials, counts, strict=True):
        seen = {tuple(sorted(of.items())) for of in trial.policy.settings("prune").values()}
        assert len(seen) <= count


def test_what_others_measured_is_heard_only_where_it_is_near():
    evaluator, space = network(9, PRUNE, BITS)
    told = search(UniformProposer(space, FRONT, (), 0), evaluator, 25)
    far = search(RandomProposer(space, FRONT, (), 0), evaluator, 25)
    numbers = range(25, 29)
    alone, informed, deaf = (ClusterProposer(space, FRONT, (), 0, clusters=1) for _ in range(3))
    informed.tell(told)
    deaf.tell(far)
    assert deaf.ask(numbers) == alone.ask(numbers) != informed.ask(numbers)


def test_failed_trials_split_no_cluster():
    _, space = network(5, PRUNE)
    made = ClusterProposer(space, FRONT, (), 0, patience=1)
    asked = made.ask(range(8))
    made.tell([Trial(n, p.policy, p.memo, TrialState.FAILED, reason="oom") for n, p in enumerate(asked)])
    assert json.loads(made.ask(range(8, 9))[0].memo)["clusters"] == 1


def test_every_proposal_keeps_the_bounds():
    evaluator, space = network(7, PRUNE)
    trials = search(ClusterProposer(space, TOP1, HALF, 0), evaluator, 25)
    assert all(feasible(HALF, t.measurement.metrics) for t in trials)


def test_clusters_find_more_than_independent_draws():
    """Median over three seeds of the best top1 within the bound, after 30 evaluations."""
    evaluator, space = network(10, PRUNE)

    def best(made) -> float:
        metrics = [t.measurement.metrics for t in search(made, evaluator, 30)]
        return max((m["top1"] for m in metrics if feasible(HALF, m)), default=0.0)

    ours = [best(ClusterProposer(space, TOP1, HALF, seed)) for seed in range(3)]
    blind = [best(RandomProposer(space, TOP1, HALF, seed)) for seed in range(3)]
    assert np.median(ours) > max(blind)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clusters": -1}, "clusters: must be from 0 to 10,000, not -1"),
        ({"patience": 0}, "patience: must be from 1 to 1,000,000, not 0"),
        ({"inner": "amc"}, "inner: must be one of auto, gp, tpe, .*, not 'amc'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    _, space = network(3, PRUNE, sensed=False)
    with pytest.raises(SpecError, match=rf"^proposer\.settings\.{message}"):
        member("cluster", space, FRONT, (), 0, **settings)


def test_a_table_changes_the_clusters_and_an_empty_one_is_no_obstacle():
    _, space = network(12, PRUNE)
    bare = replace(space, layers=replace(space.layers, sensitivity=Sensitivity()))
    assert Trees(space).cut(4) != Trees(bare).cut(4)
