"""Clamped walks against every completion there is."""

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automc.core.analytic import Analytic
from automc.core.budget import Budget
from automc.core.layers import Group, Layer, LayerTable
from automc.core.metrics import Constraint
from automc.core.policy import Policy
from automc.core.rules import Rule, resolve
from automc.core.space import Choice, Real, SearchSpace
from automc.operators import OPERATORS, ORDER
from automc.proposers.ddpg.episode import Turn, Walk, in_order, nearest, scaled, snapped

METRICS = ("macs_ratio", "bops_ratio", "params")
"""Those that fall with every ratio and every bit; of bytes, headers make an exception."""


def chain(widths: list[int]) -> LayerTable:
    """Convolutions in a row, each of which feeds the next."""
    layers, groups, inputs = [], [], 4
    for i, width in enumerate(widths):
        name, weights = f"conv{i}", inputs * width * 9
        layers.append(Layer(name, i, "conv", inputs, width, (3, 3), (1, 1), (width, 4, 4), weights, weights * 16, name))
        groups.append(Group(name, width, (name,), (f"conv{i + 1}",) if i + 1 < len(widths) else ()))
        inputs = width
    return LayerTable(tuple(layers), tuple(groups), (4, 4, 4))


@st.composite
def spaces(draw) -> SearchSpace:
    widths = draw(st.lists(st.integers(4, 24), min_size=2, max_size=3))
    ratios = draw(st.lists(st.sampled_from([0.0, 0.2, 0.4, 0.5, 0.7, 0.9]), min_size=2, max_size=3, unique=True))
    bits = draw(st.lists(st.sampled_from([2, 4, 8, 32]), min_size=1, max_size=2, unique=True))
    rules = (
        Rule("prune", {"prune_ratio": Choice(tuple(ratios))}),
        Rule("quantize", {"weight_bits": Choice(tuple(bits)), "activation_bits": Choice((8,))}),
    )
    return resolve(rules, ORDER, chain(widths), OPERATORS)


def turns_of(space: SearchSpace) -> list[Turn]:
    """At 0 the cheapest value, at 1 the dearest: most pruned and fewest bits first."""
    found = []
    for decision in in_order(space):
        values = sorted(decision.domain.values(2), reverse=decision.site.operator == "prune")
        found.append(Turn(decision, lambda a, values=values: values[min(int(a * len(values)), len(values) - 1)]))
    return found


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_clamped_action_is_the_largest_with_a_completion_that_keeps_the_bound(data):
    space = data.draw(spaces())
    analytic, turns = Analytic(space.layers), turns_of(space)
    values = [list(dict.fromkeys(turn.value(a) for a in np.linspace(0, 1, 30))) for turn in turns]

    metric, sign = data.draw(st.sampled_from(METRICS)), data.draw(st.sampled_from(["<=", ">="]))

    @functools.cache
    def cost(*chosen) -> float:
        policy = {**space.fixed, **{t.decision.site: v for t, v in zip(turns, chosen, strict=True)}}
        return analytic.costs(Policy(policy))[metric]

    ends = cost(*(v[0] for v in values)), cost(*(v[-1] for v in values))
    bound = ends[0] + data.draw(st.floats(0.02, 0.98)) * (ends[1] - ends[0])
    constraint = Constraint(metric, sign, bound)
    limit = bound * (1 + 1e-9) if sign == "<=" else -bound * (1 - 1e-9)

    def completes(prefix) -> bool:
        return any(
            cost(*prefix, *rest) * (1 if sign == "<=" else -1) <= limit
            for rest in itertools.product(*values[len(prefix) :])
        )

    walk = Walk(space, turns, Budget(space, (constraint,)))
    walk.start((constraint,))
    taken = []
    for turn, allowed in zip(turns, values, strict=True):
        wanted = data.draw(st.floats(0, 1))
        asked, value = turn.value(wanted), turn.value(walk.clamped(wanted))
        ways = [v for v in (allowed if sign == "<=" else allowed[::-1]) if completes([*taken, v])]
        reachable = ways[: ways.index(asked) + 1] if asked in ways else ways
        assert value == reachable[-1]
        walk.take(value)
        taken.append(value)
        assert walk.keeps()
    assert walk.costs[metric] == pytest.approx(cost(*taken), rel=1e-12)


def test_decisions_go_in_the_order_of_their_layers():
    rules = (
        Rule("distill", {"kd_alpha": Real(0.0, 1.0)}),
        Rule("quantize", {"weight_bits": Choice((2, 8)), "activation_bits": Choice((8,))}),
        Rule("prune", {"prune_ratio": Real(0.0, 0.5, step=0.1)}),
    )
    space = resolve(rules, ORDER, chain([8, 8, 8]), OPERATORS)
    layers = [decision.site.layer for decision in in_order(space)]
    assert layers == sorted(layers, key=lambda name: (name == "*", name))
    assert len(layers) == len(space)


@given(
    st.lists(st.integers(-20, 20), min_size=1, max_size=8, unique=True).map(sorted),
    st.floats(-30, 30),
)
def test_the_nearest_value_is_the_nearest(values, wanted):
    assert nearest(values, wanted) == min(values, key=lambda value: (abs(value - wanted), value))


def test_numbers_snap_to_domains():
    rules = (Rule("prune", {"prune_ratio": Real(0.1, 0.5, step=0.1)}), Rule("distill", {"kd_alpha": Real(0.0, 0.9)}))
    space = resolve(rules, ORDER, chain([8, 8]), OPERATORS)
    snap = {d.site.setting: snapped(d) for d in space.decisions}
    assert [snap["prune_ratio"](x) for x in (-1, 0.24, 0.26, 0.9)] == [0.1, 0.2, 0.3, 0.5]
    assert [snap["kd_alpha"](x) for x in (-1, 0.24, 2.0)] == [0.0, 0.24, 0.9]


def test_features_are_scaled_from_least_to_largest_and_constant_ones_stay():
    found = scaled([[2.0, 7.0], [4.0, 7.0], [10.0, 7.0]])
    np.testing.assert_allclose(found, [[0, 7], [0.25, 7], [1, 7]])
