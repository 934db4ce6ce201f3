"""Every family of networks as an ONNX file and as a packed one: float, at 4 bits and sparse."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from automc.core.policy import Policy, Site
from automc.errors import ModelError
from automc.evaluation import timing
from automc.export.baking.bake import bake
from automc.export.baking.outputs import named_outputs
from automc.export.bundle.writing import TestSplit, write_bundle
from automc.export.onnx.writing import write_onnx
from automc.export.packed import dumps, tensors
from automc.export.proof.proving import verify
from automc.export.proof.weights import constants, unmatched
from automc.measure.cost import costs
from automc.operators import OPERATORS
from automc.operators.base import Compression, compress
from automc.operators.canonical import canonical
from automc.operators.factorized import Factorized
from automc.operators.layers import trace
from automc.operators.live import LiveLayer
from automc.operators.live_kinds import live
from automc.operators.quantize import quantize_layer

sys.path.append(str(Path(__file__).resolve().parents[1] / "operators"))

from families import FAMILIES
from nets import settle

torch.set_num_threads(1)
QUANTIZED = OPERATORS["quantize"].kinds


def layers(model: nn.Module) -> list[nn.Module]:
    """The layers that have a live kind; torch's own attention keeps one inside that it does not call."""
    inside = {part for m in model.modules() if isinstance(m, nn.MultiheadAttention) for part in m.modules()}
    return [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.LSTM) and m not in inside]


def few_bits(model: nn.Module) -> None:
    for layer in layers(model):
        quantize_layer(layer, 4)


def sparse(model: nn.Module) -> None:
    """Half of each weight is zero, by hand."""
    for layer in layers(model):
        for name, way in live(layer).ways.items():
            size = getattr(layer, name).detach().abs()
            way.mask = size > size.median()


FORMS: dict[str, Callable[[nn.Module], None]] = {"plain": lambda model: None, "4 bits": few_bits, "sparse": sparse}


def made(family: str, form: str) -> tuple[nn.Module, Tensor]:
    model, inputs = FAMILIES[family]()
    if form != "plain":
        model = canonical(model)  # as compress does; torch's own attention has no layers to compress
    FORMS[form](model)
    return model.eval(), inputs


