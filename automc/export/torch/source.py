"""model.py: a graph as Python that a person can read, which needs torch and safetensors alone.

Only the exporter writes it, of a graph of its own; nothing here is used to read what somebody else wrote.
"""

from __future__ import annotations

import keyword
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

from automc.export.formats import WEIGHTS
from automc.export.graph.loaded import nodes_in

WIDTH = 110

_SIGNS = {
    "aten.add.Tensor": "+", "aten.sub.Tensor": "-", "aten.mul.Tensor": "*", "aten.div.Tensor": "/",
    "aten.matmul.default": "@", "operator.add": "+", "operator.sub": "-", "operator.mul": "*",
    "operator.floordiv": "//", "operator.truediv": "/", "operator.mod": "%", "operator.eq": "==", "operator.ne": "!=",
    "operator.lt": "<", "operator.le": "<=", "operator.gt": ">", "operator.ge": ">=",
}  # fmt: skip
_METHODS = {
    "aten.view.default", "aten.expand.default", "aten.contiguous.default", "aten.sym_size.int", "aten.relu_.default",
    "aten.repeat.default", "aten.type_as.default",
}  # fmt: skip
"""Written as ``x.view(...)``."""
_NAMES = {"sym_size": "size"}
_FUNCTIONS = (
    "conv1d conv2d conv3d linear relu hardtanh hardswish hardsigmoid silu gelu leaky_relu elu mish softplus avg_pool2d "
    "adaptive_avg_pool2d max_pool2d pad scaled_dot_product_attention pixel_shuffle"
)
_OF_FUNCTIONAL = frozenset(_FUNCTIONS.split())
"""Those of torch.nn.functional that take what aten's take, in the same order."""
_FOUND = (
    "abs adaptive_avg_pool1d add addmm amax amin argmax batch_norm bmm cat ceil chunk clamp cos div dropout einsum "
    "embedding exp flatten floor group_norm gru index_select layer_norm log log_softmax lstm masked_fill matmul max "
    "maximum mean min minimum mul neg permute pow prelu reshape round rsqrt select sigmoid sin softmax split sqrt "
    "squeeze stack sub sum tanh transpose unbind unflatten unsqueeze where zeros ones"
)
_OF_TORCH = frozenset(_FOUND.split())
"""Those that torch has under the same name, with the same arguments."""

_LETTERS = "xyzuvwabcdeghkmnpqrst"

_HEAD = '''"""{title}, compressed by automc. Needs torch and safetensors, nothing else.

    from model import load

    network = load()  # in eval mode, weights from {weights} beside this file
    outputs = network(inputs)  # normalised inputs, {dtype}, shape {shape}
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

TENSORS = {{
{tensors}
}}
"""Parameters and buffers by name: kind, type and shape."""


class Part(nn.Module):
    """Holds tensors and other parts; ``part[0]`` is the one that is called "0"."""

    def __getitem__(self, name):
        return getattr(self, str(name))


class Network(Part):
    """{title}: the layers as they run, batch norms folded into them, rounded inputs as arithmetic."""

    def __init__(self):
        super().__init__()
        for name, (kind, dtype, shape) in TENSORS.items():
            *path, last = name.split(".")
            part = self
            for step in path:
                if step not in part._modules:
                    part.add_module(step, Part())
                part = part[step]
            tensor = torch.zeros(shape, dtype=dtype)
            if kind == "parameter":
                part.register_parameter(last, nn.Parameter(tensor, requires_grad=False))
            else:
                part.register_buffer(last, tensor)

    def forward(self, {name}):
{forward}


def load(folder=None):
    """The network in eval mode, with the weights of a folder; of this file's without one."""
    folder = Path(__file__).parent if folder is None else Path(folder)
    network = Network()
    network.load_state_dict(load_file(folder / "{weights}"))
    return network.eval()
'''


def source_of(graph: Mapping[str, Any], title: str) -> str:
    """The module's text.

    Args:
        graph: of ``graph.describe``. title: the network's name, one line.
    """
    (said,) = graph["inputs"]
    shape = ", ".join(["n", *map(str, said["shape"][1:])])
    rows = [
        f'    "{name}": ("{"parameter" if t["kind"] == "parameter" else "buffer"}", torch.{t["dtype"]}, '
        f"{tuple(t['shape'])}),"
        for name, t in graph["tensors"].items()
    ]
    return _HEAD.format(
        title=title,
        weights=WEIGHTS,
        dtype=said["dtype"],
        shape=f"({shape})" if "," in shape else f"({shape},)",
        tensors="\n".join(rows),
        name="x",
        forward="\n".join(_forward(graph)),
    )


