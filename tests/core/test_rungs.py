"""Who is promoted to the next rung."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from automc.core.metrics import Constraint, Measurement, Objective, losses
from automc.core.pareto import ranks
from automc.core.policy import Policy, Site
from automc.core.rungs import promotion
from automc.core.study import Rung
from automc.core.trial import Trial, TrialState


def on_rung(number, rung, top1, size, state=TrialState.COMPLETE):
    policy = Policy({Site("prune", "a", "prune_ratio"): number / 100})
    return Trial(number, policy, rung=rung, state=state, measurement=Measurement({"top1": top1, "size_bytes": size}))


TWO = (Rung(0), Rung(5, share=1.0))
BOTH = (Objective("top1"), Objective("size_bytes", "minimize"))


def promoted(trials, constraints=(), most=99):
    """Numbers in the order of promotion; the next rung gives each the figures it has."""
    trials, order = list(trials), []
    while (up := promotion(trials, trials, TWO, BOTH, constraints)) is not None and len(order) < most:
        order.append(up.number)
        trials.append(replace(up, rung=1))
    return order


def test_promotions_go_where_none_was_yet():
    """A front of nine, sizes a geometric series: the middle, the ends, the halves and so on; then the rest."""
    front_of_nine = [on_rung(n, 0, 0.5 + n / 20, 1000.0 * 2**n) for n in range(9)]
    worse = [on_rung(10 + n, 0, 0.4 + n / 20, 1000.0 * 2**n) for n in range(9)]
    order = promoted(front_of_nine + worse)
    assert order[0] == 4
    assert set(order[1:3]) == {0, 8}
    assert set(order[3:5]) == {2, 6}
    assert set(order[5:9]) == {1, 3, 5, 7}
    assert sorted(order[9:]) == [10 + n for n in range(9)]
    assert promoted([replace(t, number=90 - t.number) for t in front_of_nine], most=1) == [86]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), min_size=1, max_size=20), st.integers(0, 1000))
def test_promotions_follow_the_ranks(points, scale):
    trials = [on_rung(n, 0, t / 20, float(s * (scale + 1))) for n, (t, s) in enumerate(points)]
    found = ranks(np.array([losses(BOTH, t.measurement.metrics) for t in trials]))
    order = promoted(trials)
    assert sorted(order) == list(range(len(points)))
    assert [found[n] for n in order] == sorted(found)


def test_what_is_not_finite_comes_last():
    trials = [on_rung(n, 0, top1, 10.0) for n, top1 in enumerate((np.nan, 0.9, np.inf, 0.8))]
    assert promoted(trials) == [1, 3, 0, 2]


def test_what_the_next_rung_makes_of_a_figure_decides_who_keeps_a_constraint():
    """Repair gives back three quarters of what was lost, so 0.93 will be 0.98; of 0.1, far off, nobody knows."""
    limit = (Constraint.parse("top1 >= 0.95"),)
    low = {0: 1.0, 1: 0.99, 2: 0.97, 3: 0.96, 4: 0.93, 5: 0.1}
    below = [on_rung(n, 0, top1, 9000.0 - 1000 * n) for n, top1 in low.items()]
    above = [on_rung(n, 1, 1 - (1 - top1) / 4, 9000.0 - 1000 * n) for n, top1 in low.items()]
    rival = on_rung(6, 0, 0.955, 8999.0)  # keeps it as it is, but is dominated
    for known, best in ((3, 3), (4, 4), (5, 6)):
        trials = [*below, *above[:known], rival]
        assert promotion(trials, trials, TWO, BOTH, limit).number == best
    assert promotion(trials, trials, TWO, BOTH, (Constraint.parse("size_bytes >= 4000"),)).number == 5


def test_promotions_count_hopeless_trials_as_finished():
    def trial(number, state, top1, reason=""):
        policy = Policy({Site("prune", "a", "prune_ratio"): number / 100})
        found = Measurement({"top1": top1, "size_bytes": 1.0})
        return Trial(number, policy, state=state, measurement=found, reason=reason)

    done = [trial(n, TrialState.COMPLETE, 0.5 + n / 100) for n in range(2)]
    hopeless = [trial(n, TrialState.STOPPED, 0.9, "dominated") for n in range(2, 4)]
    by_stopper = [trial(n, TrialState.STOPPED, 0.9) for n in range(2, 4)]
    aims = (Objective("top1"),), ()
    assert promotion(done + hopeless, done + hopeless, (Rung(0), Rung(5, 0.25)), *aims).number == 1
    assert promotion(done + by_stopper, done + by_stopper, (Rung(0), Rung(5, 0.25)), *aims) is None
