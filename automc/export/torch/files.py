"""Format ``torch``: torch's own program, plain weights, and a module of Python to read, all without automc."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import safetensors.numpy
import torch
from safetensors.torch import save, save_file
from torch import Tensor

from automc.errors import ModelError, ProofError, one_line
from automc.export.baking.outputs import named_outputs, near
from automc.export.formats import MODEL, PROGRAM, SCRIPT, WEIGHTS, Comparison, Source
from automc.export.graph.load import constant
from automc.export.graph.program import describe, program_of
from automc.export.proof.weights import constants, unmatched
from automc.export.torch.source import source_of

LIMIT_S = 600.0

_ORDER = 1e-4
"""Over the largest output: sums in another order, which a fused kernel may take."""

_TRY = """
import sys
sys.path.insert(0, sys.argv[1])
sys.dont_write_bytecode = True
import torch
from safetensors.torch import load_file, save_file
from model import load
torch.set_num_threads(1)
x = load_file(sys.argv[2])["x"]

def flat(found):
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, (list, tuple)):
        return [each for inside in found for each in flat(inside)]
    return [] if found is None else [found]

with torch.no_grad():
    found = [flat(load()(x)), flat(torch.export.load(sys.argv[1] + "/model.pt2").module()(x))]
save_file({f"{i}.{j}": y.contiguous() for i, all in enumerate(found) for j, y in enumerate(all)}, sys.argv[3])
"""


def write(folder: Path, source: Source) -> None:
    """The three files, tried in a process that has the folder and no automc.

    Raises:
        ModelError: torch cannot export the network, or what was written gives other outputs.
    """
    model = source.baked.model
    program = program_of(model, source.example)
    graph = describe(program, model)
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    tensors = {
        name: constant(name, said) if said["kind"] == "constant" else state[name].detach().cpu().contiguous().clone()
        for name, said in graph["tensors"].items()
    }
    (folder / WEIGHTS).write_bytes(save(tensors))  # save_file makes a file that others may not read
    title = type(source.model).__name__
    (folder / SCRIPT).write_text(source_of(graph, title), encoding="utf-8")
    torch.export.save(program, folder / PROGRAM)
    with torch.no_grad():
        wanted = named_outputs(model(source.example), model)
    _try(folder, source.example, list(wanted.values()), title)


def compare(folder: Path) -> Comparison:
    """The plain weights beside the numbers of the ONNX file."""
    try:
        arrays = safetensors.numpy.load((folder / WEIGHTS).read_bytes())
    except Exception as error:  # safetensors and numpy each raise their own; bfloat16 has no numpy type
        raise ProofError(f"{folder / WEIGHTS}: cannot be read: {one_line(error)}") from error
    others = tuple(unmatched(arrays, constants(folder / MODEL)))
    return Comparison(len(arrays) - len(others), others)


def _try(folder: Path, example: Tensor, wanted: list[Tensor], title: str) -> None:
    """Run both in a process of their own and compare their outputs with these."""
    inputs, outputs = folder / ".inputs", folder / ".outputs"
    try:
        save_file({"x": example.contiguous()}, inputs)
        command = [sys.executable, "-I", "-c", _TRY, str(folder), str(inputs), str(outputs)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no word"])[-1]
            raise ModelError(f"model {title}: {SCRIPT} or {PROGRAM} does not run: {last}; leave out --format torch")
        found = safetensors.numpy.load(outputs.read_bytes())
    finally:
        inputs.unlink(missing_ok=True)
        outputs.unlink(missing_ok=True)
    for i, file in enumerate((SCRIPT, PROGRAM)):
        for j, each in enumerate(wanted):
            there = found.get(f"{i}.{j}")
            if there is None or not near(there, each.cpu().numpy(), _ORDER):
                raise ModelError(f"model {title}: {file} gives other outputs; leave out --format torch")
