"""Recipes: schedules by their formulas, optimizers against torch's own, smoothing where there is no teacher."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from automc.errors import SpecError
from automc.evaluation.augment import cutout
from automc.evaluation.batches import Batches, blank
from automc.evaluation.data import Data
from automc.evaluation.descent import Descent
from automc.evaluation.device import Device
from automc.evaluation.finetune import Repair
from automc.evaluation.lesson import Lesson
from automc.evaluation.recipe import OPTIMIZERS, Recipe, optimizer
from automc.evaluation.tasks.classification import Classification
from automc.evaluation.tasks.regression import Regression
from automc.operators.distillation.logits import LogitTerm

CPU = Device("cpu", "float32")


def quiet(step: int, value: float) -> bool:
    return True


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def tiny() -> nn.Module:
    """A network with weights, biases and a normalisation."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3))


@pytest.mark.parametrize(("schedule", "middle"), [("cosine", 0.5), ("linear", 0.5), ("constant", 1.0)])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_schedule_passes_its_marks(schedule: str, middle: float, name: str) -> None:
    """Ten warm-up steps of 109; step 59 ends the first half of the 100 parts after them, step 34 the first quarter."""
    recipe = Recipe(optimizer=name, schedule=schedule, warmup=10 / 109)
    highest = {"sgd": 0.02, "adamw": 0.003}[name]
    rates = [recipe.rate(step, 109) / highest for step in range(109)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert rates[59] == pytest.approx(middle)
    assert rates[34] == pytest.approx({"cosine": 0.5 + math.sqrt(0.125), "linear": 0.75, "constant": 1.0}[schedule])
    last = {"cosine": 0.5 - 0.5 * math.cos(math.pi / 100), "linear": 0.01, "constant": 1.0}[schedule]
    assert rates[-1] == pytest.approx(last)


@given(st.sampled_from(["cosine", "linear", "constant"]), st.integers(1, 200), st.floats(0, 0.9))
def test_no_rate_is_zero_or_above_the_highest(schedule: str, steps: int, warmup: float) -> None:
    recipe = Recipe(schedule=schedule, warmup=warmup, learning_rate=0.3)
    rates = [recipe.rate(step, steps) for step in range(steps)]
    assert all(0 < rate <= 0.3 + 1e-12 for rate in rates)
    assert max(rates) == pytest.approx(0.3)


def reference(name: str, model: nn.Module, decay: float) -> torch.optim.Optimizer:
    """What a user of torch would write down, group by group."""
    weights_ = [model[0].weight, model[2].weight]  # type: ignore[index]
    others = [model[0].bias, model[1].weight, model[1].bias, model[2].bias]  # type: ignore[index]
    groups = [{"params": weights_, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=1e-3, betas=(0.8, 0.999))
    return torch.optim.SGD(groups, lr=0.05, momentum=0.8, nesterov=True)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_those_of_torch_s_optimizer(name: str) -> None:
    """Five clipped steps whose rate changes, beside a loop of plain torch: the same arithmetic, the same bits."""
    recipe = Recipe(optimizer=name, momentum=0.8, weight_decay=0.1, clip=0.5)
    own, other = tiny(), tiny()
    descent, wanted = Descent(own, nn.ModuleList(), recipe, CPU), reference(name, other, 0.1)
    generator = torch.Generator().manual_seed(1)
    for step in range(5):
        inputs = 3 * torch.randn(8, 4, generator=generator)
        rate = recipe.rate(step, 5)
        descent.step(own(inputs).square().mean(), rate)
        for group in wanted.param_groups:
            group["lr"] = rate
        wanted.zero_grad()
        other(inputs).square().mean().backward()
        nn.utils.clip_grad_norm_(other.parameters(), 0.5)
        wanted.step()
    assert torch.equal(weights(own), weights(other))
    assert not torch.equal(weights(own), weights(tiny()))


def test_frozen_parameters_are_no_ones_business() -> None:
    model = tiny()
    model[0].weight.requires_grad_(False)  # type: ignore[index,operator,union-attr]
    groups = optimizer(model, Recipe()).param_groups
    assert [sum(p.numel() for p in group["params"]) for group in groups] == [18, 6 + 6 + 6 + 3]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_repairs_at_its_own_rate(name: str, data: Data, teacher: nn.Module) -> None:
    model, generator = copy.deepcopy(teacher), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 4:
                parameter += 0.5 * parameter.std() * torch.randn(parameter.shape, generator=generator)
    heard: list[float] = []
    assert Repair(data, Classification(), Recipe(optimizer=name, reports=2))(
        model, Lesson(teacher), 30, 0, lambda step, value: heard.append(value) is None
    )
    assert heard[1] < heard[0]


def test_smoothed_targets_are_torch_s(data: Data, teacher: nn.Module) -> None:
    """And by hand: the target has 1 - share + share / classes, every other class share / classes."""
    generator = torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(16, 10, generator=generator), torch.arange(16) % 10
    repair = Repair(data, Classification(), Recipe(label_smoothing=0.2), CPU)
    found = repair.loss(outputs, targets, distilled=False)
    assert found == nn.functional.cross_entropy(outputs, targets, label_smoothing=0.2)
    wanted = torch.full((16, 10), 0.02)
    wanted[torch.arange(16), targets] = 0.82
    by_hand = -(wanted * torch.log_softmax(outputs, 1)).sum(1).mean()
    assert float(found) == pytest.approx(float(by_hand), rel=1e-6)  # float32 sums in another order
    assert repair.loss(outputs, targets, distilled=True) == nn.functional.cross_entropy(outputs, targets)


@pytest.mark.parametrize("distilled", [False, True])
def test_smoothing_is_off_under_distillation(distilled: bool, data: Data, teacher: nn.Module) -> None:
    lesson = Lesson(teacher, (LogitTerm(4.0, 0.5),) if distilled else ())
    found = []
    for share in (0.0, 0.2):
        model = copy.deepcopy(teacher)
        Repair(data, Classification(), Recipe(label_smoothing=share), CPU)(model, lesson, 3, 0, quiet)
        found.append(weights(model))
    assert torch.equal(*found) is distilled


def test_smoothing_needs_classes(data: Data) -> None:
    with pytest.raises(SpecError, match="label_smoothing: needs classes, which Regression has not; leave it out"):
        Repair(data, Regression(), Recipe(label_smoothing=0.1, augment="none"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recipe(optimizer="adam"), "optimizer: must be one of sgd, adamw, not 'adam'"),
        (lambda: Recipe(schedule="step"), "schedule: must be one of cosine, linear, constant, not 'step'"),
        (lambda: Recipe(ema=1.0), r"ema: must be in \[0, 1\), not 1.0"),
        (lambda: Recipe(label_smoothing=-0.1), r"label_smoothing: must be in \[0, 1\), not -0.1"),
        (lambda: Recipe(augment="flips"), "augment: must be one of auto, none, shift, .*, not 'flips'"),
        (
            lambda: Recipe(learning_rate=math.inf),
            "learning_rate: must be above 0, or 0 for the optimizer's own, not inf",
        ),
    ],
)
def test_recipes_are_checked(make: Callable[[], object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make()


def inputs_of(data: Data, recipe: Recipe) -> Iterator[Tensor]:
    return (batch.inputs for batch in Batches(data, recipe, 1000).shuffled(0))


def test_digits_are_shifted_and_never_mirrored(data: Data) -> None:
    """The data set says so; every shifted image is found among the 9 shifts of its row, cut out of zeros."""
    batches = Batches(data, Recipe(), 1000)
    assert not batches.fixed
    batch = next(batches.shuffled(0))
    images = nn.functional.pad(data.split("train").inputs[batch.rows], (1, 1, 1, 1))
    views = [data.normalise(images[:, :, i : i + 8, j : j + 8]) for i in range(3) for j in range(3)]
    same = torch.stack([(view == batch.inputs).flatten(1).all(1) for view in views])
    assert bool(same.any(dim=0).all())
    assert bool(same.any(dim=1).all())  # 64 draws of 9: one stays away with probability 0.005, and the seed is fixed


def test_short_repairs_are_not_augmented_unless_asked(data: Data) -> None:
    """988 rows in batches of 64: 78 steps are 5.05 epochs, 77 are 4.99."""
    assert [Batches(data, Recipe(), steps).fixed for steps in (77, 78)] == [True, False]
    assert not Batches(data, Recipe(augment="shift"), 1).fixed
    assert Batches(data, Recipe(augment="none"), 1000).fixed


def test_rows_name_what_is_shown(data: Data) -> None:
    batches = Batches(data, Recipe(augment="none"), 1000)
    assert batches.fixed
    batch, split = next(batches.shuffled(3)), data.split("train")
    assert torch.equal(batch.inputs, data.normalise(split.inputs[batch.rows]))
    assert torch.equal(batch.targets, split.targets[batch.rows])


def test_holes_are_squares_anywhere() -> None:
    """Of 2,000 holes of 4 pixels in 6 x 8 images each is one of the 48 squares, cut at the border, and each is met."""
    images = torch.ones(2000, 2, 6, 8, dtype=torch.uint8)
    found = cutout(images, 4, torch.tensor([7, 9], dtype=torch.uint8).view(-1, 1, 1), torch.Generator().manual_seed(0))
    assert found.dtype == torch.uint8
    squares = set()
    for row in range(6):
        for column in range(8):
            image = torch.ones(2, 6, 8, dtype=torch.uint8)
            span = (slice(max(row - 2, 0), row + 2), slice(max(column - 2, 0), column + 2))
            image[(0, *span)], image[(1, *span)] = 7, 9
            squares.add(image.numpy().tobytes())
    assert {image.numpy().tobytes() for image in found} == squares  # one of 48 stays away with probability 1e-17


def test_holes_have_the_mean_s_colour(data: Data) -> None:
    assert data.normalise(torch.tensor(blank(data)).view(1, 1, 1, 1)).abs().max() < 1e-6  # float32
    inputs = next(inputs_of(data, Recipe(augment="flip-shift-cutout")))
    pixel = int(data.mean[0] * 16)
    assert bool((inputs == data.normalise(torch.tensor([[pixel]], dtype=torch.uint8))).flatten(1).any(1).all())
