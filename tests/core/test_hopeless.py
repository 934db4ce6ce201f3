"""The sequential test against scipy, against counting all subsets, and against its own promise on many policies."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from automc.core.hopeless import Contest, Doubt, Rival, Sample, hypergeometric, looks
from automc.core.metrics import Constraint, Estimate, Objective
from automc.errors import SpecError

BOTH = (Objective("top1"), Objective("size_bytes"))


def share(hits, seen, total):
    value = hits / seen
    return Sample(Estimate(value, math.sqrt(value * (1 - value) / seen), seen), seen, total, hits=hits)


def mean(values, total):
    values = np.asarray(values, dtype=float)
    return Sample(Estimate(values.mean(), values.std() / math.sqrt(len(values)), len(values)), len(values), total)


def contest(rivals, known=1000.0, doubt=0.01, total=800, objectives=BOTH, constraints=()):
    return Contest(objectives, constraints, {"size_bytes": known}, tuple(rivals), doubt, total)


def rival(number, size, **metrics):
    return Rival(number, {"size_bytes": size, **metrics})


# Probabilities


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_the_tail_is_scipys(data):
    total = data.draw(st.integers(1, 6000))
    all_right, seen = data.draw(st.integers(0, total)), data.draw(st.integers(0, total))
    right = data.draw(st.integers(0, seen))
    expected = stats.hypergeom.cdf(right, total, all_right, seen)
    # Both work with logarithms of factorials up to 6,000!, about 5e4, so ten digits are left of sixteen.
    assert hypergeometric(right, seen, all_right, total) == pytest.approx(expected, rel=1e-8, abs=1e-300)


def test_the_tail_counts_subsets():
    for total, seen in [(1, 1), (5, 2), (7, 3), (8, 8)]:
        for all_right in range(total + 1):
            counts = [sum(i < all_right for i in s) for s in itertools.combinations(range(total), seen)]
            for right in range(seen + 1):
                expected = sum(count <= right for count in counts) / len(counts)
                assert hypergeometric(right, seen, all_right, total) == pytest.approx(expected, rel=1e-12)


def test_beyond_the_ends_nothing_or_everything_is_possible():
    assert hypergeometric(3, 5, 11, 10) == 0.0
    assert hypergeometric(0, 5, -2, 10) == 1.0
    assert share(40, 50, 100).chance_of_at_least(1.01) == 0.0
    assert share(40, 50, 100).chance_of_at_least(-1.0) == 1.0
    assert share(40, 50, 100).chance_of_at_most(1.0) == 1.0


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.integers(2, 400), st.data())
def test_more_right_is_likelier_and_a_better_rival_less_likely(total, data):
    seen = data.draw(st.integers(1, total))
    k, bound = data.draw(st.integers(0, seen - 1)), data.draw(st.integers(0, total - 1))
    for chance in (Sample.chance_of_at_least, lambda s, b: -Sample.chance_of_at_most(s, b)):
        few, many = share(k, seen, total), share(k + 1, seen, total)
        assert chance(few, bound / total) <= chance(many, bound / total) + 1e-12
        assert chance(few, (bound + 1) / total) <= chance(few, bound / total) + 1e-12


def test_at_most_is_at_least_of_the_misses():
    sample = share(60, 80, 200)
    assert sample.chance_of_at_most(0.6) == pytest.approx(stats.hypergeom.cdf(20, 200, 80, 80), rel=1e-10)
    assert sample.chance_of_at_least(0.9) == pytest.approx(stats.hypergeom.cdf(60, 200, 180, 80), rel=1e-10)


def test_a_count_is_found_again_from_a_share():
    """K / N times N is not always K in floating point."""
    for total in (359, 1000, 5000):
        for all_right in range(0, total + 1, 7):
            expected = hypergeometric(30, 64, all_right, total)
            assert share(30, 64, total).chance_of_at_least(all_right / total) == expected


def test_a_mean_has_a_normal_tail_with_the_finite_population_correction():
    values = np.random.default_rng(0).exponential(1.0, 200)
    sample, total = mean(values, 1000), 1000
    error = values.std(ddof=1) / math.sqrt(200) * math.sqrt((total - 200) / (total - 1))
    for bound in (0.7, 0.95, 1.3):
        assert sample.chance_of_at_most(bound) == pytest.approx(stats.norm.sf((values.mean() - bound) / error))
        assert sample.chance_of_at_least(bound) == pytest.approx(stats.norm.cdf((values.mean() - bound) / error))


@pytest.mark.parametrize(
    "sample",
    [
        mean([2.0] * 100, 1000),  # no spread: nothing is known of its error
        mean([2.0], 1000),
        Sample(Estimate(math.nan, 0.1, 100), 100, 1000),
        Sample(Estimate(2.0, math.inf, 100), 100, 1000),
        Sample(Estimate(2.0, 0.1, 100), 100, 1000, mean=False),
    ],
)
def test_what_tells_nothing_is_never_unlikely(sample):
    assert sample.chance_of_at_most(-100.0) == sample.chance_of_at_least(100.0) == 1.0


# When to look


def test_looks_double_and_leave_small_splits_alone():
    assert looks(5000) == [157, 313, 625, 1250, 2500]
    assert looks(359) == [90, 180]
    assert looks(127) == [64]
    assert looks(126) == looks(1) == []
    assert contest([], doubt=0.01).looks == []
    assert contest([rival(0, 1, top1=0.9)], doubt=0.0).looks == []


@pytest.mark.parametrize("doubt", [-0.1, 0.6, math.nan])
def test_a_doubt_is_a_probability(doubt):
    with pytest.raises(SpecError, match=r"doubt: must be a probability in \[0, 0.5\]"):
        Doubt(doubt)


# The verdict


def test_the_level_is_shared_by_the_looks_and_says_who_wins():
    """800 inputs: looks at 100, 200, 400, so each has a third of the doubt."""
    better = rival(7, 900.0, top1=720 / 800)
    limit = 0.01 / 3
    ks = [k for k in range(101) if stats.hypergeom.cdf(k, 800, 720, 100) < limit]
    assert 70 < ks[-1] < 90
    ended = contest([better]).verdict({"top1": share(ks[-1], 100, 800)})
    assert ended.reason == "dominated"
    assert ended.message.startswith("trial 7 costs no more, top1 0.9; top1 0.")
    assert ended.message.endswith("on the first 100 of 800 inputs; doubt 0.01")
    assert contest([better]).verdict({"top1": share(ks[-1] + 1, 100, 800)}) is None


def test_a_rival_that_costs_more_says_nothing_and_one_that_costs_the_same_does():
    bad = {"top1": share(10, 100, 800)}
    assert contest([rival(0, 1001.0, top1=0.9)]).verdict(bad) is None
    assert contest([rival(0, 1000.0, top1=0.9)]).verdict(bad).reason == "dominated"


def test_of_the_rivals_that_cost_no_more_only_the_best_is_asked():
    """So there is one question, however many rivals there are: the level does not fall."""
    many = [rival(n, 100.0 + n, top1=0.5 + n / 1000) for n in range(400)]
    k = max(k for k in range(101) if stats.hypergeom.cdf(k, 800, round(0.899 * 800), 100) < 0.01 / 3)
    ended = contest(many).verdict({"top1": share(k, 100, 800)})
    assert "trial 399" in ended.message


def test_two_task_objectives_must_both_be_lost():
    aims = (Objective("top1"), Objective("loss"), Objective("size_bytes"))
    better = rival(3, 900.0, top1=0.9, loss=0.3)
    high, low = mean(np.random.default_rng(1).normal(2.0, 0.3, 100), 800), mean([0.25, 0.35] * 50, 800)
    bad = share(10, 100, 800)
    assert contest([better], objectives=aims).verdict({"top1": bad, "loss": high}).reason == "dominated"
    assert contest([better], objectives=aims).verdict({"top1": bad, "loss": low}) is None
    assert contest([better], objectives=aims).verdict({"top1": share(90, 100, 800), "loss": high}) is None


def test_several_undominated_rivals_share_the_level():
    aims = (Objective("top1"), Objective("agreement"), Objective("size_bytes"))
    pair = [rival(1, 900.0, top1=0.9, agreement=0.5), rival(2, 900.0, top1=0.5, agreement=0.9)]
    k = max(k for k in range(101) if stats.hypergeom.cdf(k, 800, 720, 100) < 0.01 / 3)
    seen = {"top1": share(k, 100, 800), "agreement": share(5, 100, 800)}
    assert contest(pair[:1], objectives=aims).verdict(seen).reason == "dominated"
    assert stats.hypergeom.cdf(k, 800, 720, 100) > 0.01 / 6
    assert contest(pair, objectives=aims).verdict(seen) is None


def test_what_is_known_only_at_the_end_saves_everybody():
    aims = (*BOTH, Objective("latency_ms"))
    better = rival(3, 900.0, top1=0.9, latency_ms=1.0)
    assert contest([better], objectives=aims).verdict({"top1": share(10, 100, 800)}) is None


def test_a_metric_that_is_no_mean_saves_everybody():
    aims = (Objective("top1_worst_class"), Objective("size_bytes"))
    sample = Sample(Estimate(0.1, 0.01, 100), 100, 800, mean=False)
    better = rival(3, 900.0, top1_worst_class=0.9)
    assert contest([better], objectives=aims).verdict({"top1_worst_class": sample}) is None


@pytest.mark.parametrize(
    ("text", "hits", "ended"),
    [("top1 >= 0.9", 60, True), ("top1 >= 0.9", 88, False), ("top1 <= 0.2", 60, True), ("top1 <= 0.6", 60, False)],
)
def test_a_constraint_that_is_surely_broken_ends_the_evaluation(text, hits, ended):
    found = contest([], constraints=(Constraint.parse(text),)).verdict({"top1": share(hits, 100, 800)})
    assert (found is not None) == ended
    if ended:
        assert found.reason == "infeasible"
        assert found.message.startswith(f"breaks {text}; top1 0.6 ± 0.049 on the first 100 of 800 inputs")


def test_a_constraint_on_a_cost_is_not_a_matter_of_inputs():
    limit = (Constraint.parse("size_bytes <= 10"),)
    assert contest([], constraints=limit).verdict({"top1": share(60, 100, 800)}) is None


# The promise


def run(right, contest):
    """Walk the inputs of one policy; after how many it was ended, or None."""
    hits = np.cumsum(right)
    for seen in contest.looks:
        if contest.verdict({"top1": share(int(hits[seen - 1]), seen, contest.total)}):
            return seen
    return None


@pytest.mark.parametrize("doubt", [0.05, 0.01])
def test_a_policy_as_good_as_its_rival_is_ended_no_more_often_than_doubted(doubt):
    """The worst case: exactly as many right as the rival. 4,000 orders; the limit is the expected count + 4 sigma."""
    draw, total, count = np.random.default_rng(2), 640, 4000
    right = np.arange(total) < 512
    asked = contest([rival(0, 900.0, top1=512 / total)], doubt=doubt, total=total)
    # The verdict depends on the hits alone, so each look has a largest number of them that ends.
    ends = {
        n: max(k for k in range(n + 1) if k == 0 or asked.verdict({"top1": share(k, n, total)})) for n in asked.looks
    }
    wrong = 0
    for _ in range(count):
        hits = np.cumsum(draw.permutation(right))
        wrong += any(hits[n - 1] <= ends[n] for n in asked.looks)
    assert wrong <= doubt * count + 4 * math.sqrt(doubt * count)
    assert wrong > doubt * count / 20, "a test that never errs has no power either"


def test_the_front_of_many_policies_is_that_of_the_full_evaluation():
    """Six searches over 120 policies whose right inputs are known: costs against accuracy, hard and easy inputs."""
    saved = []
    for seed in range(6):
        draw, total, doubt = np.random.default_rng(seed), 2000, 0.001
        cost = draw.random(120)
        ability = 0.55 + 0.4 * cost - 0.35 * draw.random(120) ** 2
        hardness = draw.normal(0.0, 1.0, total)
        right = draw.random((120, total)) < 1 / (1 + np.exp(hardness - 6 * (ability[:, None] - 0.5)))
        full = right.mean(1)
        rivals, used = [], 0
        for number in range(120):
            asked = Contest(BOTH, (), {"size_bytes": cost[number]}, tuple(rivals), doubt, total)
            seen = run(right[number], asked)
            used += seen or total
            if seen is None:
                rivals.append(rival(number, cost[number], top1=full[number]))
        kept = [r.number for r in rivals]
        assert undominated(full[kept], cost[kept], kept) == undominated(full, cost, range(120))
        saved.append(1 - used / (120 * total))
    assert np.median(saved) > 0.3


def undominated(top1, cost, numbers):
    return {
        n
        for n, a, c in zip(numbers, top1, cost, strict=True)
        if not any((b >= a and d <= c and (b, d) != (a, c)) for b, d in zip(top1, cost, strict=True))
    }
