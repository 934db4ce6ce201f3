"""The network as ExecuTorch's program for phones and boards: one file, lowered to XNNPACK."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automc.errors import ModelError, ProofError, one_line
from automc.export.formats import EXECUTORCH, Source

NAMES = "output_names"
"""Method of the program that gives the names of the outputs as a list in JSON."""

_LOWERING = "automc.export.executorch.lowering"
_WHOLE = 4
"""ExecuTorch's number of int64; all other inputs are float32."""

_STEP = 0.02
"""How far an output may be from torch's, over the largest: rounded numbers move by a whole step in places."""


def write(folder: Path, source: Source) -> None:
    """Write the program, which takes one input at a time.

    It is lowered, loaded and run in a process of its own: these are native libraries with much to say.

    Raises:
        ModelError: torch cannot export the network, or ExecuTorch cannot lower or run it.
        OSError: a file cannot be written.
    """
    import torch
    from safetensors.numpy import load_file
    from safetensors.torch import save_file

    from automc.export.baking.outputs import named_outputs, near
    from automc.export.executorch.integers import graphs
    from automc.export.graph.program import lone_program
    from automc.export.proof.fresh import fresh

    model, example = source.baked.model, source.example[:8]
    with torch.no_grad():
        names = list(named_outputs(model(example), model))
    title, said = type(source.model).__name__, ""
    with tempfile.TemporaryDirectory(prefix="automc-") as temporary:
        place = Path(temporary)
        save_file({"x": example.contiguous()}, place / "inputs")
        for graph in graphs(source.baked, source.example):
            with torch.no_grad():
                wanted = [output.numpy() for output in graph(example)]
            torch.export.save(lone_program(graph, example), place / "program.pt2")
            try:
                fresh(_LOWERING, place, json.dumps(names))
            except ProofError as error:
                said = str(error)
                continue
            found = load_file(place / "outputs")
            if all(near(found[str(i)], each, _STEP) for i, each in enumerate(wanted)):
                (folder / EXECUTORCH).write_bytes((place / EXECUTORCH).read_bytes())
                return
            said = "it gives other outputs"
    raise ModelError(f"model {title}: ExecuTorch cannot lower it: {said}; leave out --format executorch")


class Runner:
    """A program, loaded by ExecuTorch's own runtime.

    Raises:
        ProofError: it cannot load it, or it is no program with one input and named outputs.
    """

    def __init__(self, path: Path) -> None:
        from executorch.runtime import Runtime

        self.path = path
        try:
            self._program = Runtime.get().load_program(path)
            self._forward: Any = self._program.load_method("forward")
            named: Any = self._program.load_method(NAMES)
            self.names: list[str] = [str(name) for name in json.loads(named.execute([])[0])]
            meta = self._forward.metadata
            self._whole = meta.input_tensor_meta(0).dtype() == _WHOLE
            right = meta.num_inputs() == 1 and meta.num_outputs() == len(self.names)
        except (RuntimeError, OSError, ValueError, TypeError, AttributeError, IndexError) as error:
            raise ProofError(f"{path}: ExecuTorch cannot load it: {one_line(error)}") from error
        if not right:
            raise ProofError(f"{path}: must take one input and name each output")

    def outputs(self, inputs: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """See formats.Network. One input after the other: the program has room for one."""
        import torch

        given = torch.from_numpy(np.ascontiguousarray(inputs)).to(torch.int64 if self._whole else torch.float32)
        rows: list[list[NDArray[Any]]] = []
        try:
            for place in range(len(given)):
                found = self._forward.execute([given[place : place + 1]])
                rows.append([output.numpy().copy() for output in found])
        except RuntimeError as error:
            raise ProofError(f"{self.path}: ExecuTorch cannot run it: {one_line(error)}") from error
        return {name: np.concatenate(column) for name, column in zip(self.names, zip(*rows, strict=True), strict=True)}


def opened(folder: Path) -> Runner:
    """The network of format ``executorch``. Raises as ``Runner``."""
    return Runner(folder / EXECUTORCH)
