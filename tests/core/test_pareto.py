"""Fronts against brute force and against moocore, an independent library."""

import moocore
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from automc.core.metrics import Constraint, Measurement, Objective
from automc.core.pareto import covered, front, hypervolume, knee, ranks, undominated
from automc.core.policy import Policy, Site
from automc.core.trial import Trial, TrialState


def clouds(max_dims: int = 3):
    shape = st.tuples(st.integers(1, 12), st.integers(1, max_dims))
    return shape.flatmap(lambda s: arrays(np.float64, s, elements=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])))


def dominates(a, b) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


@given(clouds())
def test_undominated_is_the_definition(points):
    brute = [not any(dominates(q, p) for q in points) for p in points]
    assert undominated(points).tolist() == brute


def test_nan_and_infinity_are_never_on_a_front():
    points = np.array([[np.nan, 0.0], [np.inf, -1.0], [1.0, 1.0]])
    assert undominated(points).tolist() == [False, False, True]
    assert ranks(points).tolist() == [3, 3, 0]


@given(clouds())
def test_ranks_peel_front_after_front(points):
    rank = ranks(points)
    for level in range(rank.max() + 1):
        rest = points[rank >= level]
        assert undominated(rest).tolist() == (rank[rank >= level] == level).tolist()


@given(clouds(4))
def test_hypervolume_equals_moocore(points):
    reference = [1.1] * points.shape[1]
    one = points.shape[1] == 1  # moocore begins at two dimensions
    expected = 1.1 - points.min() if one else moocore.hypervolume(points, ref=reference)
    assert hypervolume(points, reference) == pytest.approx(expected, abs=1e-12)


def test_points_beyond_the_reference_add_nothing():
    assert hypervolume(np.array([[2.0, 0.0]]), [1.0, 1.0]) == 0.0
    assert hypervolume(np.empty((0, 2)), [1.0, 1.0]) == 0.0


def test_knee_is_the_bend_of_an_l():
    assert knee(np.array([[0.0, 1.0], [0.1, 0.1], [1.0, 0.0], [2.0, 2.0]])) == 1


def test_a_point_below_the_line_between_the_ends_is_no_knee():
    assert knee(np.array([[0.0, 1.0], [0.7, 0.6], [1.0, 0.0]])) != 1


def test_knee_does_not_depend_on_the_units():
    points = np.array([[0.0, 1.0], [0.2, 0.1], [1.0, 0.0]])
    assert knee(points) == knee(points * [1e6, 1e-3]) == 1


def trial(number: int, state: TrialState = TrialState.COMPLETE, **metrics: float) -> Trial:
    policy = Policy({Site("prune", "a", "prune_ratio"): number / 100})
    return Trial(number, policy, state=state, measurement=Measurement(metrics))


OBJECTIVES = (Objective("top1"), Objective("size_bytes"))


def test_front_is_feasible_undominated_complete_and_ordered():
    trials = [
        trial(0, top1=0.9, size_bytes=100, macs_ratio=0.4),
        trial(1, top1=0.95, size_bytes=50, macs_ratio=0.9),
        trial(2, top1=0.8, size_bytes=40, macs_ratio=0.2),
        trial(3, top1=0.7, size_bytes=60, macs_ratio=0.2),
        trial(4, TrialState.STOPPED, top1=0.99, size_bytes=1, macs_ratio=0.1),
        trial(5, top1=0.9, size_bytes=100, macs_ratio=0.3),
        trial(6, top1=float("nan"), size_bytes=1, macs_ratio=0.1),
    ]
    assert [t.number for t in front(trials, OBJECTIVES, [Constraint.parse("macs_ratio <= 0.5")])] == [0, 2]
    assert [t.number for t in front(trials, OBJECTIVES, [])] == [1, 2]
    assert front([], OBJECTIVES, []) == []


def test_covered_is_the_share_of_the_box():
    trials = [trial(0, top1=0.9, size_bytes=25), trial(1, top1=0.5, size_bytes=10)]
    # 0.9 high from 25% of the size on, and 0.5 high between 10% and 25%.
    assert covered(trials, OBJECTIVES, [], {"top1": 0.95, "size_bytes": 100}) == pytest.approx(0.9 * 0.75 + 0.5 * 0.15)
    assert covered([], OBJECTIVES, [], {"top1": 0.95, "size_bytes": 100}) == 0.0
