"""``automc.load``: a network from its packed file and its graph, without the code that it was built with.

Nothing is unpickled, executed or compiled: what a file says is checked against lists of what may be said, and run in
shapes alone before it is given out.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # FakeTensorMode imports it at its first tensor: now, so that no load takes that long
from numpy.typing import NDArray
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from automc.core import untrusted
from automc.errors import ModelError, ProofError, one_line
from automc.export import packed
from automc.export.baking.outputs import named_outputs
from automc.export.formats import GRAPH, PACKED, Source
from automc.export.graph.loaded import LoadedNetwork, callable_of, nodes_in, torch_word
from automc.export.graph.operators import LISTS, allowed
from automc.export.graph.program import CONSTANT_VALUES, FORMAT, SUM, VERSION, describe, digest, program_of, write_graph

NODES, NUMBERS, PIECES = 2**17, 2**31, 2**16
"""Most nodes of a graph; numbers of a tensor that two inputs may lead to; tensors that one operator may make."""

_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
_DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
_WORDS = ("node", "tensor", "float", "device", "dtype", "memory_format", "layout")


def load(path: str | PathLike[str], device: str | torch.device = "cpu") -> LoadedNetwork:
    """The compressed network of an exported folder, in eval mode; the code it was built with is not needed.

    Args:
        path: the folder, or its packed file, beside which the graph lies. device: where its tensors go.

    Returns:
        A module that takes normalised inputs, shape (n, ...). Parameters and buffers have their old names.

    Raises:
        ProofError: a file is missing, damaged or no such file, or they do not fit each other.
    """
    place = Path(path)
    file = place / PACKED if place.is_dir() else place
    where = file.with_name(GRAPH)
    try:
        untrusted.regular(file)
        data = untrusted.json_object(where)
    except (OSError, ValueError) as error:
        said = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise ProofError(f"{place}: cannot be loaded: {said}") from error
    if data.get(SUM, digest(data)) != digest(data):
        raise ProofError(f"{where}: damaged: it is not as it was written")
    network = network_of(data, packed.tensors(file), where)
    try:
        return network.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ProofError(f"{place}: cannot be put on device {str(device)!r}: {one_line(error)[:100]}") from error


def network_of(data: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], where: Path) -> LoadedNetwork:
    """The network of a graph and the arrays of a packed file.

    Raises:
        ProofError: as ``load``.
    """
    with _told(where):
        _check(data)
        tensors = {name: _tensor(name, said, arrays) for name, said in data["tensors"].items()}
        _run_in_shapes(data, tensors)
        return LoadedNetwork(data, tensors)


def write(folder: Path, source: Source) -> None:
    """The files of format ``packed``: the numbers and the graph.

    Raises:
        ModelError: the network cannot be written, or its graph calls what a graph may not.
    """
    baked = source.baked
    packed.write(folder, source)
    data = describe(program_of(baked.model, source.example), baked.model)
    write_graph(folder, data)
    with torch.no_grad():
        found, wanted = (named_outputs(m(source.example), baked.model) for m in (load(folder), baked.model))
    for name, each in wanted.items():
        if found[name].shape != each.shape:
            raise ModelError(f"packed: the graph gives {name} of another shape; export --format onnx")


class Runner:
    """A loaded network as the proof runs it."""

    def __init__(self, network: LoadedNetwork) -> None:
        self._model, self._kind = network, torch_word("dtype", network.graph["inputs"][0]["dtype"])

    def outputs(self, inputs: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """See formats.Network."""
        try:
            with torch.inference_mode():
                found = self._model(torch.from_numpy(np.ascontiguousarray(inputs)).to(self._kind))
                return {name: each.cpu().numpy() for name, each in named_outputs(found, self._model).items()}
        except Exception as error:
            raise ProofError(f"{GRAPH}: cannot be run: {one_line(error)}") from error


def opened(folder: Path) -> Runner:
    """The runner of format ``packed``."""
    return Runner(load(folder))


@contextmanager
def _told(where: Path) -> Iterator[None]:
    """Whatever a graph makes Python or torch raise, in one line."""
    try:
        yield
    except ProofError as error:
        raise ProofError(f"{where}: {error}") from error
    except Exception as error:
        raise ProofError(f"{where}: not a graph that can be run: {one_line(error)}") from error


def _check(data: Mapping[str, Any]) -> None:
    """Everything that can be said of a graph before a tensor is there."""
    if data.get("format") != FORMAT or data.get("version") != VERSION:
        said = f"{data.get('format')!r} version {data.get('version')!r}"
        raise ProofError(f"is {said[:80]}, this automc reads {FORMAT} version {VERSION}")
    if len(data["inputs"]) != 1 or len(data["nodes"]) > NODES:
        raise ProofError(f"a graph has one input and at most {NODES:,} nodes")
    for name, said in data["tensors"].items():
        if not _NAME.fullmatch(name) or said["kind"] not in ("parameter", "buffer", "constant"):
            raise ProofError(f"tensor {name[:80]!r}: a name has letters, digits, _ and dots, and a kind")
    known = {_named(data["inputs"][0])}
    for node in data["nodes"]:
        if not isinstance(node["op"], str) or not allowed(node["op"]):
            raise ProofError(f"calls {str(node['op'])[:80]!r}, which no graph may call")
        callable_of(node["op"])
        kwargs = node.get("kwargs", {})
        if not isinstance(node["args"], list) or not all(isinstance(key, str) for key in kwargs):
            raise ProofError(f"node {str(node['name'])[:80]!r}: arguments are a list and an object")
        for arg in (*node["args"], *kwargs.values()):
            _check_argument(arg, data)
        if strange := set(nodes_in([node["args"], list(kwargs.values())])) - known:
            raise ProofError(f"node {node['name'][:80]!r} reads {min(strange)[:80]!r}, which is not made before it")
        if _named(node) in known:
            raise ProofError(f"two nodes are called {node['name'][:80]!r}")
        known.add(node["name"])
    if strange := set(nodes_in(data["outputs"])) - known:
        raise ProofError(f"gives out {min(strange)[:80]!r}, which no node makes")


def _named(said: Mapping[str, Any]) -> str:
    name = said["name"]
    if not isinstance(name, str) or not name.isidentifier():
        raise ProofError(f"a node is called {str(name)[:80]!r}")
    return name


def _check_argument(arg: Any, data: Mapping[str, Any]) -> None:
    if isinstance(arg, list):
        for each in arg:
            _check_argument(each, data)
    elif isinstance(arg, dict):
        ((kind, name),) = arg.items()
        if kind not in _WORDS or not isinstance(name, str):
            raise ProofError(f"an argument is {str(arg)[:80]}")
        if kind == "tensor" and name not in data["tensors"]:
            raise ProofError(f"reads the tensor {name[:80]!r}, which it does not list")
        if kind in ("dtype", "memory_format", "layout"):
            torch_word(kind, name)
        if kind == "float" and math.isfinite(float(name)):
            raise ProofError(f"a number is written as text: {name[:80]!r}")


def _tensor(name: str, said: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Tensor:
    """A tensor that a graph lists."""
    shape, kind = tuple(said["shape"]), said["dtype"]
    if kind not in _DTYPES:
        raise ProofError(f"tensor {name[:80]!r} is {str(kind)[:80]}")
    dtype = torch_word("dtype", kind)
    if said["kind"] == "constant":
        return constant(name, said)
    if name not in arrays:
        raise ProofError(f"tensor {name[:80]!r} is not in the packed file")
    array = arrays[name]
    if array.shape != shape or str(array.dtype) != ("float32" if kind == "bfloat16" else kind):
        raise ProofError(
            f"tensor {name[:80]!r} is {kind} {shape}, in the packed file {array.dtype} {array.shape}"[:300]
        )
    return torch.from_numpy(np.array(array, order="C")).to(dtype)


def constant(name: str, said: Mapping[str, Any]) -> Tensor:
    """A tensor whose numbers stand in the graph.

    Raises:
        ProofError: they are none, or too many.
    """
    values = [float(v["float"]) if isinstance(v, dict) else v for v in said["values"]]
    if len(values) > CONSTANT_VALUES or any(type(v) not in (int, float, bool) for v in values):
        raise ProofError(f"tensor {name[:80]!r} has {len(values)} values; at most {CONSTANT_VALUES} numbers may be")
    return torch.tensor(values, dtype=torch_word("dtype", said["dtype"])).reshape(tuple(said["shape"]))


def _run_in_shapes(data: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Follow the graph for two inputs without a number: every operator must take what it is given."""
    (said,) = data["inputs"]
    first, *rest = said["shape"]
    sizes = [2 if first is None else first, *rest]
    if said["dtype"] not in _DTYPES or not all(type(n) is int and n >= 0 for n in sizes) or math.prod(sizes) > NUMBERS:
        raise ProofError(f"an input of {str(said)[:200]}")
    with _unlogged(), FakeTensorMode() as mode, torch.no_grad():
        fake = {name: mode.from_tensor(tensor) for name, tensor in tensors.items()}
        network = LoadedNetwork(data, fake)
        values = {said["name"]: torch.empty(sizes, dtype=torch_word("dtype", said["dtype"]))}
        for step in network._steps:
            _check_pieces(data, step, values)
            found = network.called(step, values, torch.device("cpu"))
            for each in found if isinstance(found, (list, tuple)) else [found]:
                if isinstance(each, Tensor) and each.numel() > NUMBERS:
                    raise ProofError(f"node {step.name!r} makes a tensor of shape {tuple(each.shape)}"[:200])
            values[step.name] = found
        network._shaped(data["outputs"], values, torch.device("cpu"))


@contextmanager
def _unlogged() -> Iterator[None]:
    """torch logs the traceback of what does not fit; the error that is raised says it."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def _check_pieces(data: Mapping[str, Any], step: Any, values: Mapping[str, Any]) -> None:
    """How many tensors an operator would make is known before it makes them."""
    if getattr(step.call, "__name__", "").partition(".")[0] not in LISTS:
        return
    read = [values[name] for name in nodes_in(step.args)]
    longest = max((max(each.shape, default=0) for each in read if isinstance(each, Tensor)), default=0)
    if longest > PIECES:
        raise ProofError(f"node {step.name!r} may make {longest:,} tensors, at most {PIECES:,} may be")
