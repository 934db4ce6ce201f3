"""The pictures of a front, as text and as PNG."""

from io import BytesIO

import pytest
from PIL import Image

from automc.app.charts import Chart, chart, pick_axes, png, scatter
from automc.core.metrics import Constraint, Measurement, Objective
from automc.core.pareto import front
from automc.core.policy import Policy, Site
from automc.core.study import ModelSpec, Part, StudySpec
from automc.core.trial import Trial, TrialState
from automc.errors import SpecError

SPEC = StudySpec(
    name="demo",
    model=ModelSpec("digits_net"),
    data=Part("digits"),
    rules=(),
    order=(),
    objectives=(Objective("top1"), Objective("size_bytes")),
    constraints=(Constraint.parse("macs_ratio <= 0.5"),),
)


def trial(number: int, top1: float, size: float, macs: float = 0.4) -> Trial:
    metrics = {"top1": top1, "size_bytes": size, "macs_ratio": macs}
    policy = Policy({Site("quantize", "a", "weight_bits"): number})
    return Trial(number, policy, state=TrialState.COMPLETE, measurement=Measurement(metrics))


TRIALS = [
    trial(0, 0.9, 100.0),
    trial(1, 0.95, 200.0),
    trial(2, 0.8, 140.0),
    trial(3, 0.99, 120.0, macs=0.7),
    Trial(4, Policy({}), state=TrialState.FAILED, reason="nan"),
]
BASELINE = {"top1": 0.97, "size_bytes": 1000.0}


def drawn(axes: tuple[str, str] = ("size_bytes", "top1")) -> Chart:
    return chart(SPEC, TRIALS, front(TRIALS, SPEC.objectives, SPEC.constraints), BASELINE, axes)


def test_trials_are_sorted_into_front_others_and_infeasible() -> None:
    data = drawn()
    assert data.front == ((100.0, 0.9), (200.0, 0.95))
    assert data.numbers == (0, 1)
    assert data.others == ((140.0, 0.8),)
    assert data.infeasible == ((120.0, 0.99),)
    assert data.baseline == (1000.0, 0.97)
    assert data.stairs


def test_of_very_many_trials_a_chart_has_the_front_and_some_and_says_how_many_are_missing() -> None:
    members = front(TRIALS, SPEC.objectives, SPEC.constraints)
    data = chart(SPEC, TRIALS[2:3], members, BASELINE, ("size_bytes", "top1"), left_out=4)
    assert (data.numbers, data.others, data.infeasible) == ((0, 1), ((140.0, 0.8),), ())
    assert scatter(data).endswith("B original    4 more trials")


def test_axes_default_to_the_objectives() -> None:
    assert pick_axes(SPEC, None, None) == ("size_bytes", "top1")
    assert pick_axes(SPEC, "top1", None) == ("top1", "size_bytes")
    assert pick_axes(SPEC, "macs_ratio", None) == ("macs_ratio", "top1")


@pytest.mark.parametrize(
    ("x", "y", "said"), [("sise", None, "--x sise: no such metric"), ("top1", "top1", "both are top1")]
)
def test_axes_that_cannot_be_drawn(x: str, y: str | None, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        pick_axes(SPEC, x, y)


def test_scatter_puts_each_mark_in_its_corner() -> None:
    # y: 0.99 at the top, 0.8 at the bottom, 0.0475 a line. x: 100 to 1000, 100 a column.
    assert scatter(drawn(), width=10, height=5).splitlines()[:7] == [
        "0.9900 |o        B",
        "       | *",
        "       |*",
        "       |",
        "0.8000 |.",
        "       +----------",
        "        100  1,000",
    ]


def test_scatter_spreads_orders_of_magnitude_over_a_logarithm() -> None:
    spots = ((1.0, 0.0), (10.0, 0.0), (100.0, 0.0))
    said = scatter(Chart("demo", "size_bytes", "top1", spots, (0, 1, 2), (), (), None, True), width=11, height=1 + 2)
    assert "*    *    *" in said
    assert "size_bytes (logarithmic)" in said


def test_scatter_of_nothing_and_of_one_point() -> None:
    empty = Chart("demo", "size_bytes", "top1", (), (), (), (), None, True)
    assert scatter(empty) == "(no complete trial has both metrics yet)"
    one = Chart("demo", "size_bytes", "top1", ((5.0, 0.0),), (0,), (), (), None, True)
    assert sum(line.count("*") for line in scatter(one).splitlines()[:-1]) == 1


@pytest.mark.parametrize("axes", [("size_bytes", "top1"), ("macs_ratio", "top1")])
def test_png_is_a_large_enough_picture_with_blue_and_orange(axes: tuple[str, str]) -> None:
    with Image.open(BytesIO(png(drawn(axes)))) as image:
        assert (image.format, image.size) == ("PNG", (1440, 900))
        colours = {pixel for _, pixel in image.convert("RGB").getcolors(maxcolors=1 << 24) or []}
    assert (0x1F, 0x5F, 0xA8) in colours  # the front
    # The original model has no macs_ratio here, so it is in the first picture only.
    assert ((0xD9, 0x73, 0x0D) in colours) == (axes[0] == "size_bytes")


def test_a_picture_of_nothing_is_refused() -> None:
    with pytest.raises(SpecError, match="no complete trial of demo has both size_bytes and top1"):
        png(Chart("demo", "size_bytes", "top1", (), (), (), (), None, True))