def outputs(model: nn.Module, inputs: Tensor) -> dict[str, np.ndarray]:
    with torch.no_grad():
        return {name: tensor.numpy() for name, tensor in named_outputs(model(inputs), model).items()}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_both_files_are_the_network(family: str, form: str, tmp_path: Path) -> None:
    model, inputs = made(family, form)
    path = tmp_path / "m.onnx"
    write_onnx(model, inputs, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in (inputs, inputs[:1], torch.cat([inputs, inputs])):
        wanted = outputs(model, batch)
        found = dict(zip(wanted, session.run(None, {"input": batch.numpy()}), strict=True))
        assert [slot.name for slot in session.get_outputs()] == list(wanted)
        for name, array in wanted.items():
            # float32 sums in another order, and folded batch norms: 1e-6 of the largest output a layer, 20 layers.
            assert np.abs(found[name] - array).max() <= 2e-5 * np.abs(array).max()

    packed = tensors(dumps(model, inputs))
    state = {n: t for n, t in bake(model, inputs).state_dict().items() if not n.endswith("num_batches_tracked")}
    assert {n: a.tobytes() for n, a in packed.items()} == {n: t.numpy().tobytes() for n, t in state.items()}
    assert unmatched(packed, constants(path)) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pruned_and_rounded_network_exports(family: str, tmp_path: Path) -> None:
    """Half of the channels of every group and 4 bits, with the gathers that a pruned shortcut or shuffle needs."""
    model, inputs = FAMILIES[family]()
    model = canonical(model)
    seen = trace(model, inputs)
    policy = {Site("prune", group.name, "prune_ratio"): 0.5 for group in seen.table.groups}
    policy |= {Site("quantize", layer.name, "weight_bits"): 4 for layer in seen.table.layers if layer.kind in QUANTIZED}
    small = compress(Compression(model, model, seen, inputs), Policy(policy), ("prune", "quantize")).model
    write_onnx(small, inputs, tmp_path / "m.onnx")
    wanted = outputs(small, inputs)
    found = onnxruntime.InferenceSession(str(tmp_path / "m.onnx")).run(None, {"input": inputs.numpy()})
    for (name, array), other in zip(wanted.items(), found, strict=True):
        assert np.abs(other - array).max() <= 2e-5 * np.abs(array).max(), name  # as above
    packed = tensors(dumps(small, inputs))
    assert unmatched(packed, constants(tmp_path / "m.onnx")) == []
    assert len(dumps(small, inputs)) < len(dumps(model, inputs))
    ours, theirs = costs(small, inputs), costs(model, inputs)
    assert ours["macs"] < 0.6 * theirs["macs"]  # a vision transformer's attention matrix keeps its size
    assert ours["bops"] < 0.3 * theirs["bops"]
    assert ours["params"] < theirs["params"]


def test_tokens_and_an_lstm_make_a_bundle_that_is_proved(tmp_path: Path) -> None:
    model, _ = FAMILIES["lstm"]()
    small, _ = made("lstm", "4 bits")
    tokens = np.random.default_rng(0).integers(0, 11, (60, 6))
    with torch.no_grad():
        ours, theirs = (net(torch.from_numpy(tokens)).argmax(1).numpy() for net in (small, model))
    example = torch.from_numpy(tokens[:1])
    promised = {"top1": float((ours == theirs).mean()), "size_bytes": float(len(dumps(small, example)))}
    folder = write_bundle(
        tmp_path / "out",
        model=small,
        baseline_model=model,
        example=example,
        test=TestSplit(tokens, theirs),
        policy=Policy({}),
        facts={"metrics": promised},
    ).folder
    proof = verify(folder, rounds=2)
    assert proof.passed, proof.reasons
    assert proof.merged == ()
    assert proof.compared == 11  # embedding, 2 x 4 of the LSTM, linear weight and bias
    assert proof.size_bytes == promised["size_bytes"] < 0.6 * proof.baseline_bytes


@pytest.mark.parametrize("family", ["vit", "bert", "lstm", "vgg"])
def test_where_no_batch_norm_is_folded_frozen_weights_are_the_live_ones(family: str) -> None:
    for form in ("4 bits", "sparse"):
        model, inputs = made(family, form)
        assert any(isinstance(m, LiveLayer) for m in model.modules())
        wanted, found = outputs(model, inputs), outputs(bake(model, inputs), inputs)
        assert {n: a.tobytes() for n, a in found.items()} == {n: a.tobytes() for n, a in wanted.items()}


@pytest.mark.parametrize("family", ["bert", "lstm", "detector"])
def test_latency_of_tokens_states_and_several_outputs(family: str) -> None:
    model, inputs = made(family, "4 bits")
    (timed,) = timing.time_networks([timing.onnx_bytes(model, inputs)], tuple(inputs.shape[1:]), 3, 1)
    found = timed.median
    assert 0 < found < 1000


def test_a_network_that_does_not_call_its_compressed_layers_is_refused() -> None:
    model, inputs = FAMILIES["bert"]()
    few_bits(model)
    with pytest.raises(
        ModelError, match=r"model Bert: its outputs change when compressed weights are frozen: it reads"
    ):
        bake(model, inputs)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_two_directions_and_layers_are_in_the_graph_bit_by_bit(kind: type[nn.Module], tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = kind(5, 6, num_layers=2, bidirectional=True, batch_first=True)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            sequence, state = self.rnn(x)
            return sequence, state[0] if isinstance(state, tuple) else state

    torch.manual_seed(0)
    model, inputs = Net().eval(), torch.randn(3, 7, 5)
    quantize_layer(model.rnn, 3)
    write_onnx(model, inputs, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    wanted = outputs(model, inputs)
    for (name, array), found in zip(wanted.items(), session.run(None, {"input": inputs.numpy()}), strict=True):
        assert np.abs(found - array).max() < 1e-5, name  # sums of 11 products, gates between -1 and 1
    assert [slot.shape for slot in session.get_outputs()] == [["batch", 7, 12], [4, "batch", 6]]
    packed = tensors(dumps(model, inputs))
    assert len(packed) == 16
    assert unmatched(packed, constants(tmp_path / "m.onnx")) == []
    gates = packed["rnn.weight_hh_l1_reverse"].reshape(3 if kind is nn.GRU else 4, 6, 6)
    swapped = np.ascontiguousarray(gates[::-1]).reshape(-1, 6)
    assert unmatched({"w": swapped}, constants(tmp_path / "m.onnx")) == ["w"]


def test_a_factorized_layer_folds_the_batch_norm_into_its_last_part(tmp_path: Path) -> None:
    torch.manual_seed(0)
    chain = Factorized(nn.Conv2d(3, 2, (3, 1), bias=False), nn.Conv2d(2, 6, (1, 3)))
    model = nn.Sequential(chain, nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, 4))
    settle(model, torch.randn(64, 3, 6, 6))
    for part in chain:
        quantize_layer(part, 4)
    inputs = torch.randn(4, 3, 6, 6)
    baked = bake(model, inputs)
    assert isinstance(baked[1], nn.Identity)
    assert torch.equal(baked[0][0].weight, torch.from_numpy(chain[0].stored()["weight"].dense()))
    assert not torch.equal(baked[0][1].weight, torch.from_numpy(chain[1].stored()["weight"].dense()))
    wanted = outputs(model, inputs)["output"]
    assert np.abs(outputs(baked, inputs)["output"] - wanted).max() < 1e-5 * np.abs(wanted).max()
    write_onnx(model, inputs, tmp_path / "m.onnx")
    assert unmatched(tensors(dumps(model, inputs)), constants(tmp_path / "m.onnx")) == []
