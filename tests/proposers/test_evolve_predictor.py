"""The predictor of evolve against exact least squares, closed forms, and draws it has not seen."""

import numpy as np
import pytest
from evolve_land import land, mixed
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal, spearmanr
from sklearn.linear_model import Ridge

from automc.core.batch import BatchCosts
from automc.proposers.evolve.ensemble import Ensemble
from automc.proposers.evolve.features import Features
from automc.proposers.evolve.predictor import Predictor
from automc.proposers.evolve.trend import Trend


def regression(count: int, width: int, noise: float, seed: int = 0):
    draw = np.random.default_rng(seed)
    x = draw.standard_normal((count, width)) / np.sqrt(width)
    return x, x @ draw.standard_normal(width) + noise * draw.standard_normal(count), draw


@pytest.mark.parametrize("shape", [(12, 30), (80, 9)])
def test_the_mean_of_the_members_is_the_ridge_solution(shape):
    x, y, draw = regression(*shape, noise=0.2)
    fitted = Ensemble.fitted(x, y, draw)
    exact = Ridge(alpha=fitted.noise / fitted.signal, fit_intercept=False, solver="cholesky").fit(x, y)
    assert fitted.weights.mean(axis=1) == pytest.approx(exact.coef_, abs=1e-8)


def test_the_members_spread_as_the_posterior_does():
    x, y, draw = regression(10, 4, noise=0.3)
    fitted = Ensemble.fitted(x, y, draw, members=20_000)
    precision = np.eye(4) / fitted.signal + x.T @ x / fitted.noise
    exact = np.linalg.inv(precision)
    # The standard error of a variance from 10,000 independent draws is 1.4 % of it.
    assert np.cov(fitted.weights) == pytest.approx(exact, abs=0.06 * exact.diagonal().max())


def test_the_variances_are_those_of_the_largest_evidence():
    """Against scipy's density of the targets, on a grid around what was chosen."""
    x, y, draw = regression(200, 15, noise=0.4)
    fitted = Ensemble.fitted(x, y, draw)

    def density(signal: float, noise: float) -> float:
        return multivariate_normal(cov=signal * x @ x.T + noise * np.eye(len(y))).logpdf(y)

    best = density(fitted.signal, fitted.noise)
    assert fitted.noise == pytest.approx(0.16, rel=0.35)
    for by in (0.2, 5.0):
        assert density(fitted.signal * by, fitted.noise) < best
        assert density(fitted.signal, fitted.noise * by) < best


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 40), sign=st.sampled_from([1, -1]))
def test_a_trend_never_turns(seed, count, sign):
    draw = np.random.default_rng(seed)
    trend = Trend(draw.exponential(2.0, count), draw.standard_normal(count), sign)
    t = np.linspace(0.0, 30.0, 200)
    assert (np.diff(trend(t)) * sign >= -1e-9).all()
    middle, step = t[1:-1], 1e-5
    slope = (trend(middle + step) - trend(middle - step)) / (2 * step)
    assert trend.slope(middle) == pytest.approx(slope, abs=1e-6, rel=1e-3)


def test_a_trend_follows_a_curve_that_levels_out():
    t = np.random.default_rng(0).exponential(1.0, 60)
    trend = Trend(t, 0.95 * np.exp(-t), -1)
    late = np.linspace(0.05, 3.0, 50)
    assert trend(late) == pytest.approx(0.95 * np.exp(-late), abs=0.02)


def experience(table: bool, count: int, seed: int, layers: int = 8):
    """Described policies and their measured top1, the first ``count`` of them told to a predictor."""
    evaluator, space = land(layers, seed, table)
    features = Features(space, BatchCosts(space))
    draw = np.random.default_rng(seed)
    cubes = mixed(space, count + 200, draw)
    top1 = np.array([evaluator.baseline["top1"] * np.exp(-evaluator.harm(space.decode(c.tolist()))) for c in cubes])
    spread = features.of(draw.random((256, len(space)))).plain.std(axis=0)
    known, found = np.arange(count), features.of(cubes)
    predictor = Predictor(spread, (-1,), [seed])
    assert predictor.fit(found[known], np.zeros(count), top1[:count, None])
    return predictor(found[np.arange(count, count + 200)])[:, 0], top1[count:]


@pytest.mark.parametrize("table", [False, True])
def test_nine_of_ten_unseen_policies_lie_in_their_interval(table):
    inside = []
    for seed in range(4):
        drawn, true = experience(table, 100, seed)
        mean, deviation = drawn.mean(axis=1), drawn.std(axis=1)
        inside.append(np.mean(np.abs(true - mean) <= 1.645 * deviation))
    assert 0.82 <= np.mean(inside) <= 0.97


def test_unseen_policies_are_ranked_and_the_table_helps_when_little_is_known():
    with_table, without = [], []
    for seed in range(3):
        with_table.append(spearmanr(*(a if a.ndim == 1 else a.mean(axis=1) for a in experience(True, 12, seed)))[0])
        without.append(spearmanr(*(a if a.ndim == 1 else a.mean(axis=1) for a in experience(False, 12, seed)))[0])
    assert min(with_table) > 0.93
    assert np.mean(without) < np.mean(with_table)
    drawn, true = experience(False, 150, 0)
    assert spearmanr(drawn.mean(axis=1), true)[0] > 0.94


def test_expensive_figures_are_learned_on_top_of_cheap_ones():
    """Rung 1 is a line through rung 0 and a little of its own; six of its figures are enough to know the line."""
    _, space = land(8, 0, table=False)
    features = Features(space, BatchCosts(space))
    draw = np.random.default_rng(3)
    cubes = draw.random((400, len(space)))
    cheap = 0.9 * np.exp(-((cubes[:, :6] ** 2).sum(axis=1)) / 2)
    dear = 0.35 + 0.6 * cheap + 0.003 * draw.standard_normal(400)
    found, spread = features.of(cubes), features.of(cubes).plain.std(axis=0)
    few, many = np.arange(6), np.arange(120)
    both = Predictor(spread, (-1,), [0])
    rows = np.concatenate([many, few])
    assert both.fit(found[rows], np.repeat([0.0, 1.0], [120, 6]), np.concatenate([cheap[many], dear[few]])[:, None])
    alone = Predictor(spread, (-1,), [0])
    assert alone.fit(found[few], np.ones(6), dear[few, None])
    unseen = np.arange(120, 400)
    error = [np.sqrt(np.mean((p(found[unseen])[:, 0].mean(axis=1) - dear[unseen]) ** 2)) for p in (both, alone)]
    assert error[0] < 0.5 * error[1]
    assert error[0] < 0.5 * np.sqrt(np.mean((cheap[unseen] - dear[unseen]) ** 2))


def test_too_few_figures_predict_nothing():
    _, space = land(3, 0, table=False)
    features = Features(space, BatchCosts(space))
    found = features.of(np.random.default_rng(0).random((4, len(space))))
    assert not Predictor(np.ones(found.plain.shape[1]), (-1,), [0]).fit(found, np.zeros(4), np.ones((4, 1)))
