"""The moving average of the weights: by hand, against torch's own, and with everything that is live in a repair."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from automc.core.policy import Policy, Site
from automc.evaluation.average import Average
from automc.evaluation.data import Data
from automc.evaluation.device import Device
from automc.evaluation.finetune import Repair
from automc.evaluation.lesson import Lesson
from automc.evaluation.recipe import Recipe
from automc.evaluation.tasks.classification import Classification
from automc.operators import ORDER, live
from automc.operators.base import Compression, compress
from automc.operators.layers import trace
from automc.operators.quantizers.rows import ScaledQuantizer

CPU = Device("cpu", "float32")


@pytest.fixture(scope="module")
def original(teacher: nn.Module, data: Data) -> Compression:
    split = data.split("calibration")
    inputs = data.normalise(split.inputs)
    return Compression(teacher, teacher, trace(teacher, inputs[:2]), inputs, split.targets)


def student(original: Compression, operator: str, **settings: Any) -> nn.Module:
    """Every layer compressed alike."""
    layers = original.trace.table.layers
    values = {Site(operator, layer.name, key): value for layer in layers for key, value in settings.items()}
    return compress(original, Policy(values), ORDER).model


def quiet(step: int, value: float) -> bool:
    return True


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def ways(model: nn.Module) -> list[tuple[Tensor, live.LiveWeight]]:
    found = []
    for module in model.modules():
        if isinstance(module, live.LiveLayer):
            way = module.ways["weight"]
            assert isinstance(way, live.LiveWeight)
            found.append((module.weight, way))
    return found  # type: ignore[return-value]


def test_the_average_of_five_steps_by_hand() -> None:
    """Of one number, in Python; keep is (1 + t) / (10 + t) until the decay is less."""
    model = nn.Linear(1, 1, bias=False)
    numbers, decay = [3.0, -1.0, 4.0, 1.5, -9.0, 2.0], 0.25
    with torch.no_grad():
        model.weight.fill_(numbers[0])
        average, by_hand = Average(model, decay), numbers[0]
        for keep, number in zip((1 / 10, 2 / 11, 3 / 12, 0.25, 0.25), numbers[1:], strict=True):
            model.weight.fill_(number)
            average.follow()
            by_hand = keep * by_hand + (1 - keep) * number
    with average.lent():
        assert model.weight.item() == pytest.approx(by_hand, rel=1e-6)
    assert model.weight.item() == numbers[-1]
    average.give()
    assert model.weight.item() == pytest.approx(by_hand, rel=1e-6)


def test_the_average_is_torch_s_with_the_same_decays() -> None:
    """torch.optim.swa_utils.AveragedModel copies the first weights it sees; then both go on alike."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
    keeps = iter([min(0.5, (1 + t) / (10 + t)) for t in range(30)])
    referee = torch.optim.swa_utils.AveragedModel(
        model, avg_fn=lambda average, value, count: torch.lerp(average, value, 1 - keep)
    )
    average = Average(model, 0.5)
    referee.update_parameters(model)
    for _ in range(30):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn(parameter.shape)
        keep = next(keeps)
        average.follow()
        referee.update_parameters(model)
    average.give()
    assert torch.equal(weights(model), weights(referee.module))


