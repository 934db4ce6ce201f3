"""The live view: its numbers against the core's own, its lines and its picture."""

import io
import random

import pytest
from rich.console import Console

from automc.app.board import Board, cells
from automc.app.live import Lines, Screen, clock, counting, watch
from automc.core.layers import Group, Layer, LayerTable
from automc.core.metrics import Constraint, Measurement, Objective
from automc.core.pareto import covered, front
from automc.core.policy import Policy, Site
from automc.core.study import Budget, ModelSpec, Part, StudySpec
from automc.core.trial import Trial, TrialState

SPEC = StudySpec(
    name="demo",
    model=ModelSpec("digits_net"),
    data=Part("digits"),
    rules=(),
    order=("prune", "quantize"),
    objectives=(Objective("top1"), Objective("size_ratio")),
    constraints=(Constraint.parse("macs_ratio <= 0.9"),),
    budget=Budget(trials=40),
)
BASELINE = {"top1": 0.98, "size_ratio": 1.0, "macs_ratio": 1.0}


def layer(name: str, index: int, group: str = "") -> Layer:
    return Layer(name, index, "conv", 8, 8, (3, 3), (1, 1), (8, 8, 8), 576, 36864, group)


TABLE = LayerTable(
    layers=(layer("stem", 0, "stem"), layer("mid", 1), layer("tail", 2, "stem")),
    groups=(Group("stem", 8, ("stem", "tail"), ("mid",)),),
    input_shape=(1, 8, 8),
)


def trial(number: int, top1: float, size: float, macs: float = 0.5) -> Trial:
    policy = Policy({Site("prune", "stem", "prune_ratio"): 0.6, Site("quantize", "mid", "weight_bits"): number})
    metrics = {"top1": top1, "size_ratio": size, "macs_ratio": macs, "seconds": 1.25}
    return Trial(number, policy, state=TrialState.COMPLETE, measurement=Measurement(metrics, seconds=1.25))


def failed(number: int, reason: str) -> Trial:
    return Trial(number, Policy({}), state=TrialState.FAILED, reason=reason, message="first\nsecond")


@pytest.mark.parametrize("seed", range(5))
def test_the_front_kept_event_by_event_is_the_front_of_all(seed: int) -> None:
    draw = random.Random(seed)
    trials = [trial(n, draw.random(), draw.random(), draw.random()) for n in range(60)]
    board = Board(SPEC, BASELINE)
    for n, one in enumerate(trials):
        wanted = front(trials[: n + 1], SPEC.objectives, SPEC.constraints)
        assert board.finished(one) == (one in wanted)
        assert board.front == wanted
        assert board.covered == pytest.approx(covered(trials[: n + 1], SPEC.objectives, SPEC.constraints, BASELINE))


def test_counts_failures_and_time_left() -> None:
    now = [100.0]
    board = Board(SPEC, BASELINE, known=[trial(0, 0.9, 0.5), failed(1, "nan")], clock=lambda: now[0])
    assert (board.done, board.total, board.left) == (2, 40, None)
    now[0] += 10
    board.added(trial(2, 0.8, 0.4))
    assert board.open == {2}
    board.finished(trial(2, 0.8, 0.4))
    board.finished(failed(3, "oom"))
    board.finished(failed(4, "nan"))
    assert board.open == set()
    assert dict(board.failures) == {"nan": 2, "oom": 1}
    # 3 trials of this run in 10 s, 35 of 40 to go: those known before say nothing about the pace.
    assert board.left == pytest.approx(10 / 3 * 35)
    assert board.best() == {"top1": 0.9, "size_ratio": 0.4}


def test_a_budget_of_seconds_bounds_the_time_left() -> None:
    from dataclasses import replace

    now = [0.0]
    board = Board(replace(SPEC, budget=Budget(trials=40, seconds=30)), BASELINE, clock=lambda: now[0])
    assert board.left == 30
    now[0] = 20
    board.finished(trial(0, 0.9, 0.5))
    assert board.left == 10


def test_cells_take_pruning_from_the_group_and_bits_from_the_layer() -> None:
    row = cells(trial(3, 0.9, 0.5).policy, TABLE)
    assert [(c.prune, c.bits) for c in row] == [(0.6, 32), (0.0, 3), (0.6, 32)]


def test_lines_say_one_line_a_trial() -> None:
    out = io.StringIO()
    with watch(Board(SPEC, BASELINE), TABLE, out) as listener:
        assert isinstance(listener, Lines)
        listener.added(trial(0, 0.9, 0.5))
        listener.noted(0, 1, 0.3)
        listener.finished(trial(0, 0.9, 0.5))
        listener.finished(failed(1, "nan"))
        listener.finished(trial(2, 0.8, 0.6))
    assert out.getvalue().splitlines() == [
        "[1/40] trial 0 rung 0 complete  top1 0.9000  size_ratio 0.5000  macs_ratio 0.5000  seconds 1.2  front",
        "[2/40] trial 1 rung 0 failed nan: first second",
        "[3/40] trial 2 rung 0 complete  top1 0.8000  size_ratio 0.6000  macs_ratio 0.5000  seconds 1.2",
    ]


@pytest.mark.parametrize("color", ["truecolor", None])
def test_the_screen_shows_progress_best_and_strip(color: str | None) -> None:
    out = io.StringIO()
    console = Console(file=out, width=110, color_system=color, force_terminal=color is not None)  # type: ignore[arg-type]
    screen = Screen(Board(SPEC, BASELINE), TABLE, console)
    screen.added(trial(5, 0.9, 0.5))
    screen.noted(6, 20, 0.125)
    for one in (trial(3, 0.91, 0.25), failed(4, "timeout")):
        screen.finished(one)
    console.print(screen.render())
    said = out.getvalue()
    for part in (
        "demo",
        "2/40 done, 1 under way",
        "timeout 1",
        "top1 0.9100, size_ratio 0.2500",
        "1 trials",
        "trial 3",
        "6: step 20, 0.125",
    ):
        assert part in said, part
    if color is None:
        assert "▓ ▓\n·3·" in "\n".join(line.rstrip() for line in said.splitlines())
    else:
        # 60 % pruned: 230 - 200 * 0.6 = 110 grey, with white ink; not pruned: 230.
        assert "48;2;110;110;110m·" in said
        assert "48;2;230;230;230m3" in said


def test_a_terminal_gets_the_live_view() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    with watch(Board(SPEC, BASELINE), TABLE, out) as listener:
        assert isinstance(listener, Screen)
        listener.finished(trial(3, 0.91, 0.25))
    assert "1/40 done" in out.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (187, "3:07"), (7389, "2:03:09")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_counting_is_one_line_on_a_terminal_and_silent_elsewhere() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen, log = Terminal(), io.StringIO()
    for stream in (screen, log):
        with counting("probe", stream) as heard:
            for done in range(1, 4):
                heard(done, 3)
    assert log.getvalue() == ""
    shown = [line.removesuffix("\x1b[K") for line in screen.getvalue().split("\r")]
    assert shown == ["", "probe 1/3, 0 s left", "probe 2/3, 0 s left", "probe 3/3, 0 s left", ""]
