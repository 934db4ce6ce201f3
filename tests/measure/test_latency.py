"""Latency against a clock that is known, and against a network with fifty times the work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from automc.core.interleave import WARM_UP, Timing, interleaved, timings
from automc.errors import EvaluationError
from automc.measure.latency import onnx_latency


def matmuls(path: Path, count: int, width: int = 256) -> Path:
    """A network of ``count`` matrix products, made without torch."""
    nodes, weights, last = [], [], "input"
    for i in range(count):
        array = np.random.default_rng(i).standard_normal((width, width)).astype(np.float32) / width**0.5
        weights.append(onnx.numpy_helper.from_array(array, f"w{i}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{i}"], [f"h{i}"]))
        last = f"h{i}"
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", width]) for n in ("input", last)]
    graph = helper.make_graph(nodes, "g", value[:1], value[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), str(path))
    return path


def test_more_work_takes_more_time(tmp_path: Path) -> None:
    small, large = matmuls(tmp_path / "s.onnx", 1), matmuls(tmp_path / "l.onnx", 50)
    first, second = onnx_latency([small, large], (256,), rounds=15, batch=4)
    assert second.median > 5 * first.median
    for stats in (first, second):
        assert 0 < stats.low <= stats.median <= stats.high
        assert stats.rounds == 15


def test_batch_is_the_batch(tmp_path: Path) -> None:
    path = matmuls(tmp_path / "m.onnx", 8)
    (one,), (many,) = (onnx_latency([path], (256,), rounds=9, batch=n) for n in (1, 256))
    assert many.median > 3 * one.median


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.INT32, TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_inputs_have_the_type_that_the_file_takes(tmp_path: Path, kind: int) -> None:
    """A look-up in a table of one row: only a 0 is in it."""
    table = onnx.numpy_helper.from_array(np.ones((1, 3), np.float32), "table")
    nodes = [helper.make_node("Cast", ["input"], ["whole"], to=TensorProto.INT64)]
    if kind in (TensorProto.FLOAT16, TensorProto.DOUBLE):
        nodes = [
            helper.make_node("Mul", ["input", "input"], ["square"]),
            helper.make_node("Sign", ["square"], ["sign"]),
        ]
        nodes += [helper.make_node("Sub", ["sign", "sign"], ["none"])]
        nodes += [helper.make_node("Cast", ["none"], ["whole"], to=TensorProto.INT64)]
    nodes += [helper.make_node("Gather", ["table", "whole"], ["output"])]
    ends = [helper.make_tensor_value_info("input", kind, ["n", 4])]
    ends += [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 4, 3])]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [table])
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), str(path))
    (stats,) = onnx_latency([path], (4,), rounds=3, batch=2)
    assert stats.median > 0


def test_every_round_runs_all_of_them_and_starts_with_another() -> None:
    now, calls, cost = [0.0], [], (0.002, 0.005, 0.011)

    def call(i: int) -> None:
        calls.append(i)
        now[0] += cost[i]

    times = interleaved([lambda i=i: call(i) for i in range(3)], 4, clock=lambda: now[0])
    assert np.allclose(times, [[c * 1e3] * 4 for c in cost])
    assert calls[: 3 * WARM_UP] == [0] * WARM_UP + [1] * WARM_UP + [2] * WARM_UP
    assert calls[3 * WARM_UP :] == [0, 1, 2, 1, 2, 0, 2, 0, 1, 0, 1, 2]


def test_median_quartiles_and_error_are_those_of_the_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "automc.core.interleave.interleaved", lambda calls, rounds, warm_up: [[4.0, 1.0, 2.0, 3.0, 100.0]]
    )
    (stats,) = timings([lambda: None], rounds=5)
    assert (stats.low, stats.median, stats.high) == (2.0, 3.0, 4.0)
    assert stats.error == pytest.approx(1.25 * 2.0 / (1.35 * 5**0.5))


def test_the_error_of_a_median_is_the_spread_of_medians() -> None:
    """Medians of 400 normal samples of 101: their standard deviation is the error within 15 % (some 4 % of it chance,
    the rest that a median's error is known for large samples only).
    """
    samples = np.random.default_rng(0).normal(5.0, 0.3, (400, 101))
    quartiles = np.percentile(samples, (50, 25, 75), axis=1).T
    errors = [Timing(*row, rounds=101).error for row in quartiles.tolist()]
    assert np.median(errors) == pytest.approx(np.std(quartiles[:, 0]), rel=0.15)


def test_what_cannot_be_measured_is_an_error_in_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a network")
    for path in (tmp_path / "broken.onnx", tmp_path / "absent.onnx"):
        with pytest.raises(EvaluationError, match=f"latency: .*{path.name}") as caught:
            onnx_latency([path], (3,))
        assert "\n" not in str(caught.value)
    with pytest.raises(EvaluationError, match=r"m\.onnx"):
        onnx_latency([matmuls(tmp_path / "m.onnx", 1)], (3,))
    with pytest.raises(EvaluationError, match="at least 1, not 0 and 1"):
        onnx_latency([], (3,), rounds=0)
    assert capfd.readouterr() == ("", "")
