"""The costs of many policies at once are those of each alone (core/analytic.py)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automc.core.analytic import COSTS, RATIOS, Analytic
from automc.core.batch import BatchCosts
from automc.core.decoded import Numbers, number
from automc.core.layers import Block, Group, Layer, LayerTable
from automc.core.policy import Site
from automc.core.rules import Rule, resolve
from automc.core.space import Choice, Real
from automc.operators import OPERATORS, ORDER


def conv(name: str, index: int, ins: int, outs: int, kind: str = "conv", kernel=(3, 3), bias=False) -> Layer:
    weights = outs * (1 if kind == "depthwise" else ins) * int(np.prod(kernel, dtype=int))
    return Layer(name, index, kind, ins, outs, kernel, (1, 1), (outs, 4, 4), weights + outs * bias, 16 * weights, name)


def table() -> LayerTable:
    """A chain with a depthwise layer, a concatenation, a flatten of 4 pixels, a block and a recurrent layer."""
    layers = (
        conv("a", 0, 3, 16),
        conv("b", 1, 16, 16, "depthwise"),
        conv("c", 2, 16, 24, bias=True),
        conv("d", 3, 40, 12, kernel=(1, 1)),
        conv("e", 4, 12, 12, kernel=(3, 1)),
        Layer("f", 5, "linear", 48, 10, (), (), (10,), 490, 480),
        Layer("g", 6, "lstm", 10, 8, (), (), (3, 8), 640, 3 * 576, "g", recurrent=(320, 256)),
        Layer("h", 7, "linear", 8, 5, (), (), (5,), 45, 40),
    )
    groups = (
        Group("a", 16, ("a", "b"), ("c", "d"), 2),
        Group("c", 24, ("c",), ("d",)),
        Group("d", 12, ("d", "e"), ("e", "f")),
        Group("f", 10, ("f",), ("g",)),
        Group("g", 8, ("g",), ("h",)),
    )
    return LayerTable(layers, groups, (3, 4, 4), blocks=(Block("e_block", ("e",), 432, 100),))


RULES = (
    Rule("drop", {"dropped": Choice((False, True))}),
    Rule("factorize", {"rank_ratio": Real(0.05, 1.0), "method": Choice(("auto", "svd", "spatial", "tucker2", "cp"))}),
    Rule("prune", {"prune_ratio": Real(0.0, 0.9, step=0.05), "channel_multiple": Choice((1, 4))}),
    Rule("sparsify", {"sparsity": Real(0.0, 0.9), "pattern": Choice(("unstructured", "2:4"))}),
    Rule("quantize", {"weight_bits": Choice((1, 2, 4, 8, 32)), "activation_bits": Choice((4, 8, 32))}),
    Rule("distill", {"kd_temperature": Real(1.0, 10.0, log=True)}),
)
SPACES = {
    "joint": resolve(RULES, ORDER, table(), OPERATORS),
    "fixed bits": resolve((RULES[2], Rule("quantize", {"weight_bits": Choice((4,))})), ORDER, table(), OPERATORS),
    "no decision with a cost": resolve((RULES[5],), ORDER, table(), OPERATORS),
}


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_costs_are_those_of_every_policy_alone(name, seed):
    space = SPACES[name]
    draw = np.random.default_rng(seed)
    cubes = draw.random((4, len(space))) ** draw.choice([0.2, 1.0, 5.0])
    batch, analytic = BatchCosts(space), Analytic(space.layers)
    found = batch.of(cubes)
    assert set(found) == {*COSTS, *RATIOS.values()}
    for i, cube in enumerate(cubes):
        for metric, value in analytic.costs(space.decode(cube.tolist())).items():
            assert found[metric][i] == pytest.approx(value, rel=1e-9, abs=1e-9), metric


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_what_is_kept_of_a_layer_is_the_same(seed):
    space = SPACES["joint"]
    cube = np.random.default_rng(seed).random((1, len(space)))
    kept = BatchCosts(space).kept(cube)
    one = Analytic(space.layers).kept(space.decode(cube[0].tolist()))
    for column, layer in enumerate(space.layers.layers):
        if one[layer.name].outputs == 0:
            assert kept.outputs[0, column] == 0
            continue
        for name in ("outputs", "inputs", "rank", "weights", "weight_bits", "activation_bits"):
            assert getattr(kept, name)[0, column] == pytest.approx(getattr(one[layer.name], name)), (layer.name, name)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_numbers_are_the_decoded_values(seed):
    space = SPACES["joint"]
    cube = np.append(np.random.default_rng(seed).random(len(space) - 2), [0.0, 1.0])
    policy = space.decode(cube.tolist())
    values = Numbers(space).of(cube[None])[0]
    assert values == pytest.approx([number(policy[d.site]) for d in space.decisions])
    assert number("2:4") != number("unstructured")
    assert policy[Site("distill", "*", "kd_temperature")] >= 1
