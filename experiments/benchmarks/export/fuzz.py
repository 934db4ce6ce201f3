"""Packed files and graphs that were changed at random: are they refused in a line, within memory, without a crash?

    python experiments/benchmarks/export/fuzz.py [--mutations 10000] [--seed 0]

Files of four small networks are changed in their bytes, in their header, notes or values (with a checksum that fits, as
somebody would who knows how it is made), or cut; then loaded as ``automc.load`` does, and run where they load. Each
process has bounded memory and makes 100 of them; what it does not come back from is a crash. Allowed is a ProofError in
one line, or a network. The table is written to ``fuzz.md``.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import multiprocessing
import random
import re
import resource
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import publish, table

from automc.errors import ProofError
from automc.export import packed
from automc.export.baking.bake import fold
from automc.export.graph import load
from automc.export.graph.program import describe, program_of
from automc.operators.live_kinds import live
from automc.operators.quantize import quantize_layer
from automc.operators.quantizers import InputQuantizer

HERE = Path(__file__).resolve().parent
BATCH, MEMORY = 100, 3 * 2**30
"""Files a process, and bytes that it may have beyond those it begins with."""

NUMBERS: tuple[Any, ...] = (0, 1, -1, 2, 7, 255, 2**15, 2**31, 2**40, 2**63, 2**64, 10**400, -(2**70), 0.5, 1e308)
OTHERS: tuple[Any, ...] = (
    None, True, "", "x", "../x", "nan", "__import__('os').system('true')", "__class__", [], {}, [[]], [0] * 1000,
    {"node": "x"}, {"tensor": "x"}, {"float": "nan"}, {"dtype": "load"}, {"device": "cuda:99"}, [[[[[[[[1]]]]]]]],
)  # fmt: skip
OPERATORS = (
    "aten.from_file.default", "aten.zeros.default", "aten.expand.default", "aten.as_strided.default",
    "aten.split.Tensor", "aten.repeat.default", "aten.pad.default", "aten.cat.default", "aten.unbind.int",
    "aten.relu_.default", "aten.select.int",
    "aten.conv2d.default", "aten.lstm.input", "aten.embedding.default", "aten.arange.default", "operator.mul",
    "operator.getitem", "os.system", "aten.conv2d.__init__", "aten.upsample_nearest2d.vec", "aten.max_pool2d.default",
    "aten.index_put.default", "aten.einsum.default", "aten.unfold.default", "aten.pixel_shuffle.default",
)  # fmt: skip


class Kept(NamedTuple):
    """A network as its files say it."""

    data: bytes
    graph: dict[str, Any]
    example: np.ndarray


class Change(NamedTuple):
    """A file that was changed, and how."""

    kind: str
    data: bytes
    graph: Any


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.rnn, self.head = nn.Embedding(11, 8), nn.LSTM(8, 12, batch_first=True), nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.rnn(self.tokens(x))[0]
        return {"last": self.head(y[:, -1]), "all": y.chunk(2, dim=1)[0]}


def networks() -> list[Kept]:
    """Convolutions with rounded inputs, masks and a codebook, tokens through an LSTM, a transformer's block."""
    torch.manual_seed(0)
    images = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.Flatten(),
                           nn.Linear(32 * 16, 10)).eval()  # fmt: skip
    sparse = copy.deepcopy(images)
    block = nn.Sequential(nn.Linear(16, 48), nn.GELU(), nn.Unflatten(2, (4, 12)), nn.Softmax(-1), nn.Flatten(1)).eval()
    tokens = Tokens().eval()
    for layer in (images[0], images[3], images[5], tokens.rnn, tokens.head, block[0]):
        quantize_layer(layer, 4)
        layer.input_quantizer, layer.activation_bits = InputQuantizer(8, -3.0, 3.0), 8
    for layer in (sparse[0], sparse[3], sparse[5]):
        way = live(layer).ways["weight"]
        way.mask = layer.weight.abs() > layer.weight.abs().flatten().quantile(0.85)
    pairs = [(images, torch.randn(4, 3, 8, 8)), (sparse, torch.randn(4, 3, 8, 8))]
    pairs += [(tokens, torch.randint(11, (4, 6))), (block, torch.randn(4, 5, 16))]
    return [_kept(*pair) for pair in pairs]


