"""The filter language: what it means, and what it says to a mistake."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automc.core.metrics import Measurement
from automc.core.policy import Policy
from automc.core.trial import Trial, TrialState
from automc.errors import SpecError
from automc.stores.filters import matches, parse

METRICS = {"top1": 0.95, "size_ratio": 0.2, "loss": math.nan, "params": 1000.0}
FOUND = Measurement(METRICS, seconds=4.0, errors={"top1": 0.01}, samples=475)
DONE = Trial(7, Policy({}), state=TrialState.COMPLETE, rung=1, measurement=FOUND)
FAILED = Trial(8, Policy({}), state=TrialState.FAILED, reason="oom")


@pytest.mark.parametrize(
    ("text", "done", "failed"),
    [
        ("top1 >= 0.95 and size_ratio < 0.2", False, False),
        ("top1 >= 0.95 and size_ratio <= 0.2", True, False),
        ("0.9<top1", True, False),
        ("not top1 < 0.9", True, True),
        ("macs == 1", False, False),
        ("macs != 1", False, False),
        ("not macs != 1", True, True),
        ("loss != 1", True, False),
        ("loss == loss or loss < 1 or loss > 1", False, False),
        ("params == 1e3", True, False),
        ("params == +1000.0", True, False),
        ("number == 7 or number == 8", True, True),
        ("number in (8, 9)", False, True),
        ("rung not in (0)", True, False),
        ("macs not in (0)", False, False),
        ("loss not in (0)", True, False),
        ("seconds > 3.5", True, False),
        ("top1_error < 0.02 and samples == 475", True, False),
        ("loss_error >= 0 or loss_error < 0", False, False),
        ("samples >= 0", True, False),
        ("reason == dominated", False, False),
        ("state == complete", True, False),
        ("state != 'complete'", False, True),
        ('state in (failed, "stopped")', False, True),
        ('reason == ""', True, False),
        ("oom == reason", False, True),
        ("top1 > 1 or number == 7 and rung == 1", True, False),
        ("(top1 > 1 or number == 7) and rung == 2", False, False),
        ("not top1 > 1 and number == 7", True, False),
        ("not not number == 8", False, True),
        ("top1 > size_ratio", True, False),
        ("  top1\n>=\t.5 ", True, False),
    ],
)
def test_a_filter_means_what_it_says(text: str, done: bool, failed: bool) -> None:
    assert (matches(parse(text), DONE), matches(parse(text), FAILED)) == (done, failed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tp1 > 1", r"^filter, column 1: unknown name 'tp1', did you mean 'top1'\? \(names: number, rung"),
        ("rung == 1 and sise_bytes < 3", r"^filter, column 15: unknown name 'sise_bytes', did you mean 'size_bytes'\?"),
        ("rung == 1 and x in (3)", r"column 15: unknown name 'x'"),
        ("top1", r"column 5: its end is not expected"),
        ("top1 = 1", r"column 6: '=' is not expected here"),
        ("top1 >", r"column 7: its end is not expected"),
        ("(top1 > 1", r"column 10: its end is not expected"),
        ("top1 > 1)", r"column 9: '\)' is not expected"),
        ("top1 > 1 rung == 2", r"column 10: 'rung' is not expected"),
        ("top1 > 95%", r"column 10: '%' is not expected"),
        ("0.1 < top1 < 0.2", r"column 12: '<' is not expected"),
        ("1 < 2", r"column 1: a comparison needs a name"),
        ("state < 'x'", r"column 7: state is a word and knows ==, != and in, not '<'"),
        ("state == complet", r"column 10: state is never 'complet', did you mean 'complete'\? \(it is one of: waiting"),
        ("reason in (nan, om)", r"column 17: reason is never 'om', did you mean 'oom'\?"),
        ("state == 1", r"column 10: state is never '1'"),
        ("top1 == 'high'", r"column 9: text can be compared with state and reason only, not 'high'"),
        ("top1 in (rung)", r"column 10: a list holds values, not the name 'rung'"),
        ("top1 in ()", r"column 10: '\)' is not expected"),
        ("top1 > 1; DROP TABLE automc_trial", r"column 9: ';' is not expected"),
        ("top1 > 1" + " or top1 > 1" * 200, r"^filter: at most 2000 characters, not 2408"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_its_column(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.text(alphabet="top1 rung<>=!()andornotin,.'\"0x\n;-é", max_size=30))
def test_any_text_is_a_filter_or_a_spec_error(text: str) -> None:
    found, said = None, ""
    try:
        found = parse(text)
    except SpecError as error:
        said = str(error)
    assert said.startswith("filter") if found is None else matches(found, DONE) in (True, False)


@pytest.mark.parametrize("text", ["(" * 900 + "rung == 1" + ")" * 900, "not " * 400 + "rung == 1"])
def test_deep_nesting_is_no_trouble(text: str) -> None:
    assert matches(parse(text), DONE)
