"""Ratios of times that were measured in turn, and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from automc.core.interleave import CONFIDENCE, FEWEST, Ratio, ratio, summary


@pytest.mark.parametrize("rounds", [FEWEST, 7, 20, 50])
def test_the_interval_is_as_narrow_as_the_binomial_law_allows(rounds: int) -> None:
    pairs = np.arange(1.0, rounds + 1)
    found = ratio(np.random.default_rng(0).permutation(pairs), np.ones(rounds))
    j = int(found.low)  # the j-th smallest of 1, 2, ..., n is j
    assert found == Ratio(float(np.median(pairs)), j, rounds + 1 - j)
    assert 1 - 2 * binom.cdf(j - 1, rounds, 0.5) >= CONFIDENCE > 1 - 2 * binom.cdf(j, rounds, 0.5)


def test_it_holds_the_true_ratio_as_often_as_it_says() -> None:
    draws = np.random.default_rng(1).lognormal(np.log(0.5), 0.3, (2000, 30))
    held = [found.low <= 0.5 <= found.high for found in (ratio(row, np.ones(30)) for row in draws)]
    assert np.mean(held) >= CONFIDENCE - 3 * (CONFIDENCE * (1 - CONFIDENCE) / 2000) ** 0.5


def test_pairs_cancel_what_slows_both_down() -> None:
    noise = np.random.default_rng(2).lognormal(0, 1, 40)
    assert ratio(0.25 * noise, noise) == Ratio(0.25, 0.25, 0.25)
    assert summary([3.0, 1.0, 2.0]).median == 2.0
