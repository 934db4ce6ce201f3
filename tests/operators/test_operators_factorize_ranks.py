"""Rank rules against cumulative sums, planted ranks, and the equations of the paper."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from automc.operators.low_rank.ranks import _root, by_energy, by_ratio, by_vbmf

SQUARES = st.lists(st.floats(0, 1e3), min_size=1, max_size=12).map(lambda v: sorted(v, reverse=True))


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("ratio", "full", "rank"), [(0.3, 10, 3), (0.39, 10, 3), (0.01, 10, 1), (1.0, 7, 7), (0.7, 10, 7), (0.5, 1, 1)]
)
def test_ratio_is_rounded_down_and_keeps_one(ratio, full, rank):
    assert by_ratio(ratio, torch.ones(full)) == rank


@given(SQUARES, st.floats(0.01, 1.0))
def test_energy_is_the_first_rank_that_reaches_the_share(values, share):
    rank = by_energy(share, tensor(values))
    sums = np.cumsum(values)
    assert sums[rank - 1] >= share * sums[-1] * (1 - 1e-9)
    assert rank == 1 or sums[rank - 2] < share * sums[-1]


def spectrum(rows, columns, rank, noise, seed=0):
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, columns))
    matrix = signal + noise * rng.normal(size=(rows, columns))
    return tensor(np.linalg.svd(matrix, compute_uv=False) ** 2)


@pytest.mark.parametrize(("rows", "columns"), [(40, 144), (64, 64), (64, 576), (30, 200)])
@pytest.mark.parametrize("rank", [1, 4, 10])
@pytest.mark.parametrize("noise", [0.02, 0.5])
@pytest.mark.parametrize("seed", [0, 1])
def test_vbmf_finds_the_planted_rank(rows, columns, rank, noise, seed):
    assert by_vbmf(spectrum(rows, columns, rank, noise, seed), columns) == rank


def test_vbmf_keeps_one_of_pure_noise_and_of_nothing():
    assert by_vbmf(spectrum(40, 100, 1, 1.0) * 0, 100) == 1
    noise = np.random.default_rng(0).normal(size=(40, 100))
    assert by_vbmf(tensor(np.linalg.svd(noise, compute_uv=False) ** 2), 100) == 1


def test_vbmf_drops_what_drowns_in_the_noise():
    """A singular value below (1 + sqrt(L / M)) sqrt(M v) lies inside the bulk of the noise's (Marchenko & Pastur)."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(50, 200))
    u, v = np.linalg.qr(rng.normal(size=(50, 2)))[0], np.linalg.qr(rng.normal(size=(200, 2)))[0]
    edge = math.sqrt(200) + math.sqrt(50)
    matrix = noise + 3 * edge * np.outer(u[:, 0], v[:, 0]) + 0.2 * edge * np.outer(u[:, 1], v[:, 1])
    assert by_vbmf(tensor(np.linalg.svd(matrix, compute_uv=False) ** 2), 200) == 1


@given(st.floats(1e-6, 1e6))
def test_vbmf_knows_no_unit_and_no_dead_rows(factor):
    squares = spectrum(20, 60, 3, 0.3)
    assert by_vbmf(squares * factor, 60) == 3
    assert by_vbmf(torch.cat([squares, torch.zeros(7)]), 60) == 3


@pytest.mark.parametrize("alpha", [1e-3, 0.1, 0.5, 1.0])
def test_the_threshold_solves_the_papers_equation(alpha):
    def phi(z):
        return np.log(z + 1) / z - 0.5

    wanted = optimize.brentq(lambda t: phi(t) + phi(t / alpha), 1e-4 * alpha, 20)
    assert _root(alpha) == pytest.approx(wanted, rel=1e-6)
    # Nakajima et al. give 2.5129 sqrt(alpha) as an approximation; it is a good one for matrices that are not too long.
    assert alpha < 0.1 or _root(alpha) == pytest.approx(2.5129 * math.sqrt(alpha), rel=0.05)


def test_the_noise_found_minimises_the_papers_free_energy():
    """Equation of the empirical solution, written anew and minimised by scipy from many starts."""
    squares = spectrum(12, 40, 3, 1.0, seed=3).numpy()
    rows, columns, alpha = 12, 40, 12 / 40
    tau = optimize.brentq(lambda t: np.log1p(t) / t + alpha * np.log1p(t / alpha) / t - 1, 1e-3, 20)
    threshold = (1 + tau) * (1 + alpha / tau)

    def energy(log_variance):
        total = 0.0
        for x in squares / (columns * np.exp(log_variance)):
            total += x - np.log(x)
            if x > threshold:
                t = 0.5 * (x - (1 + alpha) + np.sqrt((x - (1 + alpha)) ** 2 - 4 * alpha))
                total += np.log(t + 1) + alpha * np.log(t / alpha + 1) - t
        return total

    high = np.log(squares.sum() / (rows * columns))
    starts = np.linspace(high - 8, high, 60)
    best = min(
        (optimize.minimize_scalar(energy, bounds=b, method="bounded") for b in pairwise(starts)), key=lambda r: r.fun
    )
    kept = int((squares > columns * np.exp(best.x) * threshold).sum())
    assert by_vbmf(tensor(squares), columns) == kept == 3
