"""What each proposer promises beyond the common contract."""

import math

import numpy as np
import pytest
from test_proposer_contract import CONSTRAINTS, OBJECTIVES, SPACE, history, proposer

from automc.core.pareto import covered
from automc.core.policy import Site
from automc.errors import SpecError
from automc.proposers.optuna import NSGA2Proposer
from automc.proposers.uniform import UniformProposer
from automc.stoppers import MedianStopper, NeverStopper


def test_uniform_gives_all_layers_the_same_value():
    for proposal in proposer("uniform").ask(range(60)):
        for operator, setting in [("prune", "prune_ratio"), ("prune", "criterion"), ("quantize", "weight_bits")]:
            assert len({v[setting] for v in proposal.policy.settings(operator).values()}) == 1


def test_uniform_visits_the_whole_grid_once_before_it_repeats():
    grid = UniformProposer(SPACE, OBJECTIVES, CONSTRAINTS, 0, levels=2)
    assert grid.total == 9 * 2 * 3 * 2 * 2
    assert len({p.policy for p in grid.ask(range(grid.total))}) == grid.total
    assert grid.ask(range(grid.total, grid.total + 1)) == grid.ask(range(1))


def test_random_is_uniform_over_the_cube():
    values = [p.policy[Site("distill", "*", "kd_alpha")] for p in proposer("random").ask(range(2000))]
    counts, _ = np.histogram(values, bins=10, range=(0, 1))
    # chi-square with 9 degrees of freedom: 27.9 is its 99.9% point.
    assert ((counts - 200) ** 2 / 200).sum() < 27.9


@pytest.mark.parametrize("name", ["tpe", "nsga2", "nsga3"])
def test_samplers_learn_the_landscape(name):
    """Later proposals are better than random ones: the share of the box covered, over three seeds."""
    baseline = {"top1": 1.0, "size_bytes": 1100.0}
    gains = []
    for seed in range(3):
        learned = covered(history(name, 120, seed)[60:], OBJECTIVES, CONSTRAINTS, baseline)
        blind = covered(history("random", 120, seed)[60:], OBJECTIVES, CONSTRAINTS, baseline)
        gains.append(learned - blind)
    assert min(gains) > 0


@pytest.mark.parametrize(
    ("name", "settings"),
    [("tpe", {"anchors": -1}), ("tpe", {"startup": 0}), ("nsga2", {"population": 1}), ("uniform", {"levels": 0})],
)
def test_settings_out_of_range_are_refused(name, settings):
    with pytest.raises(SpecError, match="must be from"):
        proposer(name, **settings)


def test_anchors_are_the_uniform_grid():
    anchored = proposer("tpe", anchors=5).ask(range(6))
    assert anchored[:5] == proposer("uniform").ask(range(5))
    assert anchored[5] != proposer("uniform").ask(range(5, 6))[0]
    assert NSGA2Proposer.__init__.__defaults__ == (8, 20)


def test_median_stopper_is_the_median_of_the_best_so_far():
    peers = [[(10, v), (20, v - 0.5)] for v in (1.0, 2.0, 3.0)]
    stopper = MedianStopper(peers=3)
    assert stopper.worth(10, 2.0, peers)
    assert not stopper.worth(10, 2.01, peers)
    assert not stopper.worth(20, 1.6, peers)
    assert stopper.worth(5, 99.0, peers), "nobody has reported at step 5"
    assert MedianStopper(peers=4).worth(10, 99.0, peers), "too few peers"
    assert MedianStopper(peers=3, grace=11).worth(10, 99.0, peers), "within the grace"
    assert NeverStopper().worth(10, math.inf, peers)
