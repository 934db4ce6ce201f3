"""The sensitivity table: straight lines between probes, and its trip through JSON."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automc.core.layers import LayerTable
from automc.core.policy import Site
from automc.core.sensitivity import MEASURES, Probe, Sensitivity

PRUNE, BITS, OFF = (Site(*words) for words in (("prune", "a", "prune_ratio"), ("quantize", "a", "weight_bits"), "xyz"))
numbers = st.floats(0, 1e6, allow_nan=False)


@given(st.dictionaries(st.floats(-100, 100), numbers, min_size=1, max_size=8), st.floats(-200, 200))
def test_it_interpolates_as_numpy_does(known: dict[float, float], at: float) -> None:
    probes = [Probe(PRUNE, value, {"loss": damage}) for value, damage in known.items()]
    values = sorted(known)
    wanted = np.interp(at, values, [known[value] for value in values])
    assert Sensitivity(tuple(probes)).damage(PRUNE, at) == pytest.approx(wanted, rel=1e-6, abs=1e-6)


def test_by_site_and_measure() -> None:
    found = Sensitivity(
        (
            Probe(BITS, 32, {"loss": 0.0, "trace": 0.0}),
            Probe(BITS, 2, {"loss": 1.0, "trace": 8.0}),
            Probe(PRUNE, 0.5, {"loss": 3.0, "trace": 5.0}),
        )
    )
    assert found
    assert found.measures == ("loss", "trace")
    assert list(MEASURES) == ["loss", "error", "trace"]
    assert [found.damage(BITS, bits, "trace") for bits in (2, 17, 32)] == [8.0, 4.0, 0.0]
    assert found.damage(PRUNE, 0.1) == found.damage(PRUNE, 0.9) == 3.0
    assert found.damage(PRUNE, 0.5, "error") == 0.0 == found.damage(OFF, 1)


def test_beside_an_impossible_value_nothing_is_known_to_be_possible() -> None:
    damages = {0.0: 0.0, 0.4: 1.0, 0.8: math.inf}
    found = Sensitivity(tuple(Probe(PRUNE, value, {"loss": damage}) for value, damage in damages.items()))
    assert [found.damage(PRUNE, value) for value in (0.2, 0.4, 0.5, 0.9)] == [0.5, 1.0, math.inf, math.inf]


@given(st.lists(st.tuples(numbers, st.one_of(numbers, st.just(math.inf))), max_size=6))
def test_a_trip_through_json_with_infinity(rows: list[tuple[float, float]]) -> None:
    probes = tuple(Probe(PRUNE, value, {"loss": damage, "error": 1.0}) for value, damage in rows)
    text = json.dumps(Sensitivity(probes).to_data(), allow_nan=False)
    assert Sensitivity.from_data(json.loads(text)).probes == probes


def test_nothing_measured(mixed_table: LayerTable) -> None:
    empty = Sensitivity()
    assert not empty
    assert empty.measures == ()
    assert empty.damage(PRUNE, 0.5) == 0.0
    assert Sensitivity.from_data(empty.to_data()) == empty
    assert LayerTable.from_data(json.loads(json.dumps(mixed_table.to_data()))) == mixed_table
