"""The formats of an export: the files that each writes, and who writes, runs and compares them.

Functions are named and imported when they are called: reading a folder loads no torch, and the runtime of an extra is
loaded only where its format is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from numpy.typing import NDArray

from automc.errors import SpecError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from automc.export.baking.bake import Baked

MODEL, PACKED, GRAPH = "model.onnx", "model.safetensors", "graph.json"
PROGRAM, WEIGHTS, SCRIPT = "model.pt2", "weights.safetensors", "model.py"

OPENVINO = ("openvino.xml", "openvino.bin")
EXECUTORCH = "model.pte"

RENAMED = {"safetensors": "packed"}
"""Names that formats had before."""


@dataclass(frozen=True)
class Source:
    """What a format is written from.

    Attributes:
        model: the compressed network, not baked yet; no format changes it.
        example: normalised inputs, shape (n, ...); whole numbers for an embedding.
    """

    model: nn.Module
    example: Tensor

    @cached_property
    def baked(self) -> Baked:
        """The network as it is written, made once for all formats; not to be changed either."""
        from automc.export.baking.bake import fold

        return fold(self.model, self.example)


class Network(Protocol):
    """A file of an export, loaded."""

    def outputs(self, inputs: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """All outputs by name for normalised inputs, shape (n, ...), float32 or whole numbers.

        Raises:
            ProofError: the runtime cannot run it.
        """
        ...


class Comparison(NamedTuple):
    """How many arrays of a format are in the ONNX file, number for number, and the names of those that are not."""

    same: int
    others: tuple[str, ...]


@dataclass(frozen=True)
class Format:
    """One format. Functions are given as ``module:name``.

    Attributes:
        name: as ``export --format`` gives it.
        files: by name in the folder, what it holds.
        writer: ``(folder, Source) -> None`` writes the files; raises ModelError where the network cannot be so written.
        runner: ``(folder) -> Network``, which the proof runs on the test split in a process of its own; raises
            ProofError where the runtime cannot load it. Without it nothing runs the files.
        comparer: ``(folder) -> Comparison`` with the ONNX file beside it. Without it only outputs are compared.
        needs: modules that writer and runner import beside automc's own. extra: of the installation, that brings them.
    """

    name: str
    files: Mapping[str, str]
    writer: str
    runner: str = ""
    comparer: str = ""
    needs: tuple[str, ...] = ()
    extra: str = ""

    def missing(self) -> str:
        """The first module that it needs and that is not installed; "" where all are."""
        return next((name for name in self.needs if find_spec(name) is None), "")

    def write(self, folder: Path, source: Source) -> None:
        """Write the files into a folder that exists."""
        _function(self.writer)(folder, source)

    def opened(self, folder: Path) -> Network:
        """The network, loaded by the runtime that users of this format have."""
        found: Network = _function(self.runner)(folder)
        return found

    def compare(self, folder: Path) -> Comparison:
        """Its arrays beside those of the ONNX file."""
        found: Comparison = _function(self.comparer)(folder)
        return found


FORMATS: Mapping[str, Format] = {
    each.name: each
    for each in (
        Format(
            name="onnx",
            files={MODEL: "the compressed network; layers with integer weights and rounded inputs run in int8"},
            writer="automc.export.onnx.writing:write",
            runner="automc.export.onnx.runtime:opened",
            needs=("onnxruntime",),
        ),
        Format(
            name="packed",
            files={
                PACKED: "the same numbers, every weight in as many bits as it has (layout: automc/export/README.md)",
                GRAPH: "what the network does with them, for automc.load",
            },
            writer="automc.export.graph.load:write",
            runner="automc.export.graph.load:opened",
            comparer="automc.export.proof.weights:compare",
            needs=("torch",),
        ),
        Format(
            name="torch",
            files={
                SCRIPT: "the network as Python to read, which needs torch and safetensors alone: model.load()",
                WEIGHTS: "its weights as plain tensors, dense",
                PROGRAM: "the same network for torch.export.load",
            },
            writer="automc.export.torch.files:write",
            comparer="automc.export.torch.files:compare",
            needs=("torch",),
        ),
        Format(
            name="openvino",
            files={
                OPENVINO[0]: "the network as OpenVINO's IR: layers with int8 codes run in integers",
                OPENVINO[1]: "its weights",
            },
            writer="automc.export.openvino_files:write",
            runner="automc.export.openvino_files:opened",
            needs=("openvino",),
            extra="openvino",
        ),
        Format(
            name="executorch",
            files={EXECUTORCH: "the network for phones and boards: layers with int8 codes run in XNNPACK's integers"},
            writer="automc.export.executorch.files:write",
            runner="automc.export.executorch.files:opened",
            needs=("executorch", "torch"),
            extra="executorch",
        ),
    )
}
"""By name. ``onnx`` is always written, because the proof measures metrics and latency with it."""

DEFAULT = ("onnx", "packed")


def formats_named(names: Sequence[str]) -> list[Format]:
    """The formats of these names, in the order of FORMATS.

    Raises:
        SpecError: an unknown name, ``onnx`` is not among them, or what a format needs is not installed.
    """
    for name in names:
        if name in RENAMED:
            raise SpecError(f"format {name!r} is called {RENAMED[name]!r}: write --format onnx,{RENAMED[name]}")
    strange = [name for name in names if name not in FORMATS]
    if strange or "onnx" not in names:
        given = ", ".join(names) or "nothing"
        raise SpecError(f"formats are {', '.join(FORMATS)}, always with onnx, which the proof measures; not {given}")
    found = [each for name, each in FORMATS.items() if name in names]
    for each in found:
        if absent := each.missing():
            extra = f": pip install 'automc[{each.extra}]'" if each.extra else ""
            raise SpecError(f"format {each.name} needs {absent}, which is not installed{extra}")
    return found


def _function(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
