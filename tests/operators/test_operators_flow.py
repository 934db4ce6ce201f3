"""Who feeds whom, against networks whose flow is written down by hand."""

import pytest
import torch
from families import FAMILIES
from nets import Block
from torch import Tensor, nn
from torch.nn import functional as F

from automc.errors import CompressionError
from automc.operators.base import Compression
from automc.operators.canonical import canonical
from automc.operators.flow import Flow, Sums, flows
from automc.operators.layers import Trace, trace


def state_of(model: nn.Module, inputs: Tensor) -> Compression:
    model = canonical(model.eval())
    return Compression(model, model, trace(model, inputs), inputs)


class Ways(nn.Module):
    """Every way of adding, and ways that lead elsewhere."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.a, self.b, self.bn = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.drop, self.way = nn.Dropout(), way
        self.bare = nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.b(F.relu(self.a(x))))
        if self.way == "in place":
            y += x
        elif self.way == "in place, other first":
            x = x * 1
            x += y
            y = x
        elif self.way == "method":
            y = y.add(x)
        elif self.way == "function":
            y = torch.add(x, other=y)
        elif self.way == "dropout":
            y = nn.Identity()(self.drop(y)) + x
        elif self.way == "relu":
            y = F.relu(y, inplace=True) + x
        elif self.way == "twice":
            y = (y + x) * y
        elif self.way == "shape":
            y = y + x if y.shape[1] == 3 else y
        elif self.way == "bias":
            y = y + self.bare
        elif self.way == "scaled":
            y = torch.add(x, y, alpha=2)
        elif self.way == "number":
            y = y + 1
        elif self.way == "itself":
            y = y + y
        return y


@pytest.mark.parametrize("way", ["in place", "in place, other first", "method", "function", "dropout", "shape"])
def test_a_sum_is_seen_however_it_is_written(way):
    found = flows(state_of(Ways(way), torch.randn(2, 3, 4, 4)))
    assert found == {"a": Flow(), "b": Flow("bn", True)}


@pytest.mark.parametrize("way", ["relu", "twice", "bias", "scaled", "number", "itself"])
def test_what_is_no_straight_way_into_a_sum_is_none(way):
    found = flows(state_of(Ways(way), torch.randn(2, 3, 4, 4)))
    assert found == {"a": Flow(), "b": Flow("bn", False)}


def test_a_norm_counts_only_when_nothing_else_reads_the_layer():
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            return self.bn(y) * y

    assert flows(state_of(Both(), torch.randn(2, 3, 4, 4))) == {"a": Flow()}


def test_of_two_layers_in_one_sum_the_later_one_has_it():
    found = flows(state_of(Block(4, 8, 2, "B"), torch.randn(2, 4, 8, 8)))
    assert found == {
        "conv1": Flow("bn1"),
        "conv2": Flow("bn2"),
        "shortcut.0": Flow("shortcut.1", True),
    }


def test_a_layer_that_is_used_twice_says_so():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(self.a(x)) + x

    assert flows(state_of(Twice(), torch.randn(2, 4))) == {"a": Flow(calls=2)}


SUMMED = {
    "resnet_a": {f"layer{s}.{b}.conv2" for s in (1, 2, 3) for b in (0, 1)},
    "vit": {f"blocks.{b}.{name}" for b in (0, 1) for name in ("attn.proj", "mlp.2")},
    "bert": {f"layers.{b}.{name}" for b in (0, 1) for name in ("self_attn.out", "linear2")},
    "densenet": set(),
    "unet": set(),
}


@pytest.mark.parametrize("family", SUMMED)
def test_the_residual_branches_of_the_families(family):
    model, inputs = FAMILIES[family]()
    state = state_of(model, inputs)
    found = flows(state)
    assert {name for name, flow in found.items() if flow.summed} == SUMMED[family]
    assert all(not module._forward_hooks for module in state.teacher.modules())
    assert flows(state) is found


def test_it_needs_an_input():
    with pytest.raises(CompressionError, match="seen on calibration inputs; there are none"):
        flows(Compression(nn.Linear(2, 2), nn.Linear(2, 2), Trace(None), None))  # type: ignore[arg-type]


def test_sums_show_a_tensor_before_it_is_changed_in_place():
    seen = []
    layer = nn.Conv2d(4, 4, 1)
    sums = Sums(lambda name, own, other: seen.append((name, own.clone(), other.clone())))
    handle = sums.follow(layer, "layer")
    x = torch.randn(2, 4, 4, 4)
    with torch.no_grad(), sums:
        y = layer(x)
        before = y.clone()
        y += x
        y += x  # no longer what the layer gave
    handle.remove()
    ((name, own, other),) = seen
    assert name == "layer"
    assert torch.equal(own, before)
    assert torch.equal(other, x)
    assert not layer._forward_hooks
