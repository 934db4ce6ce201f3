"""Losses as proposers compare them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from automc.core.metrics import Objective
from automc.core.pareto import ranks
from automc.proposers.scale import compared

OBJECTIVES = (Objective("top1"), Objective("size_bytes", "minimize"), Objective("loss", "minimize"))
rows = st.lists(st.tuples(st.floats(-1.0, 0.0), st.floats(1.0, 1e9), st.floats(0.0, 5.0)), min_size=1, max_size=20)


@given(rows, st.floats(0.01, 100.0))
def test_a_share_of_a_cost_is_worth_as_much_anywhere(points, factor):
    losses = np.array(points)
    moved = compared(OBJECTIVES, losses * [1.0, factor, 1.0]) - compared(OBJECTIVES, losses)
    np.testing.assert_allclose(moved, np.broadcast_to([0.0, np.log(factor), 0.0], moved.shape), atol=1e-9)
    np.testing.assert_array_equal(compared(OBJECTIVES, losses)[:, [0, 2]], losses[:, [0, 2]])


@given(st.lists(st.tuples(st.floats(-1.0, 0.0), st.integers(1, 10**9)), min_size=1, max_size=30))
def test_the_ranks_stay(points):
    losses = np.array(points, dtype=np.float64)
    np.testing.assert_array_equal(ranks(compared(OBJECTIVES[:2], losses)), ranks(losses))