def _kept(model: nn.Module, example: torch.Tensor) -> Kept:
    baked = fold(model, example)
    graph = describe(program_of(baked.model, example), baked.model)
    return Kept(packed.dumps(model, example, baked), graph, example.numpy())


def sealed(data: bytes) -> bytes:
    """With a checksum that fits, where there is a place for one."""
    found = re.search(rb'"automc":"3 (.{16})"', data[:300], re.DOTALL)
    if found is None:
        return data
    start, end = found.span(1)
    digest = hashlib.sha256(data[:start] + b"0" * 16 + data[end:]).hexdigest()[:16]
    return data[:start] + digest.encode() + data[end:]


def flipped(kept: Kept, draw: random.Random) -> Change:
    data = bytearray(kept.data)
    for _ in range(draw.choice((1, 1, 2, 20))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return Change("packed: bits flipped", bytes(data), kept.graph)


def resealed(kept: Kept, draw: random.Random) -> Change:
    data = bytearray(kept.data)
    for _ in range(draw.choice((1, 1, 2, 20))):
        data[draw.randrange(len(data))] = draw.randrange(256)
    return Change("packed: bytes changed under a new checksum", sealed(bytes(data)), kept.graph)


def cut(kept: Kept, draw: random.Random) -> Change:
    start, end = sorted(draw.randrange(len(kept.data) + 1) for _ in range(2))
    data = kept.data[:end] if draw.random() < 0.5 else kept.data[:start] + kept.data[end:]
    return Change("packed: cut", sealed(data) if draw.random() < 0.5 else data, kept.graph)


def headed(kept: Kept, draw: random.Random) -> Change:
    """The safetensors header says something else."""
    length = int.from_bytes(kept.data[:8], "little")
    head = json.loads(kept.data[8 : 8 + length])
    _value_changed(head, draw)
    text = json.dumps(head).encode()
    data = (len(text) if draw.random() < 0.9 else draw.choice((0, 2**20, 2**63))).to_bytes(8, "little")
    return Change("packed: header changed", sealed(data + text + kept.data[8 + length :]), kept.graph)


def noted(kept: Kept, draw: random.Random) -> Change:
    """The notes say something else: shapes, bits, masks, tables of frequencies."""
    sections = safetensors.numpy.load(kept.data)
    notes = json.loads(zlib.decompress(sections["notes"].tobytes()))
    for _ in range(draw.choice((1, 1, 2))):
        _value_changed(notes, draw)
    return Change("packed: notes changed", _joined(sections, json.dumps(notes).encode()), kept.graph)


def nested(kept: Kept, draw: random.Random) -> Change:
    depth = 10 ** draw.randrange(1, 7)
    text = draw.choice((b"[" * depth, b"[" * depth + b"]" * depth, b'{"weights":' * depth, b" " * depth + b"{}"))
    return Change("packed: deep or long notes", _joined(safetensors.numpy.load(kept.data), text), kept.graph)


def scaled(kept: Kept, draw: random.Random) -> Change:
    """Scales, tables and biases that are NaN, infinite or anything."""
    plain, found = packed.read(kept.data)
    stored = {
        name: replace(each, scale=None if each.scale is None else each.scale.copy()) for name, each in found.items()
    }
    plain = {name: array.copy() for name, array in plain.items()}
    value = np.float32(draw.choice((math.nan, math.inf, -math.inf, 0.0, 1e38, -1.0, 1e-45)))
    for array in [*plain.values(), *(s.scale for s in stored.values() if s.scale is not None)]:
        if array.dtype == np.float32 and array.size and draw.random() < 0.5:
            array.reshape(-1)[draw.randrange(array.size)] = value
    return Change("packed: odd scales and biases", packed.pack(plain, stored, {}), kept.graph)


def valued(kept: Kept, draw: random.Random) -> Change:
    graph = copy.deepcopy(kept.graph)
    for _ in range(draw.choice((1, 1, 1, 3))):
        _value_changed(graph, draw)
    return Change("graph: values changed", kept.data, graph)


def tuned(kept: Kept, draw: random.Random) -> Change:
    """Sizes, strides, groups and axes that are other numbers: the nearest to a graph that could be true."""
    graph = copy.deepcopy(kept.graph)
    places = [(inside, key) for node in graph["nodes"] for inside, key in _places(node["args"])]
    whole = [(inside, key) for inside, key in places if type(inside[key]) in (int, float, bool)]
    for inside, key in draw.sample(whole, min(len(whole), draw.choice((1, 1, 2)))):
        inside[key] = draw.choice((*NUMBERS, inside[key] + 1, inside[key] - 1, -inside[key]))
    return Change("graph: other numbers", kept.data, graph)


def operated(kept: Kept, draw: random.Random) -> Change:
    graph = copy.deepcopy(kept.graph)
    node = draw.choice(graph["nodes"])
    node["op"] = draw.choice((*OPERATORS, draw.choice(graph["nodes"])["op"]))
    if draw.random() < 0.5 and node["args"]:
        node["args"][draw.randrange(len(node["args"]))] = draw.choice((*NUMBERS, *OTHERS, [2**20, 2**20], [2**31] * 4))
    return Change("graph: other operators", kept.data, graph)


def knotted(kept: Kept, draw: random.Random) -> Change:
    """Cycles, nodes in another order, results that are there twice or nowhere."""
    graph = copy.deepcopy(kept.graph)
    nodes = graph["nodes"]
    what = draw.randrange(4)
    first, second = draw.randrange(len(nodes)), draw.randrange(len(nodes))
    if what == 0:
        nodes[first], nodes[second] = nodes[second], nodes[first]
    elif what == 1:
        nodes[first]["args"][:1] = [{"node": nodes[second]["name"]}]
    elif what == 2:
        nodes[first]["name"] = nodes[second]["name"]
    else:
        del nodes[first]
    return Change("graph: cycles and gaps", kept.data, graph)


def grown(kept: Kept, draw: random.Random) -> Change:
    """Operators that double what they are given, again and again."""
    graph = copy.deepcopy(kept.graph)
    last = graph["nodes"][-1]["name"]
    kind = draw.choice(("cat", "mul", "repeat", "stack"))
    for i in range(draw.choice((5, 40, 200))):
        args: dict[str, tuple[str, list[Any]]] = {
            "cat": ("aten.cat.default", [[{"node": last}, {"node": last}]]),
            "stack": ("aten.stack.default", [[{"node": last}] * 100]),
            "repeat": ("aten.repeat.default", [{"node": last}, [1000, 1, 1, 1]]),
            "mul": ("operator.mul", [2**30 if i == 0 else {"node": last}, 2**30]),
        }
        name = f"grown{i}"
        graph["nodes"].append({"name": name, "op": args[kind][0], "args": args[kind][1]})
        last = name
    graph["outputs"] = {"node": last}
    return Change("graph: grows without end", kept.data, graph)


CHANGES: tuple[Callable[[Kept, random.Random], Change], ...] = (
    flipped, resealed, cut, headed, noted, nested, scaled, valued, tuned, tuned, operated, knotted, grown,
)  # fmt: skip


def _joined(sections: dict[str, np.ndarray], text: bytes) -> bytes:
    notes = np.frombuffer(zlib.compress(text), np.uint8)
    return sealed(safetensors.numpy.save({**sections, "notes": notes}, {"automc": "3 " + "0" * 16}))


def _value_changed(data: Any, draw: random.Random) -> None:
    """Another value, key or item somewhere inside."""
    places = list(_places(data))
    inside, key = draw.choice(places)
    what = draw.random()
    if what < 0.5:
        inside[key] = draw.choice((*NUMBERS, *OTHERS))
    elif what < 0.7:
        inside[key] = copy.deepcopy(draw.choice(places)[0])
    elif isinstance(inside, dict):
        value = inside.pop(key)
        if what < 0.85:
            inside[str(draw.choice((*OTHERS, "x")))] = value
    else:
        del inside[key]


def _places(data: Any) -> Any:
    for key in list(data) if isinstance(data, dict) else range(len(data)):
        yield data, key
        if isinstance(data[key], (dict, list)):
            yield from _places(data[key])


def outcome(change: Change, example: np.ndarray) -> str:
    """Load and run: ``refused``, ``runs``, ``refused when run``, or what should not happen."""
    try:
        network = load.network_of(change.graph, packed.tensors(change.data), Path("graph.json"))
    except ProofError as error:
        return "refused" if "\n" not in str(error) else f"several lines: {error!r}"[:200]
    except BaseException as error:  # what this looks for
        return f"untyped: {type(error).__name__}: {error}"[:200]
    try:
        runner = load.Runner(network)
        runner.outputs(example)
    except ProofError:
        return "refused when run"
    except BaseException as error:
        return f"untyped when run: {type(error).__name__}: {error}"[:200]
    return "runs"


def batch(arguments: tuple[list[Kept], int, int]) -> tuple[list[tuple[str, str]], int]:
    """Outcomes of one process's files, and by how many bytes its memory grew."""
    kept, seed, count = arguments
    torch.set_num_threads(1)
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with open("/proc/self/statm", encoding="ascii") as file:
        space = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (space + MEMORY, space + MEMORY))
    found = []
    for number in range(seed, seed + count):
        draw = random.Random(number)
        one = kept[number % len(kept)]
        change = CHANGES[(number // len(kept)) % len(CHANGES)](one, draw)
        found.append((change.kind, outcome(change, one.example)))
    return found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - start


def main() -> None:
    """Run all and write the table."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--mutations", type=int, default=10_000)
    asked.add_argument("--seed", type=int, default=0)
    given = asked.parse_args()
    kept, start = networks(), time.perf_counter()
    jobs = [(kept, seed, min(BATCH, given.seed + given.mutations - seed))
            for seed in range(given.seed, given.seed + given.mutations, BATCH)]  # fmt: skip
    counts: dict[str, Counter[str]] = {}
    strange, grew = Counter[str](), 0
    context = multiprocessing.get_context("fork")
    for job in jobs:
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=lambda send=send, job=job: send.send(batch(job)))
        process.start()
        send.close()
        try:
            found, more = receive.recv()
        except EOFError:
            found, more = [], 0
        process.join()
        if not found:
            strange[f"crash: process of mutations {job[1]} to {job[1] + job[2] - 1} ended with {process.exitcode}"] += 1
        grew = max(grew, more)
        for kind, said in found:
            known = said in ("refused", "runs", "refused when run")
            counts.setdefault(kind, Counter())[said if known else "other"] += 1
            if not known:
                strange[f"{kind}: {said}"] += 1
        done = sum(sum(each.values()) for each in counts.values())
        print(f"{done:,} of {given.mutations:,}, {sum(strange.values())} strange", file=sys.stderr)
    columns = ("refused", "refused when run", "runs", "other")
    rows = [[kind, *(f"{each[column]:,}" for column in columns)] for kind, each in sorted(counts.items())]
    total = Counter[str]()
    for each in counts.values():
        total += each
    rows.append(["all", *(f"{total[column]:,}" for column in columns)])
    said = (
        f"Files of {len(kept)} small networks ({', '.join(f'{len(k.data):,}' for k in kept)} bytes), "
        f"{given.mutations:,} changes, seed {given.seed}, {time.perf_counter() - start:.0f} s. A process of {BATCH} "
        f"files took at most {grew / 2**20:.0f} MiB more than it had before the first. Neither refused nor running: "
        + ("; ".join(f"{text} ({count})" for text, count in strange.most_common(50)) or "nothing.")
    )
    publish(HERE / "fuzz.md", "# Changed packed files and graphs", table(["change", *columns], rows), said)


if __name__ == "__main__":
    main()
