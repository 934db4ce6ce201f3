"""The ONNX file against torch, in ONNX Runtime."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from export_nets import compressed, digits, fitted, normalise, quantized, shake_norms
from torch import Tensor, nn

from automc.errors import ModelError
from automc.export.baking.bake import bake
from automc.export.baking.outputs import named_outputs
from automc.export.onnx import writing as onnx_file
from automc.export.onnx.writing import OPSET, write_onnx
from automc.export.packed import dumps, tensors
from automc.export.proof.weights import constants, unmatched

torch.set_num_threads(1)
EXAMPLE = torch.zeros(1, 1, 8, 8)


def answers(path: Path, inputs: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": inputs.numpy()})[0]


def outputs(model: nn.Module, inputs: Tensor) -> np.ndarray:
    with torch.no_grad():
        return bake(model, inputs[:1])(inputs).numpy()


@pytest.mark.parametrize("fast", [False, True])
def test_a_float_network_gives_the_same_numbers_for_any_batch(tmp_path: Path, fast: bool) -> None:
    model = fitted(8)
    write_onnx(model, EXAMPLE, tmp_path / "m.onnx", fast=fast)
    for batch in (1, 7):
        inputs = torch.randn(batch, 1, 8, 8, generator=torch.Generator().manual_seed(batch))
        assert np.abs(answers(tmp_path / "m.onnx", inputs) - outputs(model, inputs)).max() < 1e-4


def test_a_quantized_network_gives_the_same_answers(tmp_path: Path) -> None:
    model = compressed(fitted(16))
    write_onnx(model, EXAMPLE, tmp_path / "m.onnx")
    inputs = normalise(digits()[0][1200:])
    wanted = outputs(model, inputs)
    best = np.sort(wanted, axis=1)
    sure = best[:, -1] - best[:, -2] > 0.02 * np.abs(wanted).max()  # more than a rounded input may move
    assert sure.mean() > 0.9
    assert np.array_equal(answers(tmp_path / "m.onnx", inputs).argmax(1)[sure], wanted.argmax(1)[sure])


def test_weights_only_quantized_gives_the_same_numbers(tmp_path: Path) -> None:
    model = fitted(8)
    quantized(model.conv1, 3)
    quantized(model.linear, 2)
    write_onnx(model, EXAMPLE, tmp_path / "m.onnx")
    inputs = normalise(digits()[0][1200:])
    assert np.abs(answers(tmp_path / "m.onnx", inputs) - outputs(model, inputs)).max() < 1e-4


def test_the_file_is_one_checked_file_that_says_nothing_of_this_machine(tmp_path: Path, capfd) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        write_onnx(compressed(fitted(8)), EXAMPLE, tmp_path / "m.onnx")
    assert seen == []
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    proto = onnx.load(str(tmp_path / "m.onnx"))
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", OPSET)]
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert str(Path(__file__).parent).encode() not in (tmp_path / "m.onnx").read_bytes()
    assert b"BatchNorm" not in (tmp_path / "m.onnx").read_bytes()
    write_onnx(compressed(fitted(8)), EXAMPLE, tmp_path / "again.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == (tmp_path / "again.onnx").read_bytes()


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x - 1


def test_a_branch_on_data_is_refused_and_names_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:  # as torch.export does with such a branch, after 8 s
        try:
            raise TypeError("data-dependent branch\nand a page of advice")
        except TypeError as cause:
            raise RuntimeError("Failed to export") from cause

    monkeypatch.setattr(onnx_file, "_newer", refuse)
    with pytest.raises(
        ModelError, match=r"model Branch: cannot be written as ONNX \(older exporter: ModelError: Converting a tensor"
    ) as caught:
        write_onnx(Branch(), torch.ones(1, 3), tmp_path / "m.onnx")
    assert str(caught.value).endswith("; newer exporter: TypeError: data-dependent branch)")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


class Asserting(nn.Module):
    """A check of shapes, which the older exporter cannot tell from a branch on data."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.bn = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != 3:
            raise ValueError("three channels")
        return F.adaptive_avg_pool2d(self.bn(self.conv(x)), 1).flatten(1)


