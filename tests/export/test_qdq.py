"""Integers in the ONNX file: against torch's rounding, in ONNX Runtime; and what ONNX Runtime made of them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from export_nets import FORMS, Recipe, Rounding, quantized, rows, shake_norms, stand_in
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from torch import Tensor, nn

from automc.core.integers import integers, table
from automc.errors import ProofError
from automc.export.baking.bake import fold
from automc.export.onnx.check import checked
from automc.export.onnx.grids import Grid
from automc.export.onnx.layer_table import layer_table, sums
from automc.export.onnx.sums import covering
from automc.export.onnx.writing import write_onnx
from automc.export.packed import dumps, tensors
from automc.export.proof.weights import constants, unmatched

torch.set_num_threads(1)


def answers(path: Path, inputs: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": inputs.numpy()})[0]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Residual(nn.Module):
    """A stem, a residual block with a strided slice of the stream beside it, and a linear layer; all rounded."""

    def __init__(self, weight_bits: int = 8, activation_bits: int = 8) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.stem = nn.Conv2d(3, 16, 3, padding=1)
            self.conv1 = nn.Conv2d(16, 16, 3, padding=1)
            self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
            self.conv3 = nn.Conv2d(16, 16, 3, stride=2, padding=1)
            self.linear = nn.Linear(16, 7)
        shake_norms(self, 0)
        for name, top in (("stem", 4.0), ("conv1", 2.0), ("conv2", 1.5), ("conv3", 3.0), ("linear", 1.0)):
            low = -4.0 if name == "stem" else 0.0
            quantized(getattr(self, name), weight_bits, Rounding(activation_bits, low, top), activation_bits)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.conv2(F.relu(self.conv1(x))) + x)
        x = F.relu(self.conv3(x) + x[:, :, ::2, ::2])
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(8, 8), (4, 8), (8, 6), (2, 4)])
def test_without_rounded_sums_the_file_computes_what_torch_does(
    tmp_path: Path, weight_bits: int, activation_bits: int
) -> None:
    model, inputs = Residual(weight_bits, activation_bits), noise(64, 3, 12, 12)
    write_onnx(model, inputs[:1], tmp_path / "m.onnx")
    wanted = fold(model, inputs[:1]).model(inputs).detach().numpy()
    assert np.abs(answers(tmp_path / "m.onnx", inputs) - wanted).max() < 0.02 * np.abs(wanted).max()  # one step moved
    runs = {row.layer: row.runs for row in layer_table(tmp_path / "m.onnx")}
    assert runs == {"stem": "float", "conv1": "int8", "conv2": "float", "conv3": "float", "linear": "int8"}


@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(8, 8), (4, 5)])
def test_with_rounded_sums_every_layer_runs_in_integers(tmp_path: Path, weight_bits: int, activation_bits: int) -> None:
    model, inputs = Residual(weight_bits, activation_bits), noise(64, 3, 12, 12)
    write_onnx(model, inputs, tmp_path / "m.onnx")
    found = layer_table(tmp_path / "m.onnx")
    assert [(row.layer, row.runs) for row in found] == [(n, "int8") for n, _ in model.named_children()]
    assert {(row.weight_bits, row.input_bits) for row in found} == {(weight_bits, activation_bits)}
    assert {row.stored for row in found} == {"int8" if weight_bits == 8 else "4-bit places in a table"}
    wanted = fold(model, inputs[:1]).model(inputs).detach().numpy()
    error = answers(tmp_path / "m.onnx", inputs) - wanted
    assert np.sqrt((error**2).mean() / (wanted**2).mean()) < 0.05  # 8-bit grids beside the stream
    other = noise(3, 3, 12, 12, seed=1)
    assert answers(tmp_path / "m.onnx", other).shape == (3, 7)
    model_arrays = tensors(dumps(model, inputs[:1]))
    assert unmatched(model_arrays, constants(tmp_path / "m.onnx")) == []


@pytest.mark.parametrize("limit", ["MOST", "CHANGED"])
def test_sums_that_move_the_outputs_too_far_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    from automc.export.onnx import ranges

    model, inputs = Residual(), noise(64, 3, 12, 12)
    write_onnx(model, inputs[:1], tmp_path / "exact.onnx")
    monkeypatch.setattr(ranges, limit, -1.0)
    for fast in (False, True):  # a trial times what an export would write
        write_onnx(model, inputs, tmp_path / "m.onnx", fast=fast)
        written, exact = (onnx.load(str(tmp_path / name)) for name in ("m.onnx", "exact.onnx"))
        assert written.graph == exact.graph


def test_a_file_says_what_its_sums_run_in_and_why(tmp_path: Path) -> None:
    model, inputs, path = Residual(), noise(64, 3, 12, 12), tmp_path / "m.onnx"
    write_onnx(model, inputs, path)
    assert re.fullmatch(
        r"8 bits: on 64 examples outputs move by \d\.\d\d%, and 0\.00% of the answers change", sums(path)
    )
    write_onnx(model, inputs[:3], path)
    assert sums(path) == "floats, because 3 examples are too few to round them on, 32 are needed"
    write_onnx(nn.Sequential(nn.Conv2d(3, 4, 3)), inputs, path)
    assert sums(path) == ""


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("form", sorted(FORMS))
def test_every_form_of_a_weight_is_in_the_file_bit_by_bit(tmp_path: Path, form: str, bits: int) -> None:
    if (form, bits) == ("per tensor", 1):
        pytest.skip("no such codes")
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 5))
    for layer in (model[0], model[3]):
        stand_in(layer, Recipe(form, bits, 0.3))
    model[3].input_quantizer = Rounding(8, 0.0, 2.0)
    inputs = noise(16, 3, 6, 6)
    write_onnx(model, inputs[:1], tmp_path / "m.onnx")
    baked = fold(model, inputs[:1])
    graph = constants(tmp_path / "m.onnx")
    for name, stored in baked.stored.items():
        assert unmatched({name: stored.dense()}, graph) == []
        assert unmatched({name: stored.dense() * np.float32(1.0001)}, graph) == [name]
    wanted = baked.model(inputs).detach().numpy()
    assert np.abs(answers(tmp_path / "m.onnx", inputs) - wanted).max() < 0.02 * np.abs(wanted).max()
    assert answers(tmp_path / "m.onnx", inputs[:1]).shape == (1, 5)


def test_a_recurrent_layer_is_stored_and_run_as_floats(tmp_path: Path) -> None:
    from automc.operators.quantize import quantize_layer

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.linear = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.lstm(x)[0][:, -1])

    model = Last().eval()
    quantize_layer(model.lstm, 4)
    quantize_layer(model.linear, 4)
    write_onnx(model, noise(2, 6, 4), tmp_path / "m.onnx")
    found = [(row.layer, row.stored, row.runs) for row in layer_table(tmp_path / "m.onnx")]
    assert found == [("linear", "4-bit places in a table", "float"), *[("lstm", "float32", "float")] * 2]


def test_few_bit_weights_take_few_bits_in_the_file(tmp_path: Path) -> None:
    sizes = {}
    for bits in (1, 2, 4, 8, 32):
        model = nn.Sequential(nn.Conv2d(32, 64, 3, bias=False))
        if bits < 32:
            stand_in(model[0], Recipe(bits=bits))
        write_onnx(model, torch.zeros(1, 32, 8, 8), tmp_path / f"{bits}.onnx")
        sizes[bits] = (tmp_path / f"{bits}.onnx").stat().st_size
    weights = 64 * 32 * 9
    for bits in (1, 2, 4, 8):
        assert weights * bits / 8 <= sizes[bits] <= weights * bits / 8 + 2000
    assert sizes[32] > weights * 4


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_a_table_gives_its_numbers_back(count: int, kinds: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    numbers = rng.standard_normal(kinds).astype(np.float32)[rng.integers(kinds, size=count)]
    found = table(numbers)
    different = len(np.unique(numbers))
    if different > 256:
        assert found is None
        return
    assert found.lane == next(lane for lane in (1, 2, 4, 8) if different <= 2**lane)
    bits = np.unpackbits(found.packed[:, 0]).reshape(-1, found.lane)
    places = bits @ (1 << np.arange(found.lane - 1, -1, -1))
    assert np.array_equal(found.values[places[:count]], numbers)
    assert len(found.packed) == -(-count * found.lane // 8)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("form", ["signed", "unsigned", "ternary", "codebook", "per tensor"])
def test_integers_are_the_weight_exactly_or_none(form: str, bits: int) -> None:
    weight = noise(7, 4, 3, 3).numpy()
    weight[2] = 0
    if (form, bits) == ("per tensor", 1):
        pytest.skip("no such codes")
    stored = FORMS[form](weight, bits).scaled(np.array([1, -2, 3, 0.5, -0.25, 1, 1.0]))
    found = integers(stored)
    if found is None:
        assert form == "codebook" or (form == "unsigned" and bits == 8)
        return
    assert np.array_equal(found.codes * rows(found.scale, weight), stored.dense())
    assert (found.scale > 0).all()
    assert 32 <= np.abs(found.codes).max() <= (127 if bits == 8 or form == "unsigned" else 63)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 8), st.floats(0.01, 10), st.floats(0, 3), st.floats(0.1, 1), st.integers(0, 2**32 - 1))
def test_rounding_first_on_the_finer_grid_changes_no_code(
    bits: int, scale: float, low: float, share: float, seed: int
) -> None:
    top = 2**bits - 1
    grid = Grid(float(np.float32(scale)), min(round(low), top), top)
    need = share * top * grid.scale
    fine = covering(-need * grid.zero / top, need * (top - grid.zero) / top, [grid])
    x = np.random.default_rng(seed).uniform(1.2 * grid.low - 1, 1.2 * grid.high + 1, 2000)

    def code(x: np.ndarray, g: Grid) -> np.ndarray:
        return np.clip(np.round(x / g.scale) + g.zero, 0, g.top)

    first = (code(x, fine) - fine.zero) * fine.scale
    inside = (x >= fine.low) & (x <= fine.high)
    halves = np.abs(x / fine.scale - np.floor(x / fine.scale) - 0.5) < 1e-9  # float64 ties
    assert np.array_equal(code(first, grid)[inside & ~halves], code(x, grid)[inside & ~halves])
    assert fine.low <= -need * grid.zero / top + fine.scale
    assert fine.high >= need * (top - grid.zero) / top - fine.scale


def test_a_relu_that_a_rounding_hides_is_gone_and_one_that_it_does_not_stays(tmp_path: Path) -> None:
    for low, kept in ((0.0, 0), (-1.0, 1)):
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
        quantized(model[0], 8, Rounding(8, -3.0, 3.0))
        quantized(model[2], 8, Rounding(8, low, 2.0))
        inputs = noise(8, 3, 8, 8)
        write_onnx(model, inputs[:1], tmp_path / "m.onnx")
        kinds = [node.op_type for node in onnx.load(str(tmp_path / "m.onnx")).graph.node]
        assert kinds.count("Relu") == kept
        wanted = fold(model, inputs[:1]).model(inputs).detach().numpy()
        assert np.abs(answers(tmp_path / "m.onnx", inputs) - wanted).max() < 0.02 * np.abs(wanted).max()


def hostile(**changes: object) -> onnx.ModelProto:
    weight = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    node = helper.make_node("Add", ["input", "w"], ["output"], domain=str(changes.get("domain", "")))
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in ("input", "output")]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [weight])
    sets = [helper.make_opsetid("", 18)] + [helper.make_opsetid(str(each), 1) for each in changes.values()]
    return helper.make_model(graph, opset_imports=sets, ir_version=8)


def test_a_file_that_reaches_outside_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(hostile().SerializeToString())
    assert checked(path) == path.read_bytes()
    with pytest.raises(ProofError, match=r"bytes, at most 10 are read"):
        checked(path, most_bytes=10)
    with pytest.raises(ProofError, match="cannot be read: No such file"):
        checked(tmp_path / "none.onnx")
    path.write_bytes(hostile(domain="evil").SerializeToString())
    with pytest.raises(ProofError, match="operators of the domain 'evil'"):
        checked(path)
    for where in ("initializer", "attribute"):
        model = hostile()
        tensor = model.graph.initializer[0]
        if where == "attribute":
            attribute = helper.make_attribute("value", tensor)
            constant = helper.make_node("Constant", [], ["c"])
            constant.attribute.append(attribute)
            inner = helper.make_graph([constant], "inner", [], [])
            model.graph.node.append(helper.make_node("If", ["input"], ["x"], then_branch=inner, else_branch=inner))
            tensor = model.graph.node[1].attribute[0].g.node[0].attribute[0].t
        tensor.ClearField("float_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../../etc/passwd")
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ProofError, match="tensor 'w' lies in another file"):
            checked(path)


def test_bytes_that_are_no_onnx_file_are_an_error_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    whole = hostile().SerializeToString()
    rng = np.random.default_rng(0)
    for content in (b"", b"hello", rng.bytes(1000), *(whole[:n] for n in range(0, len(whole), 7))):
        path.write_bytes(content)
        with pytest.raises(ProofError) as caught:
            layer_table(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(8, 8), (4, 6)])
def test_the_ir_of_openvino_computes_what_torch_does_and_in_integers(
    tmp_path: Path, weight_bits: int, activation_bits: int
) -> None:
    pytest.importorskip("openvino")
    from automc.export.formats import FORMATS, Source

    model, inputs = Residual(weight_bits, activation_bits), noise(64, 3, 12, 12)
    form = FORMATS["openvino"]
    form.write(tmp_path, Source(model, inputs))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(form.files)
    wanted = fold(model, inputs[:1]).model(inputs).detach().numpy()
    runner = form.opened(tmp_path)
    (found,) = runner.outputs(inputs.numpy()).values()
    assert np.abs(found - wanted).max() < 0.02 * np.abs(wanted).max()  # one step moved
    kinds = {op.get_rt_info()["layerType"].value: op for op in runner._compiled.get_runtime_model().get_ops()}
    assert kinds["Convolution"].get_rt_info()["runtimePrecision"].value == "u8"


def test_a_broken_ir_is_an_error_in_a_line(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    from automc.export.formats import FORMATS

    for content in ("", "no xml", "<net name='x' version='11'><layers/></net>"):
        (tmp_path / "openvino.xml").write_text(content)
        with pytest.raises(ProofError, match=r"OpenVINO cannot load it|must take one input") as caught:
            FORMATS["openvino"].opened(tmp_path)
        assert "\n" not in str(caught.value)
