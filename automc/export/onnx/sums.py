"""Residual sums in integers: what integer convolutions make and what is added is rounded to 8 bits as well.

ONNX Runtime's integer convolution gives codes, never floats, and adds codes in one kernel. Where the next layer's
rounded input reads a convolution alone, its grid serves, exactly. Everywhere else a grid of 8 bits comes between that
the search did not have; it covers what was seen on the examples, and a layer that reads the sum still rounds on the
searched grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from automc.export.onnx.graph import Graph
from automc.export.onnx.grids import BYTE, Grid, Rounded, drop_hidden, quantize

Ranges = Callable[[Sequence[str]], Mapping[str, tuple[float, float]]]
"""Least and greatest values of tensors of the float graph on the examples."""

_JOINS = ("Add", "Concat")
_MOVES = ("Slice", "Pad", "MaxPool", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze")
_CLAMPS = ("Relu", "Clip")
_COVERED = 0.5
"""Share of the seen range that a searched grid must have to serve the whole stream."""


def round_sums(graph: Graph, makers: Sequence[Any], rounded: list[Rounded], ranges: Ranges) -> list[Rounded]:
    """Add the grids that make these convolutions, and the sums of what they make, integer ones.

    Args:
        makers: convolution nodes that could run in integers. rounded: what is rounded so far.

    Returns:
        All that is rounded now, clamps that are hidden by it gone.
    """
    rounded = drop_hidden(graph, rounded)
    grids = {each.output: each.grid for each in rounded}
    asked = _streams(graph, makers)
    seen = ranges(asked) if asked else {}
    for node in list(graph.walk()):
        name = _tail(graph, node)
        if name in seen and (node.op_type == "Conv" or all(given in grids for given in node.input)):
            given = [each for each in rounded if each.source == name]
            grid = grids[f"{name}.sum"] = covering(*seen[name], [each.grid for each in given])
            rounded = [each for each in rounded if each.source != name or each.grid != grid]
            rounded = [Rounded(f"{name}.sum", e.grid, e.output) if e.source == name else e for e in rounded]
            rounded.append(_share(graph, name, grid, given))
        elif node.op_type in _MOVES and node.input[0] in grids and _to_join(graph, node.output[0]):
            made = node.output[0]
            grid = grids[f"{made}.sum"] = grids[node.input[0]]
            rounded.append(_share(graph, made, grid, []))
    return drop_hidden(graph, rounded)


def _streams(graph: Graph, makers: Sequence[Any]) -> list[str]:
    """What integer convolutions make and what is made of that alone, where it needs a grid of its own."""
    wanted, reached, asked = {id(node) for node in makers}, set[str](), []
    for node in graph.walk():
        joined = node.op_type in _JOINS and all(name in reached for name in node.input)
        if node.op_type in _MOVES and node.input[0] in reached:
            reached.add(node.output[0])
        elif id(node) in wanted or joined:
            name = _tail(graph, node)
            reached.add(name)
            if not _exact(graph, name) and name not in graph.outputs:
                asked.append(name)
    return asked


def _share(graph: Graph, name: str, grid: Grid, given: Sequence[Rounded]) -> Rounded:
    """Round a tensor on the grid, and let all its readers read that."""
    for each in given:
        if each.grid == grid:  # the same pair: its readers take the shared one
            pair = [node for node in graph.readers(name) if f"{each.output}.codes" in node.output]
            graph.drop([*pair, graph.maker(each.output)])
            graph.redirect(each.output, f"{name}.sum", graph.readers(each.output))
    graph.redirect(name, f"{name}.sum", graph.readers(name))
    return quantize(graph, name, grid, f"{name}.sum")


def covering(low: float, high: float, searched: Sequence[Grid]) -> Grid:
    """A grid of 8 bits for values in [low, high], of which a layer may read a coarser one.

    Where one searched grid reads the tensor, the new step is an odd fraction of the searched one: rounding first to it
    and then to the searched grid is then the same as rounding once, because no fine code lies halfway.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if len(searched) == 1:
        (grid,) = searched
        if grid.top == BYTE and grid.high >= _COVERED * high and grid.low <= _COVERED * low:
            return grid
        parts = int(BYTE * grid.scale / max(high - low, grid.scale))
        if parts:
            step = grid.scale / (parts - 1 + parts % 2)
            return Grid(step, min(round(-low / step), BYTE))
    step = (high - low) / BYTE or 1.0
    return Grid(step, min(round(-low / step), BYTE))


def _tail(graph: Graph, node: Any) -> str:
    """What a node makes, behind the clamp that alone reads it."""
    made: str = node.output[0]
    clamp = graph.only_reader(made)
    return clamp.output[0] if clamp is not None and clamp.op_type in _CLAMPS else made


def _exact(graph: Graph, name: str) -> bool:
    """A single rounding reads the tensor: its grid serves."""
    reader = graph.only_reader(name)
    return reader is not None and reader.op_type == "QuantizeLinear"


def _to_join(graph: Graph, name: str) -> bool:
    readers = graph.readers(name)
    return bool(readers) and name not in graph.outputs and all(r.op_type in (*_JOINS, *_MOVES) for r in readers)