def test_the_newer_exporter_takes_what_the_older_one_may_not(tmp_path: Path, capfd, monkeypatch) -> None:
    used = []
    newer = onnx_file._newer
    monkeypatch.setattr(onnx_file, "_newer", lambda *a: (used.append("newer"), newer(*a)))
    model = shake_norms(Asserting(), 2)
    write_onnx(model, torch.zeros(1, 3, 8, 8), tmp_path / "m.onnx")
    assert used == ["newer"]
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger().isEnabledFor(logging.WARNING)
    inputs = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert np.abs(answers(tmp_path / "m.onnx", inputs) - outputs(model, inputs)).max() < 1e-4
    assert unmatched(tensors(dumps(model, inputs[:1])), constants(tmp_path / "m.onnx")) == []


def test_every_number_of_the_packed_file_is_in_the_graph_bit_by_bit(tmp_path: Path) -> None:
    model = compressed(fitted(8))
    write_onnx(model, EXAMPLE, tmp_path / "m.onnx")
    packed, graph = tensors(dumps(model, EXAMPLE)), constants(tmp_path / "m.onnx")
    assert unmatched(packed, graph) == []
    for name, array in packed.items():
        changed = array.copy()
        changed.reshape(-1)[-1] = np.nextafter(changed.reshape(-1)[-1], np.inf, dtype=np.float32)
        assert unmatched({**packed, name: changed}, graph) == [name]


class Memory(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5, batch_first=True)
        self.linear = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.lstm(x)[0])[:, -1]


def test_linear_and_recurrent_layers_on_sequences_match(tmp_path: Path) -> None:
    model = Memory()
    write_onnx(model, torch.zeros(1, 6, 4), tmp_path / "m.onnx", fast=True)
    packed = tensors(dumps(model, torch.zeros(1, 6, 4)))
    assert len(packed) == 6
    assert unmatched(packed, constants(tmp_path / "m.onnx")) == []  # one matrix transposed, gates in another order
    other = {name: array + np.float32(1e-3) for name, array in packed.items()}
    assert unmatched(other, constants(tmp_path / "m.onnx")) == sorted(packed)


class Several(nn.Module):
    def __init__(self, keys: bool) -> None:
        super().__init__()
        self.keys = keys
        self.conv = nn.Conv2d(1, 3, 3)
        self.lstm = nn.LSTM(6, 4)

    def forward(self, x: Tensor) -> object:
        maps = self.conv(x)
        _, (state, _) = self.lstm(maps.mean(1).transpose(0, 1))
        return {"maps": maps, "state": state, "best": maps.argmax(1)} if self.keys else (maps, [state])


@pytest.mark.parametrize("keys", [False, True])
def test_several_outputs_have_names_and_free_axes(tmp_path: Path, keys: bool) -> None:
    model = Several(keys).eval()
    write_onnx(model, EXAMPLE, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    shapes = {slot.name: slot.shape for slot in session.get_outputs()}
    wanted = {"maps": ["batch", 3, 6, 6], "state": [1, "batch", 4], "best": ["batch", 6, 6]}
    assert shapes == (wanted if keys else {"output": wanted["maps"], "output_1": wanted["state"]})
    inputs = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = named_outputs(model(inputs), model)
    for name, found in zip(shapes, session.run(None, {"input": inputs.numpy()}), strict=True):
        assert np.abs(found - expected[name].numpy()).max() < 1e-5, name  # sums of up to 9 products of order 1
    assert unmatched(tensors(dumps(model, EXAMPLE)), constants(tmp_path / "m.onnx")) == []


def test_what_neither_exporter_knows_is_an_error_with_both_reasons(tmp_path: Path, capfd, monkeypatch) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.eigvalsh(x)

    def refuse(*_: object) -> None:  # as the newer exporter does, after 10 s
        raise RuntimeError("No ONNX function found")

    monkeypatch.setattr(onnx_file, "_newer", refuse)
    with pytest.raises(ModelError, match=r"older exporter: UnsupportedOperatorError: .*eigvalsh") as caught:
        write_onnx(Odd(), torch.ones(1, 3, 3), tmp_path / "m.onnx")
    assert str(caught.value).endswith("; newer exporter: RuntimeError: No ONNX function found)")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
