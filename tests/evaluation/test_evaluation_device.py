"""Devices and precisions of the repair: what is chosen, mixed precision by its own effects, memory layouts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from automc.core.policy import Policy, Site
from automc.errors import SpecError
from automc.evaluation.data import Data
from automc.evaluation.device import Device, mapped, widened
from automc.evaluation.finetune import Repair
from automc.evaluation.lesson import Lesson, learning
from automc.evaluation.recipe import Recipe
from automc.evaluation.tasks.classification import Classification
from automc.operators import ORDER
from automc.operators.base import Compression, compress
from automc.operators.distillation.distances import FeatureTerm
from automc.operators.distillation.features import Feature
from automc.operators.distillation.logits import LogitTerm
from automc.operators.layers import trace

TERMS = (LogitTerm(4.0, 0.7), FeatureTerm("hint", 1.0, (Feature("block1", False), Feature("block3", False))))


@pytest.fixture(scope="module")
def compressed(teacher: nn.Module, data: Data) -> nn.Module:
    """Half of the channels, 4-bit weights, 8-bit inputs, a dynamic mask."""
    inputs = data.normalise(data.split("calibration").inputs)
    start = Compression(teacher, teacher, trace(teacher, inputs[:2]), inputs, data.split("calibration").targets)
    table = start.trace.table
    values: dict[Site, Any] = {Site("prune", group.name, "prune_ratio"): 0.5 for group in table.groups}
    for layer in table.layers:
        values |= {Site("quantize", layer.name, "weight_bits"): 4, Site("quantize", layer.name, "activation_bits"): 8}
        values |= {Site("sparsify", layer.name, "sparsity"): 0.3, Site("sparsify", layer.name, "regrow"): True}
    return compress(start, Policy(values), ORDER).model


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def repaired(device: Device, data: Data, teacher: nn.Module, start: nn.Module) -> tuple[nn.Module, list[float]]:
    model, heard = copy.deepcopy(start), list[float]()
    repair = Repair(data, Classification(), Recipe(ema=0.9, reports=2, batch_size=16), device)
    repair(model, Lesson(teacher, TERMS), 9, 0, lambda step, value: heard.append(value) is None)
    return model, heard


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_repairs(precision: str, data: Data, teacher: nn.Module, compressed: nn.Module) -> None:
    """The loss falls as in float32, to about the same; weights stay float32 and finite, and the runs repeat."""
    exact, wanted = repaired(Device("cpu", "float32"), data, teacher, compressed)
    mixed, heard = repaired(Device("cpu", precision), data, teacher, compressed)
    assert heard[-1] < heard[0]
    assert heard[-1] == pytest.approx(wanted[-1], rel=0.25)  # two runs that differ in rounding drift apart
    found = weights(mixed)
    assert found.dtype == torch.float32
    assert bool(found.isfinite().all())
    assert not torch.equal(found, weights(exact))
    assert all(buffer.dtype != torch.bfloat16 for buffer in mixed.buffers())
    assert torch.equal(found, weights(repaired(Device("cpu", precision), data, teacher, compressed)[0]))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_losses_are_float32_and_forwards_are_not(precision: str, teacher: nn.Module) -> None:
    """Layers compute in the precision; what terms and task see is float32, rounded as the precision rounds."""
    inputs = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    student, seen = copy.deepcopy(teacher).train(), list[Tensor]()
    student.linear.register_forward_hook(lambda module, args, output: seen.append(output))  # type: ignore[union-attr]
    with learning(Lesson(teacher, TERMS), student, Device("cpu", precision)) as course:
        loss = course.loss(inputs, lambda outputs: seen.append(outputs) or outputs.square().mean())
    assert seen[0].dtype is getattr(torch, precision)
    assert seen[1].dtype is torch.float32
    assert torch.equal(seen[1], seen[0].float())
    assert loss.dtype is torch.float32
    assert all(parameter.dtype is torch.float32 for parameter in course.adapters.parameters())


def test_float16_scales_its_gradients() -> None:
    """A gradient that float16 cannot hold arrives, since the loss is scaled before and the gradient after."""
    device = Device("cpu", "float16")
    scaler = device.scaler()
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], 1.0)
    small = 2.0**-30  # float16 ends at 2^-24
    scaler.scale((weight.half() * 1.0).float().sum() * small).backward()
    scaler.unscale_(optimizer)
    assert weight.grad is not None
    assert weight.grad.item() == small
    assert not Device("cpu", "bfloat16").scaler().is_enabled()
    assert not Device("cpu", "float32").scaler().is_enabled()


def test_a_cpu_is_exact_unless_asked() -> None:
    assert Device("cpu").dtype is torch.float32
    assert Device("cpu").place == torch.device("cpu")
    assert Device().place.type == ("cuda" if torch.cuda.is_available() else "cpu")


def refused_cuda() -> object:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    return Device("cuda")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Device("gpu"), "device: must be one of auto, cpu, cuda, not 'gpu'"),
        (lambda: Device(precision="half"), "precision: must be one of auto, float32, bfloat16, float16, not 'half'"),
        (refused_cuda, "device: is cuda, but torch sees no GPU here; use auto or cpu"),
    ],
)
def test_devices_are_checked(make: Callable[[], object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make()


class Pair(NamedTuple):
    first: Any
    second: Any


def test_outputs_of_any_form_are_widened() -> None:
    half, whole = torch.tensor([1.5], dtype=torch.bfloat16), torch.tensor([3])
    found = widened({"a": [half, whole], "b": Pair(half, "name"), "c": (half,)})
    assert found["a"][0].dtype is torch.float32
    assert found["a"][0].item() == 1.5
    assert found["a"][1] is whole
    assert isinstance(found["b"], Pair)
    assert found["b"].second == "name"
    assert found["c"][0].dtype is torch.float32
    assert mapped(None, lambda tensor: tensor + 1) is None


class Viewed(nn.Module):
    """Sees its features as rows by a view, which channels-last memory does not allow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu()
        rows: Tensor = self.linear(x.view(len(x), -1))
        return rows


def test_a_network_that_views_is_repaired_as_it_wants(data: Data, teacher: nn.Module) -> None:
    torch.manual_seed(0)
    viewed, inputs = Viewed().eval(), data.normalise(data.split("train").inputs[:2])
    device = Device("cpu")
    with pytest.raises(RuntimeError):  # else this test says nothing
        viewed(inputs.to(memory_format=torch.channels_last))
    assert device.layout(viewed, inputs) is torch.contiguous_format
    assert device.layout(teacher, inputs) is torch.channels_last
    assert device.layout(nn.Flatten(), torch.zeros(2, 8)) is torch.contiguous_format
    before = weights(viewed)
    Repair(data, Classification(), Recipe())(viewed, Lesson(viewed), 2, 0, lambda step, value: True)
    assert not torch.equal(weights(viewed), before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_gpu_repairs_and_gives_everything_back(
    precision: str, data: Data, teacher: nn.Module, compressed: nn.Module
) -> None:
    _, wanted = repaired(Device("cpu", "float32"), data, teacher, compressed)
    original = weights(teacher)
    model, heard = repaired(Device("cuda", precision), data, teacher, compressed)
    for network in (model, teacher):
        assert all(tensor.device.type == "cpu" for tensor in (*network.parameters(), *network.buffers()))
    assert torch.equal(weights(teacher), original)
    assert heard[-1] == pytest.approx(wanted[-1], rel=0.25)
    assert heard[0] == pytest.approx(wanted[0], rel=0.25)
