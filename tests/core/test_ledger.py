"""The ledger: after any sequence of changes what it says is what the whole policy costs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automc.core.analytic import Analytic
from automc.core.ledger import Ledger
from automc.core.policy import Policy, Site
from automc.core.space import SearchSpace


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_changes_one_after_another_cost_what_the_policy_costs(mixed: SearchSpace, data: st.DataObject) -> None:
    ledger, analytic = Ledger(mixed), Analytic(mixed.layers)
    written = dict(mixed.fixed)
    places = st.integers(0, len(mixed.decisions) - 1)
    moves = data.draw(st.lists(st.lists(st.tuples(places, st.floats(0, 1)), max_size=4), max_size=8))
    for move in moves:
        values = {mixed.decisions[i].site: mixed.decisions[i].domain.decode(u) for i, u in move}
        ledger.put(values)
        written |= values
        assert ledger.costs() == pytest.approx(analytic.costs(Policy(written)), rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_only_the_layers_a_decision_touches_cost_something_else(mixed: SearchSpace, data: st.DataObject) -> None:
    analytic = Analytic(mixed.layers)
    cube = data.draw(st.lists(st.floats(0, 1), min_size=len(mixed), max_size=len(mixed)))
    decision = mixed.decisions[data.draw(st.integers(0, len(mixed) - 1))]
    before = mixed.decode(cube)
    after = Policy({**before, decision.site: decision.domain.decode(data.draw(st.floats(0, 1)))})
    rows = [
        {
            layer.name: analytic.layer(
                layer.name, {op: policy.settings(op) for op in ("drop", "prune", "factorize", "sparsify", "quantize")}
            )
            for layer in mixed.layers.layers
        }
        for policy in (before, after)
    ]
    changed = {name for name in rows[0] if rows[0][name] != rows[1][name]}
    assert changed <= set(analytic.touched(decision.site))


def test_what_is_not_written_counts_as_neutral_and_fixed_settings_from_the_start(mixed: SearchSpace) -> None:
    costs = Ledger(mixed).costs()
    bits = Site("quantize", "stem", "weight_bits")
    assert mixed.fixed[bits] == 8
    assert costs == Analytic(mixed.layers).costs(Policy({bits: 8}))
    stem = mixed.layers.layer("stem").macs * 32 * (32 - 8)
    assert costs["bops"] == mixed.layers.macs * 32 * 32 - stem
    assert costs["macs_ratio"] == 1.0


def test_decisions_without_a_cost_touch_nothing(mixed: SearchSpace) -> None:
    ledger = Ledger(mixed)
    free = {d.site.setting for d in mixed.decisions if not ledger.touches(d.site)}
    assert free == {"kd_temperature"}
