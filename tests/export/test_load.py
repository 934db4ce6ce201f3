"""automc.load: the exported network again, without its factory; and what no graph file may do."""

from __future__ import annotations

import contextlib
import copy
import json
import pickle
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_export_families import FAMILIES, few_bits, made, outputs
from torch import Tensor, nn

import automc
from automc.errors import ModelError, ProofError
from automc.export.formats import GRAPH, PACKED, Source
from automc.export.graph.load import Runner, load, network_of, write
from automc.export.graph.operators import ATEN, allowed
from automc.export.packed import tensors
from automc.operators.live import LiveLayer
from automc.operators.quantizers import InputQuantizer

torch.set_num_threads(1)


def rounded(family: str, form: str) -> Source:
    """A network whose weights and inputs are compressed, but for the plain form."""
    model, inputs = made(family, form)
    for layer in model.modules():
        if isinstance(layer, LiveLayer):
            layer.input_quantizer, layer.activation_bits = InputQuantizer(8, -3.0, 3.0), 8
    return Source(model, inputs)


@pytest.mark.parametrize("form", ["plain", "4 bits"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_loaded_is_the_network(family: str, form: str, tmp_path: Path) -> None:
    source = rounded(family, form)
    write(tmp_path, source)
    network = automc.load(tmp_path)
    assert not network.training
    fast_path = family == "bert" and form == "plain"  # torch's encoder layers have another kernel outside of a graph
    for batch in (source.example, source.example[:1], torch.cat([source.example] * 3)):
        wanted, found = outputs(source.baked.model, batch), outputs(network, batch)
        assert list(found) == list(wanted)
        for name, array in wanted.items():
            assert np.abs(found[name] - array).max() <= (1e-6 * np.abs(array).max() if fast_path else 0), name
    state = source.baked.model.state_dict()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert type(network(source.example)) is type(source.model(source.example))


class Odd(nn.Module):
    """What exporters meet: a tied weight, a constant, half precision, sizes, nested outputs and None."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6, bias=False)
        self.second.weight = self.first.weight
        self.small = nn.Parameter(torch.randn(6).to(torch.bfloat16))
        self.register_buffer("places", torch.arange(6), persistent=False)

    def forward(self, x: Tensor) -> dict[str, Any]:
        y = self.second(self.first(x)) + torch.tensor([1.0, float("inf"), 2.0, 3.0, 4.0, 5.0]).clamp(max=6.0)
        z = y.view(x.shape[0], 2, -1) * (x.shape[0] * 2 + 1)
        return {"a": (y + self.small.float(), [z, None]), "b": y.gather(1, self.places.expand(x.shape[0], -1))}


def test_an_odd_network_comes_back(tmp_path: Path) -> None:
    source = Source(Odd().eval(), torch.randn(3, 6))
    write(tmp_path, source)
    network = load(tmp_path / PACKED)
    assert sorted(network.state_dict()) == ["first.bias", "first.weight", "places", "small"]
    assert network.small.dtype is torch.bfloat16
    inputs = torch.randn(5, 6)
    wanted, found = source.model(inputs), network(inputs)
    assert list(found) == ["a", "b"]
    assert torch.equal(found["a"][0], wanted["a"][0])
    assert isinstance(found["a"], tuple)
    assert torch.equal(found["a"][1][0], wanted["a"][1][0])
    assert found["a"][1][1] is None
    assert torch.equal(found["b"], wanted["b"])
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(other(inputs)["b"], wanted["b"])
    runner = Runner(network)
    assert list(runner.outputs(inputs.numpy())) == ["a", "a_1", "b"]


def test_a_loaded_network_can_be_moved_changed_and_traced(tmp_path: Path) -> None:
    source = rounded("resnet_b", "4 bits")
    write(tmp_path, source)
    network = load(tmp_path)
    wanted = network(source.example)
    network.load_state_dict({name: 2 * tensor for name, tensor in network.state_dict().items()})
    assert not torch.equal(network(source.example), wanted)
    twice = load(tmp_path).double()(source.example.double())
    assert twice.dtype is torch.float64
    again = torch.export.export(load(tmp_path), (source.example,)).module()
    assert torch.equal(again(source.example), wanted)


def test_a_fresh_process_needs_the_folder_only(tmp_path: Path) -> None:
    source = rounded("lstm", "4 bits")
    write(tmp_path, source)
    np.save(tmp_path / "x.npy", source.example.numpy())
    code = (
        "import sys, numpy, torch, automc; net = automc.load(sys.argv[1]);"
        "torch.set_num_threads(1); x = torch.from_numpy(numpy.load(sys.argv[1] + '/x.npy'));"
        "numpy.save(sys.argv[1] + '/y.npy', net(x).detach().numpy());"
        "print([m for m in sys.modules if m.startswith(('automc.operators', 'automc.evaluation', 'families'))])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    assert np.array_equal(np.load(tmp_path / "y.npy"), outputs(source.baked.model, source.example)["output"])


def test_what_torch_export_cannot_follow_is_refused(tmp_path: Path) -> None:
    class Branch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if float(x.sum()) > 0 else -x

    class Bessel(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.i0(x)

    with pytest.raises(ModelError, match=r"Branch: torch.export cannot follow it: .*; export --format onnx"):
        write(tmp_path, Source(Branch(), torch.ones(2, 3)))
    with pytest.raises(ModelError, match=r"packed: a graph cannot call aten.i0.default \(at i0\)"):
        write(tmp_path, Source(Bessel(), torch.ones(2, 3)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graphs")
    model, inputs = FAMILIES["vgg"]()
    few_bits(model)
    write(path, Source(model, inputs))
    return path


Change = Callable[[dict[str, Any]], Any]


def node(number: int, **changes: Any) -> Change:
    return lambda data: data["nodes"][number].update(changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(version=9), "'automc-graph' version 9, this automc reads automc-graph version 1"),
        (node(0, op="aten.from_file.default"), "calls 'aten.from_file.default', which no graph may call"),
        (node(0, op="os.system"), "calls 'os.system', which no graph may call"),
        (node(0, op="aten.conv2d.__class__"), "which no graph may call"),
        (node(0, op="aten.conv2d.overloads"), "AttributeError: aten.conv2d has no overload overloads"),
        (node(0, op="aten.conv2d.out"), "calls 'aten.conv2d.out'"),
        (node(0, op=["aten"]), "which no graph may call"),
        (node(0, name="x; import os"), "a node is called 'x; import os'"),
        (node(0, args=[{"node": "relu__1"}]), "reads 'relu__1', which is not made before it"),
        (node(0, args=[{"node": "conv2d"}]), "reads 'conv2d', which is not made before it"),
        (node(0, args=[{"tensor": "nothing"}]), "reads the tensor 'nothing', which it does not list"),
        (node(0, args=[{"eval": "1"}]), r"an argument is \{'eval': '1'\}"),
        (node(0, args=[{"dtype": "load"}]), "dtype 'load' is none of torch's"),
        (node(0, args=[]), "missing value for argument"),
        (node(1, name="conv2d"), "two nodes are called 'conv2d'"),
        (node(0, op="aten.zeros.default", args=[[2**20, 2**20]]), "makes a tensor of shape"),
        (node(0, op="aten.expand.default", args=[{"node": "x"}, [2**40, 3, 8, 8]]), "not a graph that can be run"),
        (node(0, op="operator.mul", args=["x", 2**30]), "arithmetic of sizes takes numbers"),
        (node(0, op="operator.mul", args=[2**40, 2**40]), "a size above"),
        (lambda d: d.update(outputs={"node": "elsewhere"}), "gives out 'elsewhere', which no node makes"),
        (lambda d: d["tensors"].update({"../x": {}}), r"tensor '../x': a name has letters"),
        (lambda d: d["tensors"]["features.0.bias"].update(shape=[7]), r"is float32 \(7,\), in the packed file"),
        (lambda d: d["tensors"]["features.0.bias"].update(dtype="object"), "is object"),
        (
            lambda d: d["tensors"].update(forward=dict(d["tensors"]["features.0.bias"])),
            "'forward' is not in the packed",
        ),
        (lambda d: d["inputs"][0].update(shape=[None, 2**40]), "an input of"),
        (lambda d: d.pop("nodes"), "KeyError"),
        (lambda d: d.update(nodes=7), "TypeError"),
        (lambda d: d.update(inputs=[]), "a graph has one input"),
    ],
)
def test_a_hostile_graph_is_one_line(folder: Path, change: Change, message: str) -> None:
    data = json.loads((folder / GRAPH).read_text())
    change(data)
    with pytest.raises(ProofError, match=message) as caught:
        network_of(data, tensors(folder / PACKED), folder / GRAPH)
    assert "\n" not in str(caught.value)


ODD = (
    None,
    True,
    0,
    -1,
    7,
    2**31,
    2**64,
    10**400,
    0.5,
    1e308,
    "",
    "x",
    "nan",
    [],
    {},
    [[]],
    {"node": "x"},
    {"float": "nan"},
)


def places(data: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(data) if isinstance(data, dict) else range(len(data)):
        yield data, key
        if isinstance(data[key], (dict, list)):
            yield from places(data[key])


def test_graphs_that_were_changed_anywhere_load_or_are_refused_in_a_line(folder: Path) -> None:
    """The whole of it: experiments/benchmarks/export/fuzz.py."""
    text, arrays, draw = (folder / GRAPH).read_text(), tensors(folder / PACKED), random.Random(0)
    loaded = 0
    for _ in range(200):
        data = json.loads(text)
        for inside, key in draw.sample(list(places(data)), draw.choice((1, 1, 2))):
            inside[key] = draw.choice((*ODD, *[inside[key] + 1 if type(inside[key]) is int else {"tensor": "x"}] * 4))
        try:
            network = network_of(data, arrays, folder / GRAPH)
        except ProofError as error:
            assert "\n" not in str(error)  # noqa: PT017
            continue
        loaded += 1
        with contextlib.suppress(ProofError):
            Runner(network).outputs(np.zeros((2, 3, 8, 8), np.float32))
    assert 0 < loaded < 100


def test_a_damaged_graph_is_not_loaded_and_one_without_a_sum_is(folder: Path, tmp_path: Path) -> None:
    text, draw = (folder / GRAPH).read_text(), random.Random(1)
    (tmp_path / PACKED).write_bytes((folder / PACKED).read_bytes())
    key = text.index('"sha256"')  # what is under another key is not looked at
    digits = [place for place, sign in enumerate(text) if sign in "0123456789" and not key <= place < key + 8]
    for place in draw.sample(digits, 60):
        other = draw.choice([sign for sign in "0123456789" if sign != text[place]])
        (tmp_path / GRAPH).write_text(text[:place] + other + text[place + 1 :])
        with pytest.raises(ProofError, match=r"damaged|cannot be loaded|this automc reads"):
            load(tmp_path)
    data = json.loads(text)
    del data["sha256"]
    (tmp_path / GRAPH).write_text(json.dumps(data))
    assert load(tmp_path).graph["inputs"] == data["inputs"]
    with pytest.raises(ProofError, match="cannot be put on device 'nowhere'"):
        load(tmp_path, device="nowhere")


def test_files_that_are_not_there_or_not_readable(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ProofError, match=r"cannot be loaded: .*model.safetensors: No such file"):
        load(tmp_path)
    (tmp_path / PACKED).write_bytes((folder / PACKED).read_bytes())
    with pytest.raises(ProofError, match=r"cannot be loaded: .*graph.json: No such file"):
        load(tmp_path)
    (tmp_path / GRAPH).symlink_to(folder / GRAPH)
    with pytest.raises(ProofError, match=r"cannot be loaded: graph.json is a link"):
        load(tmp_path)
    (tmp_path / GRAPH).unlink()
    for text, said in (("{", "Expecting"), ("[" * 10**5, "nested too deeply"), ("[]", "no JSON object")):
        (tmp_path / GRAPH).write_text(text)
        with pytest.raises(ProofError, match=said):
            load(tmp_path)


def test_every_allowed_operator_exists_and_none_reaches_outside() -> None:
    missing = [name for name in sorted(ATEN) if not hasattr(torch.ops.aten, name)]
    assert missing == []
    assert not {"from_file", "rand", "randn", "empty", "set_", "resize_", "bernoulli", "_local_scalar_dense"} & ATEN
    for name in ATEN:
        for overload in getattr(torch.ops.aten, name).overloads():
            schema = getattr(getattr(torch.ops.aten, name), overload)._schema
            assert not [a.name for a in schema.arguments if a.name in ("filename", "file")], name
            writes = any(argument.is_out for argument in schema.arguments)
            assert allowed(f"aten.{name}.{overload}") == (not writes and overload != "data"), (name, overload)


class Converted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.aten.to.dtype_layout(x, dtype=torch.float32, layout=torch.strided) * 2


def test_a_graph_may_name_the_layout_of_a_tensor(tmp_path: Path) -> None:
    source = Source(Converted(), torch.randn(3, 6))
    write(tmp_path, source)
    assert torch.equal(load(tmp_path)(source.example), 2 * source.example)