@pytest.mark.parametrize("ends", [False, True])
def test_a_repair_leaves_the_average_of_its_steps(ends: bool, data: Data, teacher: nn.Module) -> None:
    """Also one that the monitor ends. The steps are those of repairs without an average that were ended earlier."""
    steps, at = 4, 2
    recipe = Recipe(reports=3, schedule="constant")

    def repaired(recipe: Recipe, last: int) -> tuple[nn.Module, list[float]]:
        model, heard = copy.deepcopy(teacher), list[float]()
        Repair(data, Classification(), recipe, CPU)(
            model, Lesson(teacher), steps, 0, lambda step, value: heard.append(value) is None and step < last
        )
        return model, heard

    last = at if ends else steps
    before = [weights(teacher), *(weights(repaired(recipe, step)[0]) for step in range(1, last + 1))]
    by_hand = before[0].double()
    for t, value in enumerate(before[1:]):
        keep = min(0.15, (1 + t) / (10 + t))
        by_hand = keep * by_hand + (1 - keep) * value.double()
    found, heard = repaired(Recipe(reports=3, schedule="constant", ema=0.15), last)
    assert torch.allclose(weights(found).double(), by_hand, rtol=0, atol=1e-6)  # float32 against double
    assert not torch.allclose(weights(found).double(), before[-1].double(), rtol=0, atol=1e-4)
    assert not found.training
    if ends:  # what the monitor heard of is what the end left
        split = data.split("search").head(256)
        with torch.inference_mode():
            wanted = nn.functional.cross_entropy(found(data.normalise(split.inputs)), split.targets)
        assert heard[-1] == pytest.approx(float(wanted), rel=1e-5)


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
@pytest.mark.parametrize("regrow", [False, True])
def test_masks_stay_masks(pattern: str, regrow: bool, data: Data, teacher: nn.Module, original: Compression) -> None:
    """As many zeros as before; fixed masks the very same, others those of the averaged weights' sizes."""
    model = student(original, "sparsify", sparsity=0.5, pattern=pattern, regrow=regrow)
    before = [way.mask for _, way in ways(model)]
    assert any(mask is not None for mask in before)
    Repair(data, Classification(), Recipe(ema=0.9), CPU)(model, Lesson(teacher), 4, 0, quiet)
    for (weight, way), mask in zip(ways(model), before, strict=True):
        if mask is None or way.mask is None:
            assert mask is way.mask
            continue
        assert int(way.mask.sum()) == int(mask.sum())
        assert int((way(weight) == 0).sum()) >= int((~mask).sum())
        if not regrow:
            assert torch.equal(way.mask, mask)
        elif pattern == "unstructured":
            sizes = weight.detach().abs()
            assert float(sizes[way.mask].min()) >= float(sizes[~way.mask].max())


QUANTIZERS: tuple[dict[str, Any], ...] = (
    {"weight_bits": 4},
    {"weight_bits": 3, "weight_format": "codebook"},
    {"weight_bits": 4, "weight_format": "power_of_two"},
    {"weight_bits": 2, "weight_format": "ternary"},
    {"weight_bits": 4, "qat": "lsq"},
    {"weight_bits": 4, "qat": "incremental"},
)


@pytest.mark.parametrize("settings", QUANTIZERS, ids=lambda settings: " ".join(map(str, settings.values())))
def test_codes_stay_codes(settings: dict[str, Any], data: Data, teacher: nn.Module, original: Compression) -> None:
    """After an averaged repair a file's codes still give the weights that a forward uses, at most 2^bits a scale."""
    model = student(original, "quantize", **settings)
    before = weights(model)
    Repair(data, Classification(), Recipe(ema=0.9), CPU)(model, Lesson(teacher), 4, 0, quiet)
    assert not torch.equal(weights(model), before)
    found = [module for module in model.modules() if isinstance(module, live.LiveLayer) and module.stored()]
    assert found
    for module in found:
        dense = torch.from_numpy(module.stored()["weight"].dense())
        assert torch.equal(dense, module.used("weight").detach())
        assert all(len(torch.unique(row)) <= 2 ** settings["weight_bits"] for row in dense.flatten(1))


def test_learned_steps_are_averaged_by_their_size(original: Compression) -> None:
    """A step that an optimizer takes through zero counts by its size; averaged as it is, it would vanish."""
    model = student(original, "quantize", weight_bits=4, qat="lsq")
    held = [m.held for m in model.modules() if isinstance(m, ScaledQuantizer) and isinstance(m.held, nn.Parameter)]
    assert held
    sizes = [step.detach().clone() for step in held]
    average = Average(model, 0.9)
    with torch.no_grad():
        for _ in range(4):
            for step in held:
                step.neg_()
            average.follow()
    average.give()
    for step, size in zip(held, sizes, strict=True):
        assert torch.allclose(step, size, rtol=1e-6)
