"""A baked network as torch's graph with roundings and integer weights as the pairs of operators that ExecuTorch knows.

XNNPACK has convolutions and linear layers that take codes and give codes: one runs in integers where its input is
rounded, its weight is integers, and what it makes, behind a clamp, is rounded too. Where the search did not round that,
before a residual sum or a softmax, a grid of 8 bits comes between, as in the ONNX file (onnx/sums.py), if the answers
stay. All other layers compute in floats.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.ao.quantization.fx._decomposed  # registers the operators
from torch import Tensor, fx, nn

from automc.core.integers import Integers, integers
from automc.core.stored import Stored
from automc.export.baking.bake import Baked
from automc.export.baking.outputs import Flattened
from automc.export.graph.program import program_of
from automc.export.onnx.grids import BYTE, Grid
from automc.export.onnx.ranges import apart, stay
from automc.export.onnx.sums import covering
from automc.export.onnx.writing import LEAST, SEEN

_ATEN, _PAIRS = torch.ops.aten, torch.ops.quantized_decomposed
_QUANTIZE, _DEQUANTIZE = _PAIRS.quantize_per_tensor.default, _PAIRS.dequantize_per_tensor.default
_CONVOLUTIONS = (_ATEN.conv1d.default, _ATEN.conv2d.default)
_MAKERS = (*_CONVOLUTIONS, _ATEN.linear.default)
_SUMS = (_ATEN.add.Tensor, _ATEN.add_.Tensor)
_CLAMPS = (_ATEN.relu.default, _ATEN.relu_.default, _ATEN.hardtanh.default, _ATEN.hardtanh_.default)
_SHIFT = 128
"""Codes are int8 here and uint8 elsewhere."""


class Pair(nn.Module):
    """Rounds a tensor: an InputQuantizer in the operators that runtimes know. Fewer bits than 8 are a clamp before it,
    because codes saturate at the ends of int8 alone.
    """

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        if self.grid.top < BYTE:
            x = torch.clamp(x, self.grid.low, self.grid.high)
        place = _place(self.grid)
        rounded: Tensor = _DEQUANTIZE(_QUANTIZE(x, *place), *place)
        return rounded


def graphs(baked: Baked, example: Tensor) -> Iterator[fx.GraphModule]:
    """The network as a graph of any batch, most of it in integers first: with rounded results where the answers stay,
    of all layers or of convolutions; without; and with weights in floats. ExecuTorch cannot lower every one of them.

    Args:
        example: normalised inputs, shape (n, ...).

    Raises:
        ModelError: torch cannot export the network.
    """
    plain = _graph(baked.model, example)
    _join_clamps(plain)
    wholes = _whole_weights(plain, baked.stored)
    for kinds in (_MAKERS, _CONVOLUTIONS) if wholes else ():
        rounded = copy.deepcopy(plain)
        _round_results(rounded, [n for n in rounded.graph.nodes if n.name in wholes and n.target in kinds], example)
        if _answers_stay(plain, rounded, example[:SEEN]):
            yield _with_weights(rounded, wholes)
    if wholes:
        yield _with_weights(copy.deepcopy(plain), wholes)
    yield plain


def _graph(model: nn.Module, example: Tensor) -> fx.GraphModule:
    """torch's graph of the network, any batch, with a pair in the place of every input quantizer."""
    paired = copy.deepcopy(model)
    for layer in paired.modules():
        own = getattr(layer, "input_quantizer", None)
        if isinstance(own, nn.Module):
            rounds: Any = own
            layer.input_quantizer = Pair(Grid(float(rounds.scale), int(rounds.zero), int(rounds.top)))
    found: fx.GraphModule = program_of(Flattened(paired), example).module(check_guards=False)
    return found


def _join_clamps(module: fx.GraphModule) -> None:
    """The clamp of a rounding behind a layer, and a ReLU between them, as the one clamp that kernels have room for."""
    for node in module.graph.nodes:
        if node.target is not _ATEN.clamp.default or len(node.args) < 3:
            continue
        made, low = node.args[0], node.args[1]
        if made.target in _CLAMPS[:2] and len(made.users) == 1 and low <= 0:
            made, low = made.args[0], 0.0
        if made.target in _MAKERS and len(made.users) == 1:
            node.target, node.args = _ATEN.hardtanh.default, (made, low, node.args[2])
    module.graph.eliminate_dead_code()
    module.recompile()


