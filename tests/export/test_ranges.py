"""How many answers two networks give differently, from few outputs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from automc.export.onnx.ranges import flips

OUTPUTS = st.tuples(st.integers(1, 6), st.integers(2, 4)).flatmap(
    lambda shape: st.tuples(*(arrays(np.float64, shape, elements=st.floats(-9, 9, width=32)) for _ in range(2)))
)


@given(OUTPUTS)
def test_every_lead_meets_every_change(outputs):
    one, two = outputs
    leads, changes = [], []
    for a, b in zip(one, two, strict=True):
        *_, second, first = np.argsort(a)
        leads.append(a[first] - a[second])
        changes.append(b[first] - b[second] - leads[-1])
    lost = [lead + change < 0 for lead in leads for change in changes if not np.isclose(lead, -change)]
    close = len(leads) ** 2 - len(lost)
    assert sum(lost) <= flips(one, two) * len(leads) ** 2 + 1e-9 <= sum(lost) + close + 2e-9


@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_a_hundred_outputs_tell_what_a_hundred_thousand_do(noise):
    draw = np.random.default_rng(0)
    one = draw.normal(size=(100_000, 10))
    two = one + noise * draw.normal(size=one.shape)
    share = float((one.argmax(1) != two.argmax(1)).mean())
    found = [flips(one[start : start + 128], two[start : start + 128]) for start in range(0, 12_800, 128)]
    counted = [(one[s : s + 128].argmax(1) != two[s : s + 128].argmax(1)).mean() for s in range(0, 12_800, 128)]
    assert np.mean(found) == pytest.approx(share, rel=0.15)  # a third class that wins is not counted
    assert np.std(found) < 0.75 * np.std(counted)


def test_maps_are_judged_place_by_place():
    draw = np.random.default_rng(1)
    one, two = draw.normal(size=(3, 5, 2, 4)), draw.normal(size=(3, 5, 2, 4))
    flat = [
        np.concatenate([each[i, :, y, x][None] for i in range(3) for y in range(2) for x in range(4)])
        for each in (one, two)
    ]
    assert flips(one, two) == flips(*flat)
