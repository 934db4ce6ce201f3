"""The latency table: its grid, what lies between, its rows, and the correction."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from automc.core.interleave import Timing
from automc.measure.forms import Form, forms, input_shape, onnx_file
from automc.measure.prediction import Correction, sums, unknown
from automc.measure.table import YARDSTICK, LatencyTable, alignment, around, grid, nodes
from automc.measure.walk import walk

CONV = Form("conv", 64, 48, 1, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 300))
def test_every_narrower_width_lies_between_nodes_of_its_alignment(width: int) -> None:
    found = nodes(width)
    assert width in found
    assert len(found) <= 13
    for n in range(1, width + 1):
        shares = around(n, found)
        assert sum(share for _, share in shares) == pytest.approx(1.0)
        assert all(alignment(k) == alignment(n) for k, _ in shares)
        assert sum(k * share for k, share in shares) == pytest.approx(n)  # linear numbers come back exactly


class Clock:
    """Times calls of ``onnx_file`` by a formula instead of running them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, speed: float = 1.0) -> None:
        self.measured: list[Form] = []
        self.speed = speed
        monkeypatch.setattr("automc.measure.table._call", lambda form, batch: form)
        monkeypatch.setattr("automc.measure.table._nothing", lambda: None)

    @staticmethod
    def truth(form: Form) -> float:
        steps = 1 + 0.5 * (alignment(form.inputs) == 1) + 0.25 * (alignment(form.outputs) < 16)
        return 0.01 * steps * (3 + form.inputs) * (1 + form.outputs)

    def __call__(self, calls, rounds):
        self.measured += [c for c in calls if c is not None and c != YARDSTICK and rounds > 1]
        times = [0.5 + (0.0 if c is None else self.truth(c)) for c in calls]
        return [Timing(t * self.speed, t * self.speed, t * self.speed, rounds) for t in times]


def test_between_the_rows_it_is_bilinear_within_an_alignment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The formula is bilinear where both alignments stay, so that the grid gives it back exactly."""
    clock, table = Clock(monkeypatch), LatencyTable()
    wanted = grid(CONV, True, True)
    table.measure(wanted, clock)
    assert len(clock.measured) == len(wanted) < 64 * 48 / 10
    for inputs in range(1, 65):
        for outputs in range(1, 49):
            form = CONV.at(inputs, outputs)
            assert table.get(form) == pytest.approx(clock.truth(form), rel=1e-9)  # float64


def test_a_slow_machine_gives_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, table = Clock(monkeypatch), LatencyTable()
    table.measure([CONV], clock)
    clock.speed = 3.0  # busy now: the yardstick takes three times as long as well
    table.measure([CONV.at(32, 32)], clock)
    assert table.get(CONV.at(32, 32)) == pytest.approx(clock.truth(CONV.at(32, 32)))


def test_rows_travel_and_are_not_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, table = Clock(monkeypatch), LatencyTable(batch=2)
    table.measure(grid(CONV, True, False), clock)
    again = LatencyTable(table.rows, batch=2)
    assert again.rows == table.rows
    assert again.get(CONV.at(7, 48)) == table.get(CONV.at(7, 48))
    clock.measured.clear()
    again.measure(grid(CONV, True, False), clock)
    assert clock.measured == []
    assert LatencyTable(table.rows, batch=1).get(CONV) is None  # another batch is another time


def test_a_grid_of_another_layer_of_the_family_does_not_serve_a_longer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, table = Clock(monkeypatch), LatencyTable()
    table.measure([*grid(CONV.at(52, 104), True, True), *grid(CONV.at(104, 52), True, True)], clock)
    for inputs, outputs in ((52, 103), (31, 89), (103, 52), (99, 7)):
        form = CONV.at(inputs, outputs)
        assert table.get(form) == pytest.approx(clock.truth(form), rel=1e-9)
    assert table.get(CONV.at(104, 104)) is None


def test_depthwise_has_one_axis_and_grouped_none(monkeypatch: pytest.MonkeyPatch) -> None:
    depthwise = Form("conv", 32, 32, 0, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1))
    grouped = Form("conv", 32, 32, 4, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1))
    assert {(f.inputs, f.outputs) for f in grid(depthwise, True, True)} == {(n, n) for n in nodes(32)}
    assert grid(grouped, True, True) == [grouped]
    clock, table = Clock(monkeypatch), LatencyTable()
    table.measure([*grid(depthwise, True, True), grouped], clock)
    assert table.get(depthwise.at(9, 9)) is not None
    assert table.get(grouped) is not None
    assert table.get(grouped.at(16, 16)) is None


def test_real_layers_more_work_takes_more_time() -> None:
    table = LatencyTable()
    small, large = CONV.at(8, 8), CONV.at(256, 256)
    table.measure([small, large])
    assert table.get(large) > 5 * table.get(small) > 0  # 1,024 times the work


KINDS = {
    "conv": (nn.Conv2d(6, 8, 3, stride=2, padding=1, dilation=1), (6, 9, 9)),
    "depthwise": (nn.Conv2d(8, 8, 3, groups=8), (8, 9, 9)),
    "grouped": (nn.Conv2d(8, 4, 3, groups=2), (8, 9, 9)),
    "same": (nn.Conv2d(4, 4, 3, padding="same", dilation=2), (4, 9, 9)),
    "conv1d": (nn.Conv1d(4, 6, 5, padding=2), (4, 20)),
    "transposed": (nn.ConvTranspose2d(6, 4, 3, stride=2), (6, 5, 5)),
    "linear": (nn.Linear(12, 5), (12,)),
    "rows": (nn.Linear(12, 5), (7, 12)),
}


def kernels(file: bytes, folder: Path) -> list[str]:
    """The operators that multiply, in the graph that ONNX Runtime made of a file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [node.op_type for node in onnx.load(str(folder / "optimized.onnx")).graph.node]
    return [name for name in names if "Conv" in name or "Mat" in name or "Gemm" in name]


