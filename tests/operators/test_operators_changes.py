"""Squared changes of weights against singular values, indexing and rounding by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from automc.core.policy import Policy, Site, Value
from automc.core.study import ModelSpec
from automc.evaluation.zoo import load_model
from automc.operators import ORDER
from automc.operators.base import Compression, compress
from automc.operators.changes import squared_changes
from automc.operators.layers import trace


@pytest.fixture(scope="module")
def start() -> Compression:
    inputs = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    model = load_model(ModelSpec("digits_net")).eval()
    return Compression(model, model, trace(model, inputs[:2]), inputs)


def policy(*sites: tuple[str, str, str, Value]) -> Policy:
    return Policy({Site(*words): value for *words, value in sites})


def weight(state: Compression, name: str) -> Tensor:
    return state.model.get_submodule(name).get_parameter("weight").detach().double()


def moved(found: dict[str, float]) -> dict[str, float]:
    return {name: change for name, change in found.items() if change}


def test_nothing_changes_without_a_policy(start: Compression) -> None:
    assert moved(squared_changes(start, Policy({}), ORDER)) == {}
    assert moved(squared_changes(start, policy(("distill", "*", "kd_alpha", 0.5)), ORDER)) == {}


def test_rounded_weights_are_as_a_forward_uses_them(start: Compression) -> None:
    asked = policy(("quantize", "block1.conv2", "weight_bits", 3), ("quantize", "block1.conv2", "activation_bits", 8))
    layer = compress(start, asked, ORDER).model.block1.conv2
    layer.input_quantizer = None
    units = torch.zeros(32, 32, 5, 5)
    units[torch.arange(32), torch.arange(32), 2, 2] = 1.0
    kernel = layer(units)[:, :, 1:4, 1:4].flip(2, 3).transpose(0, 1)  # a convolution turns what it answers to a unit
    wanted = (kernel.detach().double() - weight(start, "block1.conv2")).square().sum().item()
    assert moved(squared_changes(start, asked, ORDER)) == pytest.approx({"block1.conv2": wanted})


def test_pruned_channels_count_as_zero_where_they_are_made_and_read(start: Compression) -> None:
    asked = policy(("prune", "block1.conv1", "prune_ratio", 0.5), ("prune", "block1.conv1", "criterion", "l1"))
    gone = list(compress(start, asked, ORDER).removed["block1.conv1"])
    assert len(gone) == 16
    rows, columns = weight(start, "block1.conv1")[gone], weight(start, "block1.conv2")[:, gone]
    found = moved(squared_changes(start, asked, ORDER))
    wanted = {"block1.conv1": rows.square().sum().item(), "block1.conv2": columns.square().sum().item()}
    assert found == pytest.approx(wanted)


def test_of_pruned_and_rounded_weights_both_count(start: Compression) -> None:
    pruned = policy(("prune", "block1.conv1", "prune_ratio", 0.5))
    both = Policy({**pruned, Site("quantize", "block1.conv1", "weight_bits"): 2})
    plain, made = (compress(start, each, ORDER).model.block1.conv1 for each in (pruned, both))
    rounding = (made.used("weight") - plain.weight).detach().double().square().sum().item()
    gone = squared_changes(start, pruned, ORDER)["block1.conv1"]
    assert squared_changes(start, both, ORDER)["block1.conv1"] == pytest.approx(gone + rounding)


def test_masked_and_dropped_weights_are_zero(start: Compression) -> None:
    name = "block2.conv2"
    found = squared_changes(start, policy(("sparsify", name, "sparsity", 0.75)), ORDER)
    sizes = weight(start, name).abs().flatten().sort().values
    assert moved(found) == pytest.approx({name: sizes[: round(0.75 * len(sizes))].square().sum().item()})
    block = start.trace.table.blocks[0]
    found = squared_changes(start, policy(("drop", block.name, "dropped", True)), ORDER)
    assert moved(found) == pytest.approx({own: weight(start, own).square().sum().item() for own in block.layers})


@pytest.mark.parametrize("name", ["linear", "block2.conv1", "block1.conv2"])
@pytest.mark.parametrize("method", ["svd", "spatial"])
def test_of_a_product_of_factors_it_is_what_the_singular_values_leave_out(
    name: str, method: str, start: Compression
) -> None:
    asked = policy(("factorize", name, "rank_ratio", 0.25), ("factorize", name, "method", method))
    whole = weight(start, name)
    matrix = whole.flatten(1)
    if method == "spatial" and whole.dim() == 4:
        matrix = whole.permute(1, 2, 0, 3).flatten(2).flatten(0, 1)
    values = torch.linalg.svdvals(matrix)
    left = values[int(0.25 * len(values)) :].square().sum().item()
    assert moved(squared_changes(start, asked, ORDER)) == pytest.approx({name: left}, rel=1e-4)


@pytest.mark.parametrize("method", ["tucker2", "cp"])
def test_any_product_is_the_kernel_of_its_chain(method: str, start: Compression) -> None:
    name = "block2.conv2"
    asked = policy(("factorize", name, "rank_ratio", 0.25), ("factorize", name, "method", method))
    made: nn.Module = compress(start, asked, ORDER).model.get_submodule(name)
    units = torch.zeros(64, 64, 5, 5)
    units[torch.arange(64), torch.arange(64), 2, 2] = 1.0
    kernel = made(units)[:, :, 1:4, 1:4].flip(2, 3).transpose(0, 1)  # a convolution turns what it answers to a unit
    wanted = (kernel.detach().double() - weight(start, name)).square().sum().item()
    assert moved(squared_changes(start, asked, ORDER)) == pytest.approx({name: wanted}, rel=1e-4)