def _forward(graph: Mapping[str, Any]) -> list[str]:
    """The lines of the forward. A name is used again when nobody reads its value any more."""
    names = {graph["inputs"][0]["name"]: "x"}
    last = _last_reads(graph)
    free, made, lines, section = list[str](), 0, list[str](), ""
    if str({"device": "input"}) in str(graph["nodes"]):
        lines.append("        device = x.device")
    for number, node in enumerate(graph["nodes"]):
        read = list(dict.fromkeys(nodes_in([node["args"], list(node.get("kwargs", {}).values())])))
        if (place := _section(node)) and place != section:
            section = place
            lines.append(f"        # {place}")
        value = _value(node, names)
        free = [names[name] for name in read if last[name] == number] + free
        if not free:
            made += 1
            free = [_LETTERS[made] if made < len(_LETTERS) else f"t{made}"]
        names[node["name"]] = free.pop(0)
        lines += _wrapped(f"        {names[node['name']]} = ", *value)
        if last.get(node["name"], -1) == -1:
            free.insert(0, names[node["name"]])
    return [*lines, f"        return {_shaped(graph['outputs'], names)}"]


def _last_reads(graph: Mapping[str, Any]) -> dict[str, int]:
    """By result the number of the node that reads it last; those that are given out are read after all."""
    last: dict[str, int] = {}
    for number, node in enumerate(graph["nodes"]):
        for name in nodes_in([node["args"], list(node.get("kwargs", {}).values())]):
            last[name] = number
    return last | dict.fromkeys(nodes_in(graph["outputs"]), len(graph["nodes"]))


def _section(node: Mapping[str, Any]) -> str:
    """The layer whose tensor a node reads first."""
    read = [arg["tensor"] for arg in node["args"] if isinstance(arg, dict) and "tensor" in arg]
    return read[0].rpartition(".")[0].removesuffix(".input_quantizer") if read else ""


def _value(node: Mapping[str, Any], names: Mapping[str, str]) -> tuple[str, Sequence[str]]:
    """What is called and its arguments, or a whole expression and none."""
    op, args = node["op"], [_text(arg, names) for arg in node["args"]]
    kwargs = [f"{key}={_text(value, names)}" for key, value in node.get("kwargs", {}).items()]
    if op == "operator.getitem":
        return f"{args[0]}[{args[1]}]", ()
    if op == "operator.neg":
        return f"-{args[0]}", ()
    if op in _SIGNS and len(args) == 2 and not kwargs:
        return f"{args[0]} {_SIGNS[op]} {args[1]}", ()
    _, base, overload = op.split(".")
    if op in _METHODS and len(args) == 1:
        return f"{args[0]}.{base}()", ()
    if op in _METHODS:
        return f"{args[0]}.{_NAMES.get(base, base)}", args[1:] + kwargs
    room = "F" if base in _OF_FUNCTIONAL else "torch" if base in _OF_TORCH else "torch.ops.aten"
    return f"{room}.{base}" + (f".{overload}" if room == "torch.ops.aten" else ""), args + kwargs


def _text(arg: Any, names: Mapping[str, str]) -> str:
    """An argument as Python."""
    if isinstance(arg, list):
        return f"[{', '.join(_text(each, names) for each in arg)}]"
    if not isinstance(arg, dict):
        return repr(arg)
    ((kind, name),) = arg.items()
    if kind == "node":
        return names[name]
    if kind == "tensor":
        return "self" + "".join(_step(part) for part in name.split("."))
    if kind == "device":
        return "device"
    return f'float("{name}")' if kind == "float" else f"torch.{name}"


def _step(part: str) -> str:
    if part.isidentifier() and not keyword.iskeyword(part):
        return f".{part}"
    return f"[{part}]" if part == str(int(part) if part.isdecimal() else -1) else f"[{part!r}]"


def _shaped(outputs: Any, names: Mapping[str, str]) -> str:
    if not isinstance(outputs, dict):
        return repr(outputs)
    ((kind, inside),) = outputs.items()
    if kind == "dict":
        return "{" + ", ".join(f"{key!r}: {_shaped(value, names)}" for key, value in inside) + "}"
    if kind in ("list", "tuple"):
        found = ", ".join(_shaped(value, names) for value in inside)
        return f"[{found}]" if kind == "list" else f"({found},)"
    return _text(outputs, names)


def _wrapped(start: str, called: str, args: Sequence[str]) -> list[str]:
    """A statement, with an argument a line where it would be too long."""
    line = f"{start}{called}({', '.join(args)})" if args else start + called
    if len(line) <= WIDTH or not args:
        return [line]
    rows = [[each] if "'" in each else wrap(each, WIDTH - 20) for each in args]  # texts may hold spaces
    lines = [f"            {line}" for each in rows for line in [*each[:-1], f"{each[-1]},"]]
    return [f"{start}{called}(", *lines, "        )"]
