"""What trials say: which teach, what of several rungs, which few are remembered."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_optuna import CUBE, STEPS, told, trial

from automc.core.metrics import Constraint, Measurement, Objective
from automc.core.pareto import ranks
from automc.core.policy import Policy, Site
from automc.core.trial import Trial, TrialState
from automc.proposers.told import Told

TWO = (Objective("loss"), Objective("size_bytes"))
BOUNDS = (Constraint.parse("params_ratio <= 0.5"), Constraint.parse("top1 >= 0.2"))


def book(memory: int = 0, objectives=TWO, constraints=BOUNDS) -> Told:
    return Told(CUBE, objectives, constraints, memory)


def some(number: int, policy: Policy | None = None, rung: int = 0, **metrics: float) -> Trial:
    policy = policy or CUBE.decode(np.random.default_rng(number).random(4).tolist())
    return trial(CUBE, number, policy, rung, **{"top1": 0.5, **metrics})


def test_only_what_compares_teaches():
    known = book()
    good, policy = some(0, loss=1.0, size_bytes=2.0, params_ratio=0.75), some(1).policy
    strange = Policy(dict.fromkeys(policy, 2.0))
    narrow = Policy(dict(list(policy.items())[:3]))
    wide = Policy({**dict(policy.items()), Site("quantize", "layer0", "weight_bits"): 4})
    silent = [
        some(1, loss=math.nan),
        some(1, size_bytes=math.inf),
        some(1, top1=math.nan),
        Trial(1, policy, "", TrialState.COMPLETE, 0, Measurement({"loss": 1.0, "size_bytes": 1.0})),
        Trial(1, policy, "", TrialState.FAILED, reason="error"),
        Trial(1, policy, "", TrialState.STOPPED, 0, good.measurement),
        Trial(1, strange, "", TrialState.COMPLETE, 0, good.measurement),
        Trial(1, narrow, "", TrialState.COMPLETE, 0, good.measurement),
    ]
    assert known.tell([*silent, good, *silent]) == [0]
    assert known.tell([Trial(2, wide, "", TrialState.STOPPED, 0, good.measurement, reason="dominated")]) == [1]
    assert (known.rows[0].losses, known.rows[0].excess) == ((1.0, 2.0), (0.25, pytest.approx(-0.3)))
    assert known.rows[0].violation == 0.25


def test_figures_of_the_highest_rung_count():
    known, policy = book(), some(0).policy
    assert known.tell([some(0, policy, loss=1.0), some(1), some(2, policy, loss=2.0)]) == [0, 1, 2]
    assert [row.losses[0] for row in known.rows[::2]] == [1.0, 2.0]
    assert known.tell([some(3, policy, rung=1, loss=3.0)]) == [0, 2]
    assert known.tell([some(4, policy, loss=4.0)]) == [3]
    assert known.tell([some(5, policy, rung=1, loss=5.0)]) == [4]
    assert [known.rows[i].losses[0] for i in (0, 2, 3, 4)] == [3.0, 3.0, 3.0, 5.0]


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=40), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_the_best_are_feasible_first_and_then_by_rank(rows, count):
    known = book(constraints=(Constraint.parse("params_ratio <= 2"),))
    known.tell([some(n, loss=float(a), size_bytes=float(b), params_ratio=float(c)) for n, (a, b, c) in enumerate(rows)])
    index = list(range(len(rows)))
    found = known.best(index, count)
    assert len(found) == len(set(found)) == min(count, len(rows))
    inside = [i for i in index if rows[i][2] <= 2]
    rank = dict(zip(inside, ranks(np.array([rows[i][:2] for i in inside], dtype=float).reshape(-1, 2)), strict=True))

    def place(i: int) -> tuple[float, int]:
        return (max(0, rows[i][2] - 2), int(rank.get(i, 0)))

    left = [i for i in index if i not in found]
    assert not left or max(place(i) for i in found) <= min(place(i) for i in left)


def test_few_are_the_best_and_the_last_whatever_the_pieces():
    trials = [some(n, top1=0.5) for n in range(300)]
    whole, pieces = book(40), book(40)
    whole.tell(trials)
    for t in trials:
        pieces.tell([t])
        assert len(pieces.few()) <= 40
    assert whole.few() == pieces.few() == sorted(whole.few())
    assert set(range(290, 300)) <= set(whole.few())
    inside = [i for i in range(300) if whole.rows[i].violation == 0.0]
    rank = ranks(np.array([whole.rows[i].losses for i in inside]))
    front = {i for i, r in zip(inside, rank, strict=True) if r == 0}
    assert len(front) <= 20
    assert front <= set(whole.few()), "nothing of the front is forgotten while half the memory holds it"
    short = book(40)
    short.tell(trials[:40])
    assert short.few() == list(range(40))


def test_scalars_keep_debs_order():
    known = book(objectives=TWO[:1])
    rng = np.random.default_rng(0)
    known.tell([some(n, loss=float(rng.normal()), params_ratio=float(p)) for n, p in enumerate(rng.random(50))])
    index = list(range(50))
    found = known.scalars(index)
    inside = [i for i in index if known.rows[i].violation == 0.0]
    outside = [i for i in index if i not in inside]
    assert [found[i] for i in inside] == [known.rows[i].losses[0] for i in inside]
    assert min(found[i] for i in outside) > max(found[i] for i in inside)
    assert sorted(outside, key=lambda i: found[i]) == sorted(outside, key=lambda i: known.rows[i].violation)
    assert np.isfinite(known.scalars(outside)).all()
    assert known.scalars([]).shape == (0,)


def test_told_reads_spaces_with_steps():
    known = Told(STEPS, TWO, ())
    assert known.tell(told(STEPS, 30)) == list(range(30))
