"""Curves and bands against their definitions, trial by trial."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automc.core.metrics import Constraint, Measurement, Objective, feasible
from automc.core.pareto import covered
from automc.core.policy import Policy
from automc.core.regret import band, best_curve, covered_curve
from automc.core.trial import Trial, TrialState

TOP1, MACS = Objective("top1"), Objective("macs_ratio")
BOUND = (Constraint.parse("macs_ratio <= 0.6"),)
BASELINE = {"top1": 0.9, "macs_ratio": 1.0}


def trial(number: int, top1: float, macs: float, seconds: float = 1.0, **changes) -> Trial:
    metrics = Measurement({"top1": top1, "macs_ratio": macs}, seconds=seconds)
    return Trial(number, Policy({}), "", changes.pop("state", TrialState.COMPLETE), 0, metrics, **changes)


FIGURES = st.sampled_from([0.1, 0.3, 0.5, 0.6, 0.7, 0.9])
STATES = st.sampled_from([TrialState.COMPLETE] * 3 + [TrialState.FAILED, TrialState.STOPPED])
TRIALS = st.lists(st.tuples(FIGURES, FIGURES, STATES), min_size=1, max_size=8).map(
    lambda rows: [trial(n, a, b, float(n), state=state) for n, (a, b, state) in enumerate(rows)]
)


@settings(max_examples=50)
@given(TRIALS)
def test_the_best_so_far_is_the_best_of_the_trials_so_far(trials):
    for objective, best in ((TOP1, max), (MACS, min)):
        curve = best_curve(trials, objective, BOUND)
        for count in range(1, len(trials) + 1):
            fit = [t.measurement.metrics for t in trials[:count] if t.state is TrialState.COMPLETE]
            fit = [metrics[objective.metric] for metrics in fit if feasible(BOUND, metrics)]
            assert curve.values[count - 1] == best(fit) if fit else math.isnan(curve.values[count - 1])


@settings(max_examples=50)
@given(TRIALS)
def test_what_is_covered_is_what_the_trials_so_far_cover(trials):
    curve = covered_curve(trials, (TOP1, MACS), BOUND, BASELINE)
    wanted = [covered(trials[: n + 1], (TOP1, MACS), BOUND, BASELINE) for n in range(len(trials))]
    assert curve.values.tolist() == pytest.approx(wanted)
    assert (np.diff(curve.values) >= 0).all()


@settings(max_examples=50)
@given(TRIALS, st.lists(st.floats(0, 60), min_size=1, max_size=5), FIGURES)
def test_a_curve_is_a_staircase_of_its_trials(trials, efforts, level):
    curve = covered_curve(trials, (TOP1, MACS), (), BASELINE)
    for by, spent in (("evaluations", range(1, len(trials) + 1)), ("seconds", np.cumsum([t.number for t in trials]))):
        for effort, value in zip(efforts, curve.at(efforts, by), strict=True):
            done = [v for e, v in zip(spent, curve.values, strict=True) if e <= effort]
            assert value == done[-1] if done else math.isnan(value)
        reached = [e for e, v in zip(spent, curve.values, strict=True) if v >= level]
        assert curve.first(level, by) == (reached[0] if reached else None)


def test_what_the_store_answered_costs_nothing_and_what_failed_is_an_evaluation():
    failed = Trial(2, Policy({}), "", TrialState.FAILED, reason="error")
    trials = [trial(0, 0.5, 0.5, 2.0), trial(1, 0.5, 0.5, 2.0, twin=0), failed, trial(3, 0.7, 0.5, 3.0)]
    curve = best_curve(trials, TOP1, ())
    assert curve.evaluations.tolist() == [1, 1, 2, 3]
    assert curve.seconds.tolist() == [2.0, 2.0, 2.0, 5.0]
    assert curve.first(0.7) == 3
    assert curve.first(0.7, by="seconds") == 5.0
    assert curve.first(0.71) is None


def test_a_minimised_metric_falls_and_regret_is_the_distance_from_the_best():
    trials = [trial(0, 0.5, 0.7), trial(1, 0.5, 0.9), trial(2, 0.9, 0.3)]
    macs, top1 = best_curve(trials, MACS, ()), best_curve(trials, TOP1, ())
    assert macs.values.tolist() == [0.7, 0.7, 0.3]
    assert macs.first(0.3) == 3
    assert macs.regret(0.1).values.tolist() == pytest.approx([0.6, 0.6, 0.2])
    assert top1.regret(0.95).values.tolist() == pytest.approx([0.45, 0.45, 0.05])
    assert top1.regret(0.95).first(0.1) == 3


def test_a_band_has_the_quartiles_of_the_searches_and_nothing_where_one_has_nothing():
    curves = [best_curve([trial(0, 0.1 * i, 0.5), trial(1, 0.1 * i + 0.05, 0.5)], TOP1, ()) for i in range(1, 6)]
    found = band(curves, [0, 1, 2])
    assert np.isnan([found.median[0], found.low[0], found.high[0]]).all()
    assert [found.low[1], found.median[1], found.high[1]] == pytest.approx([0.2, 0.3, 0.4])
    assert [found.low[2], found.median[2], found.high[2]] == pytest.approx([0.25, 0.35, 0.45])
    late = best_curve([trial(0, 0.9, 0.9), trial(1, 0.9, 0.5)], TOP1, BOUND)
    assert np.isnan(band([*curves, late], [1]).median).all()
    assert not np.isnan(band([*curves, late], [2]).median).any()


def test_a_search_without_trials_has_an_empty_curve():
    for curve in (best_curve([], TOP1, ()), covered_curve([], (TOP1, MACS), (), BASELINE)):
        assert len(curve.values) == 0
        assert curve.first(0.0) is None
        assert np.isnan(curve.at([0, 5])).all()
