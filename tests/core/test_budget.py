"""Budgets: what is fitted keeps them, moves no further than it must, and what nothing keeps is refused."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automc.core.analytic import Analytic
from automc.core.budget import ANALYTIC, DOUBT, Budget
from automc.core.layers import LayerTable
from automc.core.metrics import Constraint, Measurement
from automc.core.policy import Policy
from automc.core.rules import Rule, resolve
from automc.core.space import Choice, Real, SearchSpace
from automc.core.trial import Trial, TrialState
from automc.errors import SpecError
from automc.operators import OPERATORS, ORDER

UPPER = ("params_ratio", "macs_ratio", "bops_ratio", "size_ratio")


def point(space: SearchSpace, data: st.DataObject) -> list[float]:
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    return [float(u) for u in draw.random(len(space)) ** data.draw(st.sampled_from((0.3, 1.0, 3.0)))]


ENDS: dict[int, list[dict[str, float]]] = {}


def ends(space: SearchSpace, metric: str) -> tuple[float, float]:
    """The least and the most that the corners of a free budget cost; computed once a space."""
    if id(space) not in ENDS:
        free = Budget(space, ())
        corners = [space.decode(np.where(np.isnan(c), 0.5, c).tolist()) for c in (free.cheapest, free.dearest)]
        ENDS[id(space)] = [free.costs(policy) for policy in corners]
    low, high = (costs[metric] for costs in ENDS[id(space)])
    return low, high


def bound(space: SearchSpace, data: st.DataObject, sign: str = "<=") -> Constraint:
    """A bound that leaves room for the doubt about bytes."""
    metric = data.draw(st.sampled_from(UPPER))
    room = DOUBT if metric == "size_ratio" else 1.0
    low, high = ends(space, metric)[0] * room, ends(space, metric)[1] / room
    return Constraint(metric, sign, low + data.draw(st.floats(0.02, 0.98)) * (high - low))


def trial(space: SearchSpace, number: int, policy: Policy, size: float) -> Trial:
    measured = Measurement({"size_bytes": size})
    return Trial(number, policy, "", TrialState.COMPLETE, 0, measured, attempts=1)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_what_is_fitted_keeps_all_upper_bounds(mixed: SearchSpace, data: st.DataObject) -> None:
    budget = Budget(mixed, (bound(mixed, data), bound(mixed, data)))
    fitted = mixed.decode(budget.fit(point(mixed, data)))
    costs = Analytic(mixed.layers).costs(fitted)
    assert budget.holds(fitted)
    assert all(c.violation({c.metric: costs[c.metric] * (1 - 1e-9)}) == 0 for c in budget.constraints)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_what_is_fitted_keeps_a_lower_bound(monotone: SearchSpace, data: st.DataObject) -> None:
    budget = Budget(monotone, (bound(monotone, data, ">="),))
    fitted = monotone.decode(budget.fit(point(monotone, data)))
    (constraint,) = budget.constraints
    assert Analytic(monotone.layers).costs(fitted)[constraint.metric] >= constraint.bound * (1 - 1e-9)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_what_keeps_the_bounds_is_left_alone_and_so_is_what_was_fitted(mixed: SearchSpace, data: st.DataObject) -> None:
    budget, cube = Budget(mixed, (bound(mixed, data),)), point(mixed, data)
    fitted = budget.fit(cube)
    assert budget.fit(fitted) == fitted
    assert (fitted == cube) == budget.holds(mixed.decode(cube))


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_it_moves_no_further_than_it_must(monotone: SearchSpace, data: st.DataObject) -> None:
    """Against trying all of 100 places on the way to the cheapest corner; the bisection ends within 1 / 4096 of it."""
    budget, cube = Budget(monotone, (bound(monotone, data),)), np.array(point(monotone, data))
    fitted = np.array(budget.fit(cube.tolist()))
    way = budget.cheapest - cube
    moved = float(np.nanmax(np.abs(fitted - cube)) / np.nanmax(np.abs(way)))
    assert np.allclose(fitted, cube + moved * way)  # on the straight way
    kept = [s for s in np.linspace(0, 1, 101) if budget.holds(monotone.decode((cube + s * way).clip(0, 1).tolist()))]
    assert kept[0] - 1 / 100 - 1e-9 <= moved <= kept[0] + 1 / 4096


def test_the_cheapest_corner_is_the_cheapest_policy(mixed_table: LayerTable) -> None:
    rules = (
        Rule("prune", {"prune_ratio": Real(0.0, 0.5, step=0.25)}, layers=("stem", "left")),
        Rule("quantize", {"weight_bits": Choice((4, 8)), "activation_bits": Choice((6, 8))}, layers=("joined", "left")),
        Rule("drop", {"dropped": Choice((False, True))}),
    )
    space = resolve(rules, ORDER, mixed_table, OPERATORS)
    budget = Budget(space, ())
    every = [
        Analytic(mixed_table).costs(space.policy({d.site: v for d, v in zip(space.decisions, values, strict=True)}))
        for values in itertools.product(*(d.domain.values(3) for d in space.decisions))
    ]
    for metric in ANALYTIC:
        assert budget.costs(space.decode(budget.cheapest.tolist()))[metric] == min(costs[metric] for costs in every)
        assert budget.costs(space.decode(budget.dearest.tolist()))[metric] == max(costs[metric] for costs in every)


def test_decisions_without_a_cost_are_no_part_of_the_corners_and_never_moved(mixed: SearchSpace) -> None:
    budget = Budget(mixed, (Constraint("macs_ratio", "<=", 0.3),))
    free = [i for i, d in enumerate(mixed.decisions) if d.site.operator == "distill"]
    assert free
    assert np.isnan(budget.cheapest[free]).all()
    assert np.isnan(budget.dearest[free]).all()
    cube = [0.9] * len(mixed)
    assert [budget.fit(cube)[i] for i in free] == [0.9] * len(free)


@pytest.mark.parametrize("metric", ["bops_ratio", "macs", "size_bytes", "size_ratio"])
@pytest.mark.parametrize(("sign", "share"), [("<=", 0.99), (">=", 1.01)])
def test_a_bound_that_nothing_keeps_is_refused_with_one_that_can_be_kept(
    monotone: SearchSpace, metric: str, sign: str, share: float
) -> None:
    corner = dict(zip(("<=", ">="), ends(monotone, metric), strict=True))[sign]
    top1, wrong = Constraint.parse("top1 >= 0.9"), Constraint(metric, sign, corner * share)
    with pytest.raises(
        SpecError, match=r"^constraints\[1\]: no policy of this space (is predicted to keep|keeps) "
    ) as error:
        Budget(monotone, (top1, wrong))
    shown = re.search(r"but (\S+ .= \S+) can be kept", str(error.value))
    assert shown
    reachable = Constraint.parse(shown[1])
    assert Budget(monotone, (reachable,)).constraints
    assert reachable.bound == pytest.approx(corner, rel=0.06)  # bytes are kept with a margin of a twentieth


def test_every_bound_that_nothing_keeps_is_named(monotone: SearchSpace) -> None:
    with pytest.raises(SpecError) as error:
        Budget(monotone, [Constraint.parse("macs_ratio <= 0.0001"), Constraint.parse("bops_ratio <= 0.00001")])
    assert [line.split(":")[0] for line in str(error.value).splitlines()] == ["constraints[0]", "constraints[1]"]


def test_only_what_follows_from_the_policy_is_a_budget(monotone: SearchSpace) -> None:
    asked = [Constraint.parse(text) for text in ("top1 >= 0.9", "macs_ratio <= 0.7", "latency_ms <= 3")]
    assert [c.metric for c in Budget(monotone, asked).constraints] == ["macs_ratio"]


def test_bytes_are_kept_with_a_margin_until_trials_tell_how_far_off_they_are(monotone: SearchSpace) -> None:
    budget, policy = Budget(monotone, ()), monotone.decode([0.5] * len(monotone))
    predicted = budget.costs(policy)["size_bytes"]
    tight, wide = (Constraint("size_bytes", "<=", predicted * room) for room in (1.02, DOUBT))
    assert [budget.holds(policy, [c]) for c in (tight, wide)] == [False, True]
    assert budget.learned is None
    budget.learn([trial(monotone, 0, policy, predicted * 1.01)])
    assert [budget.holds(policy, [c]) for c in (tight, wide)] == [True, True]
    budget.learn([trial(monotone, 1, policy, predicted * 1.03), trial(monotone, 2, policy, predicted)])
    assert budget.learned == pytest.approx(1.03)  # the worst that was seen
    assert not budget.holds(policy, [tight])


@pytest.mark.parametrize("share", [1.0, 1.001, 1.02, DOUBT, 1.5])
def test_a_bound_that_the_least_file_is_predicted_to_keep_is_searched_by_its_measured_bytes(
    monotone: SearchSpace, share: float
) -> None:
    least = ends(monotone, "size_bytes")[0]
    budget = Budget(monotone, [Constraint("size_bytes", "<=", least * share)])
    fitted = monotone.decode(budget.fit([1.0] * len(monotone)))
    assert budget.holds(fitted)
    assert budget.costs(fitted)["size_bytes"] <= least * max(share / DOUBT, 1.0)
    budget.learn([trial(monotone, 0, fitted, budget.costs(fitted)["size_bytes"] * 1.01)])
    assert budget.holds(fitted) == (share > 1.01), "the measurement is what counts as soon as there is one"
    with pytest.raises(SpecError, match="no policy of this space is predicted to keep size_bytes"):
        Budget(monotone, [Constraint("size_bytes", "<=", least * 0.999)])


def test_trials_that_say_nothing_of_the_bytes_are_skipped(monotone: SearchSpace) -> None:
    budget, policy = Budget(monotone, ()), monotone.decode([0.5] * len(monotone))
    predicted = budget.costs(policy)["size_bytes"]
    foreign = Policy({next(iter(policy)): 0.5})
    budget.learn(
        [
            Trial(0, policy, "", TrialState.FAILED, 0, reason="error"),
            trial(monotone, 1, foreign, predicted * 1.2),
            trial(monotone, 2, policy, predicted * 40),  # another network's
            trial(monotone, 3, policy, float("nan")),
            trial(monotone, -1, policy, predicted * 1.2),
        ]
    )
    assert budget.learned is None


def test_bounds_from_both_sides_are_kept_together(mixed_table: LayerTable) -> None:
    """Around a policy that there is, so that they can be; a pair for which no way is found is refused, and rare."""
    space = resolve((Rule("prune", {"prune_ratio": Real(0.0, 0.8, step=0.1)}),), ORDER, mixed_table, OPERATORS)
    free, refused = Budget(space, ()), 0
    for seed in range(20):
        draw = np.random.default_rng(seed)
        costs = free.costs(space.decode(draw.random(len(space)).tolist()))
        pair = (
            Constraint("macs_ratio", ">=", 0.95 * costs["macs_ratio"]),
            Constraint("params_ratio", "<=", 1.05 * costs["params_ratio"]),
        )
        try:
            budget = Budget(space, pair)
        except SpecError as error:
            assert "no policy of this space was found that keeps them all" in str(error)  # noqa: PT017
            refused += 1
            continue
        for _ in range(5):
            assert budget.holds(space.decode(budget.fit(draw.random(len(space)).tolist())))
    assert refused <= 2


def test_bounds_that_exclude_each_other_are_refused(mixed_table: LayerTable) -> None:
    space = resolve((Rule("prune", {"prune_ratio": Real(0.0, 0.8, step=0.1)}),), ORDER, mixed_table, OPERATORS)
    with pytest.raises(SpecError, match=r"constraints macs_ratio >= 0\.95 and params_ratio <= 0\.6: no policy"):
        Budget(space, [Constraint.parse("macs_ratio >= 0.95"), Constraint.parse("params_ratio <= 0.6")])
