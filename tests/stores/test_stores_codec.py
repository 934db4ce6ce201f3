"""What a column can hold, and back."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automc.core.study import StudySpec
from automc.errors import StoreError
from automc.stores.codec import dumps, join, loads, read_spec, split

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(PLAIN)
def test_plain_data_survives_as_json_that_any_tool_reads(data: object) -> None:
    text = dumps(data)
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert repr(loads(text)) == repr(data)


def test_scalars_of_numpy_become_numbers_and_tuples_lists() -> None:
    data = {"a": np.float32(0.5), "b": np.int64(3), "c": (1, np.float64("nan")), 4: True}
    assert repr(loads(dumps(data))) == repr({"a": 0.5, "b": 3, "c": [1, math.nan], "4": True})


@pytest.mark.parametrize("value", [0.0, 1, -2.5e300, math.inf, -math.inf, math.nan])
def test_a_number_is_taken_apart_and_put_together(value: float) -> None:
    finite, kind = split(value)
    assert (finite is not None) == math.isfinite(value)
    assert join(finite, kind) == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize("change", [{"name": None}, {"hurry": 1}, {"objectives": {"tp1": "maximize"}}, {"rules": 3}])
def test_a_spec_that_cannot_be_read_is_a_store_error(spec: StudySpec, change: dict[str, object]) -> None:
    data = {key: value for key, value in (spec.to_data() | change).items() if key not in change or value is not None}
    with pytest.raises(StoreError, match="study 's': its stored spec cannot be read by this automc: "):
        read_spec("s", dumps(data))
