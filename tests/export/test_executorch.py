"""The program of ExecuTorch: what it computes, and which layers it computes in integers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_qdq import Residual, noise
from torch import Tensor, nn

from automc.errors import ModelError, ProofError
from automc.export.baking.bake import fold
from automc.export.formats import FORMATS, Source

pytest.importorskip("executorch")
# torch calls an enum of its own deprecated while ExecuTorch is imported.
pytestmark = pytest.mark.filterwarnings("ignore")

from automc.export.executorch.files import Runner  # noqa: E402
from automc.export.executorch.integers import graphs  # noqa: E402

INTEGERS = "quantized_decomposed.dequantize_per_channel.default"


def written(folder: Path, model: nn.Module, inputs: Tensor) -> Runner:
    FORMATS["executorch"].write(folder, Source(model, inputs))
    return FORMATS["executorch"].opened(folder)  # type: ignore[return-value]


def whole(graph: torch.fx.GraphModule) -> int:
    return sum(str(node.target) == INTEGERS for node in graph.graph.nodes)


@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(8, 8), (4, 6)])
def test_the_program_computes_what_torch_does(tmp_path: Path, weight_bits: int, activation_bits: int) -> None:
    """Slow by itself: ExecuTorch takes 10 s to lower a network."""
    model, inputs = Residual(weight_bits, activation_bits), noise(64, 3, 12, 12)
    runner = written(tmp_path, model, inputs)
    assert [path.name for path in tmp_path.iterdir()] == list(FORMATS["executorch"].files)
    wanted = fold(model, inputs[:1]).model(inputs).detach().numpy()
    found = runner.outputs(inputs.numpy())
    assert list(found) == ["output"]
    assert np.abs(found["output"] - wanted).max() < 0.03 * np.abs(wanted).max()  # a step moved, sums rounded
    floats = sum(tensor.numel() for tensor in model.parameters()) * 4
    assert (tmp_path / "model.pte").stat().st_size < 0.9 * floats


def test_every_layer_whose_result_is_rounded_has_integer_weights() -> None:
    model, inputs = Residual(8, 8), noise(64, 3, 12, 12)
    baked = fold(model, inputs)
    found = list(graphs(baked, inputs))
    assert [whole(graph) for graph in found] == [4, 4, 1, 0], "all but the last; of those alone that the search rounds"
    for graph in found[2:]:
        assert torch.allclose(graph(inputs)[0], baked.model(inputs), atol=1e-5)
    few = list(graphs(baked, inputs[:8]))
    assert [whole(graph) for graph in few] == [1, 0], "8 examples say nothing about ranges"


def test_a_narrow_grid_is_clamped_as_the_search_did() -> None:
    """Codes of 4 bits would run on to the ends of int8 without it."""
    model, inputs = Residual(4, 4), 3.0 * noise(64, 3, 12, 12)
    baked = fold(model, inputs)
    *_, plain = graphs(baked, inputs)
    assert torch.allclose(plain(inputs)[0], baked.model(inputs), atol=1e-5)
    clamps = [node for node in plain.graph.nodes if "hardtanh" in str(node.target)]
    assert clamps
    assert all("conv2d" in str(node.args[0].target) for node in clamps)


class Named(nn.Module):
    """Whole numbers in, a dict out."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 6)
        self.linear = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = self.table(x).mean(1)
        return {"classes": self.linear(found), "inside": found}


def test_whole_numbers_go_in_and_names_come_out(tmp_path: Path) -> None:
    model, inputs = Named().eval(), torch.arange(40).reshape(8, 5) % 10
    found = written(tmp_path, model, inputs).outputs(inputs.numpy())
    assert list(found) == ["classes", "inside"]
    for name, wanted in model(inputs).items():
        assert np.allclose(found[name], wanted.detach().numpy(), atol=1e-5)


class Unknown(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svdvals(x[:, 0])


def test_what_cannot_be_lowered_is_an_error_in_a_line_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"ExecuTorch cannot lower it: .*leave out --format executorch") as caught:
        FORMATS["executorch"].write(tmp_path, Source(Unknown(), noise(8, 1, 4, 4)))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_bytes_that_are_no_program_are_an_error_in_a_line(tmp_path: Path) -> None:
    for content in (b"", b"hello", bytes(1000), json.dumps({"a": 1}).encode()):
        (tmp_path / "model.pte").write_bytes(content)
        with pytest.raises(ProofError, match="ExecuTorch cannot load it") as caught:
            FORMATS["executorch"].opened(tmp_path)
        assert "\n" not in str(caught.value)
