"""A layer table with all that costs depend on: a stem, residual blocks with a depthwise layer, a concatenation."""

from __future__ import annotations

import pytest

from automc.core.layers import Block, Group, Layer, LayerTable
from automc.core.rules import Rule, resolve
from automc.core.space import Choice, Real, SearchSpace
from automc.operators import OPERATORS, ORDER

MONOTONE = (
    Rule("prune", {"prune_ratio": Real(0.0, 0.8, step=0.1)}),
    Rule("quantize", {"weight_bits": Choice((2, 3, 4, 6, 8)), "activation_bits": Choice((4, 6, 8))}),
)
"""Every decision makes every cost fall, or leaves it."""
ALL = (
    *MONOTONE,
    Rule("prune", {"channel_multiple": Choice((1, 4))}),
    Rule("drop", {"dropped": Choice((False, True))}),
    Rule("factorize", {"rank_ratio": Choice((0.1, 0.25, 0.5, 1.0)), "method": Choice(("auto", "svd", "tucker2"))}),
    Rule("sparsify", {"sparsity": Real(0.0, 0.9, step=0.1), "pattern": Choice(("unstructured", "2:4"))}),
    Rule("distill", {"kd_temperature": Real(1.0, 10.0, log=True)}),
)


def conv(name: str, index: int, inputs: int, outputs: int, side: int, kernel: int = 3, kind: str = "conv") -> Layer:
    weights = outputs * kernel**2 * (1 if kind == "depthwise" else inputs)
    return Layer(
        name, index, kind, inputs, outputs, (kernel,) * 2, (1, 1), (outputs, side, side), weights, weights * side**2
    )


@pytest.fixture(scope="session")
def mixed_table() -> LayerTable:
    layers = (
        conv("stem", 0, 3, 16, 8),
        conv("block1.expand", 1, 16, 32, 8, 1),
        conv("block1.depth", 2, 32, 32, 8, 3, "depthwise"),
        conv("block1.project", 3, 32, 16, 8, 1),
        conv("block2.first", 4, 16, 24, 8),
        conv("block2.second", 5, 24, 16, 8),
        conv("left", 6, 16, 8, 4),
        conv("right", 7, 16, 12, 4),
        conv("joined", 8, 20, 16, 4),
        Layer("head", 9, "linear", 16 * 16, 10, (), (), (10,), 2570, 2560),  # behind a flatten of 4 x 4 places
    )
    groups = (
        Group(
            "stem", 16, ("stem", "block1.project", "block2.second"), ("block1.expand", "block2.first", "left", "right")
        ),
        Group("block1.expand", 32, ("block1.expand", "block1.depth"), ("block1.project",)),
        Group("block2.first", 24, ("block2.first",), ("block2.second",), multiple=4),
        Group("left", 8, ("left",), ("joined",)),
        Group("right", 12, ("right",), ("joined",)),
        Group("joined", 16, ("joined",), ("head",)),
    )
    inside = {"block1": layers[1:4], "block2": layers[4:6]}
    blocks = tuple(
        Block(name, tuple(own.name for own in of), sum(o.params for o in of), sum(o.macs for o in of))
        for name, of in inside.items()
    )
    return LayerTable(layers, groups, (3, 8, 8), blocks=blocks)


@pytest.fixture(scope="session")
def mixed(mixed_table: LayerTable) -> SearchSpace:
    """All operators that cost something, some settings fixed."""
    fixed = Rule("quantize", {"weight_bits": Choice((8,))}, indices=(0,))
    return resolve((*ALL, fixed), ORDER, mixed_table, OPERATORS)


@pytest.fixture(scope="session")
def monotone(mixed_table: LayerTable) -> SearchSpace:
    return resolve(MONOTONE, ORDER, mixed_table, OPERATORS)
