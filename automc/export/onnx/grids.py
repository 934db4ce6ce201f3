"""Rounding of activations in an ONNX graph: the exporter's six operators, and the pair of two that runtimes know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from automc.export.onnx.graph import Graph

BYTE = 255
"""Largest code of uint8."""


@dataclass(frozen=True)
class Grid:
    """``(clamp(round(x / scale) + zero, 0, top) - zero) * scale`` with scale above 0 and 0 <= zero <= top <= 255."""

    scale: float
    zero: int
    top: int = BYTE

    @property
    def low(self) -> float:
        return -self.zero * self.scale

    @property
    def high(self) -> float:
        return (self.top - self.zero) * self.scale

    def hides(self, low: float, high: float) -> bool:
        """Whether a clamp to [low, high] before the rounding changes nothing, because this one clamps as much."""
        first, last = (np.round(np.float32(end) / np.float32(self.scale)) + self.zero for end in (low, high))
        return bool(first <= 0 and last >= self.top)


@dataclass(frozen=True)
class Rounded:
    """A rounded tensor: where the codes come from, on which grid, and the float tensor they stand for."""

    source: str
    grid: Grid
    output: str


def take_roundings(graph: Graph) -> list[Rounded]:
    """Write every rounding that the exporter wrote in Div, Round, Add, Clip, Sub and Mul as QuantizeLinear and
    DequantizeLinear, exactly; equal ones of one tensor once.
    """
    found: dict[tuple[str, Grid], Rounded] = {}
    for division in [node for node in graph.nodes if node.op_type == "Div"]:
        chain = _chain(graph, division)
        grid = _grid(graph, chain) if chain else None
        if grid is None:
            continue
        source, output = division.input[0], chain[-1].output[0]
        graph.drop(chain)
        if (source, grid) in found:
            graph.redirect(output, found[source, grid].output, graph.readers(output))
        else:
            found[source, grid] = quantize(graph, source, grid, output)
    return list(found.values())


def quantize(graph: Graph, source: str, grid: Grid, output: str) -> Rounded:
    """Add the pair. Codes of less than 8 bits are clamped as codes: uint8 would saturate at 255 alone."""
    ends = [
        graph.constant(f"{output}.scale", np.array(grid.scale, np.float32)),
        graph.constant(f"{output}.zero", np.array(grid.zero, np.uint8)),
    ]
    codes = graph.add("QuantizeLinear", [source, *ends], f"{output}.codes")
    if grid.top < BYTE:
        clamp = [graph.constant(f"{output}.{n}", np.array(v, np.uint8)) for n, v in (("low", 0), ("top", grid.top))]
        codes = graph.add("Clip", [codes, *clamp], f"{output}.clamped")
    graph.add("DequantizeLinear", [codes, *ends], output)
    return Rounded(source, grid, output)


def drop_hidden(graph: Graph, rounded: Sequence[Rounded]) -> list[Rounded]:
    """Take out each Relu and Clip that only a rounding reads and that it hides: integer kernels want none between."""
    kept = []
    for each in rounded:
        clamp = graph.maker(each.source)
        if clamp is not None and graph.only_reader(each.source) is not None and each.grid.hides(*_ends(graph, clamp)):
            graph.redirect(each.source, clamp.input[0], graph.readers(each.source))
            graph.drop([clamp])
            each = Rounded(clamp.input[0], each.grid, each.output)
        kept.append(each)
    return kept


def _ends(graph: Graph, node: Any) -> tuple[float, float]:
    """What a node clamps to; an empty range where it is no Relu or constant Clip."""
    if node.op_type == "Relu":
        return 0.0, float("inf")
    if node.op_type == "Clip" and len(node.input) == 3:
        low, high = (graph.number(name) for name in node.input[1:])
        if low is not None and high is not None:
            return low, high
    return 0.0, -float("inf")


def _chain(graph: Graph, division: Any) -> list[Any]:
    chain = [division]
    for kind in ("Round", "Add", "Clip", "Sub", "Mul"):
        following = graph.only_reader(chain[-1].output[0])
        if following is None or following.op_type != kind:
            return []
        chain.append(following)
    return chain


def _grid(graph: Graph, chain: Sequence[Any]) -> Grid | None:
    """The grid of such a chain; None where it is another arithmetic."""
    scale, again = graph.number(chain[0].input[1]), _other(graph, chain[5], chain[4])
    zero, taken = _other(graph, chain[2], chain[1]), graph.number(chain[4].input[1])
    low, top = (graph.number(name) for name in chain[3].input[1:3]) if len(chain[3].input) == 3 else (None, None)
    if scale is None or zero is None or top is None or (scale, zero, 0.0) != (again, taken, low):
        return None
    whole = zero.is_integer() and top.is_integer() and 0 <= zero <= top <= BYTE
    return Grid(scale, int(zero), int(top)) if whole and 0 < scale < float("inf") else None


def _other(graph: Graph, node: Any, before: Any) -> float | None:
    """The constant operand of a sum or product with what the node before made."""
    others = [name for name in node.input if name != before.output[0]]
    return graph.number(others[0]) if len(others) == 1 else None
