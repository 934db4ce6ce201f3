"""Text tables, JSON without NaN, and the forms of a trial list."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automc.app import frames
from automc.app.tables import cell, pairs, plain, table, to_json
from automc.core.metrics import METRICS
from automc.core.trial import TrialState
from automc.errors import SpecError


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("top1", 0.98765, "0.9877"),
        ("size_bytes", 12345.0, "12,345"),
        ("latency_ms", 0.33712, "0.337"),
        ("number", 12345, "12345"),
        ("top1", math.nan, "-"),
        ("reason", None, "-"),
        ("other", 0.123456, "0.1235"),
        ("kernel", (3, 3), "3x3"),
        ("flag", True, "yes"),
    ],
)
def test_cells_are_written_in_the_unit_of_their_column(column: str, value: object, text: str) -> None:
    assert cell(column, value) == text


def test_every_metric_has_a_way_to_be_written() -> None:
    assert all(float(cell(name, 0.5).replace(",", "")) in (0.0, 0.5) for name in METRICS)


def test_table_aligns_numbers_right_and_text_left() -> None:
    rows = [{"name": "a", "params": 5}, {"name": "long", "params": 12345}]
    assert table(rows).splitlines() == ["name  params", "----  ------", "a          5", "long  12,345"]
    assert table(rows, columns=["params"]).splitlines() == ["params", "------", "     5", "12,345"]
    assert table([], columns=["a", "b"]).splitlines() == ["a  b", "-  -"]


def test_pairs_line_up() -> None:
    assert pairs({"top1": 0.5, "latency_ms": 1.0}).splitlines() == ["top1        0.5000", "latency_ms  1.000"]


def test_json_has_no_nan_and_no_numpy() -> None:
    data = {
        "nan": math.nan,
        "inf": np.float64("inf"),
        "count": np.int64(3),
        "array": np.array([1.0, math.nan]),
        "frame": pd.DataFrame({"top1": [0.5, math.nan], "state": ["complete", None]}),
        "path": Path("a") / "b",
        "state": TrialState.FAILED,
        "shape": (3, 3),
    }
    assert json.loads(to_json(data)) == {
        "nan": None,
        "inf": None,
        "count": 3,
        "array": [1.0, None],
        "frame": [{"top1": 0.5, "state": "complete"}, {"top1": None, "state": None}],
        "path": str(Path("a") / "b"),
        "state": "failed",
        "shape": [3, 3],
    }


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20))
def test_any_data_becomes_strict_json(data: object) -> None:
    def refuse(text: str) -> None:
        raise AssertionError(text)

    assert json.loads(to_json(data), parse_constant=refuse) == plain(data)


FRAME = pd.DataFrame(
    {
        "number": [0, 1],
        "state": ["complete", "failed"],
        "reason": ["", "nan"],
        "top1": [0.5, math.nan],
        "fingerprint": ["ab" * 32] * 2,
    }
)


class Stdout(io.TextIOWrapper):
    """A stdout with a binary side, as the real one has."""

    def __init__(self, terminal: bool = False) -> None:
        self.written = io.BytesIO()
        self._terminal = terminal
        super().__init__(self.written)

    def isatty(self) -> bool:
        return self._terminal


def test_table_shortens_fingerprints_and_hides_an_empty_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Stdout()
    monkeypatch.setattr("sys.stdout", out)
    frames.write(FRAME.head(1), "table", list(FRAME.columns), None)
    said = out.written.getvalue().decode()
    assert said.splitlines()[0].split() == ["number", "state", "top1", "fingerprint"]
    assert said.splitlines()[2].split() == ["0", "complete", "0.5000", "abababababab"]
    frames.write(FRAME.head(0), "table", list(FRAME.columns), None)
    assert out.written.getvalue().decode().endswith("no trials\n")


def test_csv_json_and_parquet_keep_every_value(tmp_path: Path) -> None:
    frames.write(FRAME, "csv", ["number"], tmp_path / "csv")
    # The reason "nan" is text here, so pandas must not take it for a missing number.
    back = pd.read_csv(tmp_path / "csv", keep_default_na=False, na_values={"top1": [""]})
    pd.testing.assert_frame_equal(back, FRAME, check_dtype=False)
    frames.write(FRAME, "parquet", ["number"], tmp_path / "parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "parquet"), FRAME, check_dtype=False)
    frames.write(FRAME, "json", ["number"], tmp_path / "json")
    assert json.loads((tmp_path / "json").read_text())[1]["top1"] is None


def test_parquet_goes_to_a_pipe_but_not_to_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Stdout()
    monkeypatch.setattr("sys.stdout", out)
    frames.write(FRAME, "parquet", [], None)
    assert len(pd.read_parquet(out.written)) == 2
    monkeypatch.setattr("sys.stdout", Stdout(terminal=True))
    with pytest.raises(SpecError, match="--format parquet: not text; add -o FILE"):
        frames.write(FRAME, "parquet", [], None)


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"trials\.csv: cannot be written: No such file or directory"):
        frames.write(FRAME, "csv", [], tmp_path / "no" / "trials.csv")


def test_a_fresh_file_replaces_nothing(tmp_path: Path) -> None:
    frames.save(tmp_path / "a", b"one", fresh=True)
    with pytest.raises(SpecError, match="exists already; choose another name"):
        frames.save(tmp_path / "a", b"two", fresh=True)
    assert (tmp_path / "a").read_bytes() == b"one"
