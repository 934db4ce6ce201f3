"""Export of the operators' own quantized layers and of trained networks, end to end."""

from __future__ import annotations

import copy
import math
import os
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from export_nets import shake_norms
from export_reader import payload
from torch import nn

from automc.core.study import ModelSpec
from automc.errors import ModelError
from automc.evaluation.zoo import load_model
from automc.export.baking.bake import bake, fold
from automc.export.onnx.writing import write_onnx
from automc.export.packed import dumps, tensors
from automc.export.proof.weights import constants, unmatched
from automc.operators.quantize import quantize_layer
from automc.operators.quantizers import InputQuantizer

torch.set_num_threads(1)

SHARED = Path(os.environ.get("AUTOMC_SHARED", Path(__file__).resolve().parents[2].parent / "shared"))


def low_bit(model: nn.Module, bits: int, activation_bits: int = 8) -> nn.Module:
    model = copy.deepcopy(model)
    for layer in list(model.modules()):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            quantize_layer(layer, bits)
            layer.input_quantizer = InputQuantizer(activation_bits, -3.0, 5.0)
            layer.activation_bits = activation_bits
    return model.eval()


def answers(path: Path, inputs: torch.Tensor) -> np.ndarray:
    return onnxruntime.InferenceSession(str(path)).run(None, {"input": inputs.numpy()})[0]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_digits_network_at_few_bits(tmp_path: Path, bits: int) -> None:
    model = low_bit(shake_norms(load_model(ModelSpec("digits_net")), bits).eval(), bits)
    inputs = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(bits))
    baked = fold(model, inputs[:1])
    assert not [m for m in baked.model.modules() if isinstance(m, nn.BatchNorm2d)]
    for name, found in baked.stored.items():
        own = model.get_submodule(name.removesuffix(".weight")).stored()["weight"]
        assert np.array_equal(np.abs(found.codes), np.abs(own.codes))
    with torch.no_grad():
        wanted = model(inputs).numpy()
    write_onnx(model, inputs[:1], tmp_path / "m.onnx")
    # Rounded inputs may move one step where torch and ONNX Runtime differ in the last bit: 2 % of the largest output.
    assert np.abs(answers(tmp_path / "m.onnx", inputs) - wanted).max() < 0.02 * np.abs(wanted).max()
    data = dumps(model, inputs[:1])
    assert unmatched(tensors(data), constants(tmp_path / "m.onnx")) == []

    layers = [m for m in baked.model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    parts = [math.ceil(m.weight.numel() * bits / 8) + 4 * len(m.weight) + 4 * len(m.bias) + 2 * 4 for m in layers]
    assert payload(data) <= sum(parts)  # packed; coded by their frequencies they are less
    assert len(data) < payload(data) + 1000


def test_weights_alone_at_few_bits_give_the_same_numbers(tmp_path: Path) -> None:
    model = shake_norms(load_model(ModelSpec("digits_net")), 5).eval()
    for layer in (model.conv1, model.linear):
        quantize_layer(layer, 3)
    inputs = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    write_onnx(model, inputs[:1], tmp_path / "m.onnx")
    with torch.no_grad():
        wanted = model(inputs).numpy()
    assert np.abs(answers(tmp_path / "m.onnx", inputs) - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_a_baked_network_bakes_again_but_has_no_codes_to_pack() -> None:
    inputs = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    baked = bake(low_bit(load_model(ModelSpec("digits_net")), 4), inputs[:1])
    again = bake(baked, inputs[:1]).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in baked.state_dict().items())
    with pytest.raises(ModelError, match="layer conv1 is baked already and has no codes"):
        dumps(baked, inputs[:1])


@pytest.mark.shared
def test_the_trained_resnet20_with_padded_shortcuts(tmp_path: Path) -> None:
    weights = SHARED / "models" / "cifar10_resnet20.safetensors"
    if not weights.exists():
        pytest.skip(f"needs {weights.name} in the shared folder beside the checkout (or in AUTOMC_SHARED)")
    model = load_model(ModelSpec("resnet20", {}, str(weights)))
    inputs = torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for net, bits in ((model, 32), (low_bit(model, 4), 4)):
        write_onnx(net, inputs[:1], tmp_path / "m.onnx")
        with torch.no_grad():
            wanted = bake(net, inputs[:1])(inputs).numpy()
        found = answers(tmp_path / "m.onnx", inputs)
        best = np.sort(wanted, axis=1)
        sure = best[:, -1] - best[:, -2] > 0.02 * np.abs(wanted).max()  # more than a rounded input may move
        assert sure.mean() > 0.5
        assert np.array_equal(found.argmax(1)[sure], wanted.argmax(1)[sure])
        if bits == 32:
            assert np.abs(found - wanted).max() < 1e-4
        assert unmatched(tensors(dumps(net, inputs[:1])), constants(tmp_path / "m.onnx")) == []
    ratio = len(dumps(low_bit(model, 4), inputs[:1])) / len(dumps(model, inputs[:1]))
    assert 1 / 8 < ratio < 0.15  # 4 bits of 32, and scales, biases and the header