def _whole_weights(module: fx.GraphModule, stored: Mapping[str, Stored]) -> dict[str, Integers]:
    """By node, the integers of each layer's weight that could multiply codes."""
    found = {}
    for node in module.graph.nodes:
        if node.target in _MAKERS and node.args[0].target is _DEQUANTIZE and node.args[1].op == "get_attr":
            name = str(node.args[1].target).removeprefix("model.")
            whole = integers(stored[name]) if name in stored else None
            if whole is not None:
                found[node.name] = whole
    return found


def _round_results(module: fx.GraphModule, layers: Sequence[fx.Node], example: Tensor) -> None:
    """Round what these layers make where the search did not, and sums of rounded numbers, so that both are integers."""
    sums = [n for n in module.graph.nodes if n.target in _SUMS]
    seen = _Ranges(module, [_tail(node) for node in (*layers, *sums)]).of(example[:SEEN])
    for node in [n for n in module.graph.nodes if n in layers or n in sums]:
        tail = _tail(node)
        codes = node in layers or all(isinstance(a, fx.Node) and a.target is _DEQUANTIZE for a in node.args)
        if not codes or _rounded(tail) or "output" in {user.op for user in tail.users}:
            continue
        users = list(tail.users)
        grid = covering(*seen[tail.name], [_grid(user) for user in users if user.target is _QUANTIZE])
        with module.graph.inserting_after(tail):
            made = module.graph.call_function(_QUANTIZE, (tail, *_place(grid)))
        for user in users:
            with module.graph.inserting_before(user):
                numbers = module.graph.call_function(_DEQUANTIZE, (made, *_place(grid)))
            user.replace_input_with(tail, numbers)
    module.recompile()


class _Ranges(fx.Interpreter):
    """The least and greatest value of what these nodes make."""

    def __init__(self, module: fx.GraphModule, asked: Sequence[fx.Node]) -> None:
        super().__init__(module)
        self._seen = {node.name: (0.0, 0.0) for node in asked}

    def of(self, example: Tensor) -> Mapping[str, tuple[float, float]]:
        with torch.no_grad():
            self.run(example)
        return self._seen

    def run_node(self, n: fx.Node) -> Any:
        made = super().run_node(n)
        if n.name in self._seen:
            ends = float(made.min()), float(made.max())
            self._seen[n.name] = ends if np.isfinite(ends).all() else (0.0, 0.0)
        return made


def _answers_stay(plain: fx.GraphModule, rounded: fx.GraphModule, example: Tensor) -> bool:
    if len(example) < LEAST:
        return False
    with torch.no_grad():
        one, two = ([output.numpy() for output in graph(example)] for graph in (plain, rounded))
    return stay(*apart(one, two))


def _with_weights(module: fx.GraphModule, wholes: Mapping[str, Integers]) -> fx.GraphModule:
    """int8 weights with a scale a row, for the layers whose result is rounded."""
    for node in list(module.graph.nodes):
        if node.name not in wholes or not _rounded(_tail(node)):
            continue
        whole = wholes[node.name]
        held = {"codes": whole.codes, "scale": whole.scale, "zero": np.zeros(len(whole.scale), np.int64)}
        with module.graph.inserting_before(node):
            read = []
            for kind, values in held.items():
                module.register_buffer(f"{node.name}_{kind}", torch.from_numpy(np.ascontiguousarray(values)))
                read.append(module.graph.get_attr(f"{node.name}_{kind}"))
            weight = module.graph.call_function(
                _PAIRS.dequantize_per_channel.default, (*read, 0, 1 - _SHIFT, _SHIFT - 1, torch.int8)
            )
        node.args = (node.args[0], weight, *node.args[2:])
    module.graph.eliminate_dead_code()
    module.recompile()
    module.delete_all_unused_submodules()
    return module


def _tail(node: fx.Node) -> fx.Node:
    """What a layer makes, behind the clamp that alone reads it."""
    (reader, *others) = node.users or (node,)
    return reader if not others and reader.target in _CLAMPS else node


def _rounded(tail: fx.Node) -> bool:
    """Whether all that read it read it on one grid."""
    grids = {user.args[1:] if user.target is _QUANTIZE else None for user in tail.users}
    return len(grids) == 1 and None not in grids


def _place(grid: Grid) -> tuple[float, int, int, int, torch.dtype]:
    """A grid as these operators take it."""
    return grid.scale, grid.zero - _SHIFT, -_SHIFT, _SHIFT - 1, torch.int8


def _grid(quantize: fx.Node) -> Grid:
    """The grid of such an operator."""
    _, scale, zero, *_ = quantize.args
    return Grid(float(scale), int(zero) + _SHIFT)  # type: ignore[arg-type]