@pytest.mark.parametrize("arithmetic", ["float", "dequantized", "int8"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_s_own_file_has_the_form_that_export_writes(kind: str, arithmetic: str, tmp_path: Path) -> None:
    """The same operators with the same settings, and outputs of the same shape: else the table would time another
    network than the one that is delivered.
    """
    import copy

    import onnxruntime

    from automc.export.onnx.writing import write_onnx
    from automc.operators.live_kinds import live
    from automc.operators.quantize import quantize_layer
    from automc.operators.quantizers.inputs import InputQuantizer

    layer, shape = KINDS[kind]
    model = nn.Sequential(copy.deepcopy(layer))
    if arithmetic == "int8":
        quantize_layer(model[0], 8)
    if arithmetic != "float":
        live(model[0]).input_quantizer = InputQuantizer(8, -1.0, 4.0)
        model[0].activation_bits = 8
    example = torch.randn(2, *shape)
    ((_, form, calls),) = forms(walk(model, example))
    expected = "dequantized" if (kind, arithmetic) == ("transposed", "int8") else arithmetic
    assert (calls, form.arithmetic, input_shape(form)) == (1, expected, shape)
    write_onnx(model, example, tmp_path / "m.onnx", fast=True)
    exported, own = onnx.load(str(tmp_path / "m.onnx")), onnx.load_model_from_string(onnx_file(form))
    if form.arithmetic == "int8":
        assert kernels(onnx_file(form), tmp_path) == [
            {"linear": "QGemm", "rows": "MatMulIntegerToFloat"}.get(kind, "QLinearConv")
        ]
    elif arithmetic != "int8":
        assert Counter(n.op_type for n in own.graph.node) == Counter(n.op_type for n in exported.graph.node)

    def attributes(model: onnx.ModelProto) -> dict[str, object]:
        node = next(n for n in model.graph.node if n.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"))
        found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        return {k: v for k, v in found.items() if k not in ("alpha", "beta", "auto_pad", "output_padding")}

    wanted, found = attributes(exported), attributes(own)
    if "pads" not in wanted:  # exported as auto_pad; that the outputs have one shape holds it
        found.pop("pads", None)
    assert found == wanted
    session = onnxruntime.InferenceSession(onnx_file(form), providers=["CPUExecutionProvider"])
    given = example.numpy().astype(np.uint8 if form.arithmetic == "int8" else np.float32)
    (output,) = session.run(None, {"input": given})
    assert output.shape == tuple(model(example).shape)


def test_a_correction_finds_the_factors_that_made_the_times() -> None:
    rng = np.random.default_rng(0)
    parts = [tuple(row) for row in rng.uniform(0.1, 2.0, (9, 3))]
    found = Correction.fit(parts, [0.8 * a + 1.3 * b + 0.7 * c + 0.2 for a, b, c in parts])
    assert (*found.factors, found.rest) == pytest.approx((0.8, 1.3, 0.7, 0.2))
    plain = Correction.fit([(a, 0.0, 0.0) for a, *_ in parts], [0.5 * a + 0.1 for a, *_ in parts])
    assert (*plain.factors, plain.rest) == pytest.approx((0.5, 0.5, 0.5, 0.1))
    assert Correction((1.0, 1.0, 1.0), -9.0)((1.0, 1.0, 1.0)) == 0.0


def test_sums_by_form_and_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    clock, table = Clock(monkeypatch), LatencyTable()
    whole = replace(CONV, arithmetic="int8")
    table.measure([CONV, whole], clock)
    one = clock.truth(CONV)
    assert sums(table, [(CONV, 2), (whole, 1), (CONV, 1)]) == pytest.approx((3 * one, 0.0, one))
    missing = CONV.at(65, 1)
    assert unknown(table, [(CONV, 1), (missing, 1)]) == [missing]
    with pytest.raises(KeyError, match="inputs=65"):
        sums(table, [(missing, 1)])
