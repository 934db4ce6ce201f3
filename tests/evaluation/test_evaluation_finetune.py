"""Repair: the recipe's schedule, batches, augmentation; it lowers the loss, repeats, and ends when it should."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from automc.core.study import Part
from automc.errors import NotFinite, SpecError
from automc.evaluation.augment import augmentation, flip, shift
from automc.evaluation.batches import Batches
from automc.evaluation.data import Data, load_data
from automc.evaluation.finetune import Recipe, Repair
from automc.evaluation.lesson import Lesson
from automc.evaluation.tasks.classification import Classification


@pytest.fixture
def damaged(teacher: nn.Module) -> nn.Module:
    """The trained network with noise of half its own size on every convolution."""
    model, generator = copy.deepcopy(teacher), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 4:
                parameter += 0.5 * parameter.std() * torch.randn(parameter.shape, generator=generator)
    return model


def quiet(step: int, value: float) -> bool:
    return True


def search_loss(model: nn.Module, data: Data) -> float:
    split = data.split("search")
    with torch.inference_mode():
        return float(nn.functional.cross_entropy(model(data.normalise(split.inputs)), split.targets))


def test_repair_lowers_the_loss_and_leaves_eval_mode(data: Data, teacher: nn.Module, damaged: nn.Module) -> None:
    before = search_loss(damaged, data)
    assert Repair(data, Classification(), Recipe())(damaged, Lesson(teacher), 40, 0, quiet)
    assert search_loss(damaged, data) < 0.5 * before
    assert not any(module.training for module in damaged.modules())


def test_repair_repeats_and_leaves_the_random_state_alone(data: Data, teacher: nn.Module, damaged: nn.Module) -> None:
    repair = Repair(data, Classification(), Recipe())
    models = [copy.deepcopy(damaged) for _ in range(3)]
    for seed, model, disturbance in zip((1, 1, 2), models, (11, 12, 13), strict=True):
        torch.manual_seed(disturbance)
        wanted = torch.random.get_rng_state()
        repair(model, Lesson(teacher), 6, seed, quiet)
        assert torch.equal(torch.random.get_rng_state(), wanted)
    first, same, other = (torch.cat([p.flatten() for p in m.parameters()]) for m in models)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_the_monitor_is_told_the_search_loss_and_ends_the_repair(
    data: Data, teacher: nn.Module, damaged: nn.Module
) -> None:
    heard: list[tuple[int, float]] = []

    def monitor(step: int, value: float) -> bool:
        split = data.split("search").head(256)
        model = copy.deepcopy(damaged).eval()
        with torch.inference_mode():
            wanted = float(nn.functional.cross_entropy(model(data.normalise(split.inputs)), split.targets))
        assert value == pytest.approx(wanted, rel=1e-5)
        heard.append((step, value))
        return len(heard) < 2

    assert Repair(data, Classification(), Recipe(reports=3))(damaged, Lesson(teacher), 8, 0, monitor) is False
    assert [step for step, _ in heard] == [2, 4]
    assert not damaged.training


@given(st.integers(1, 500), st.integers(1, 20))
def test_reports_are_never_more_than_asked_and_never_at_the_end(steps: int, reports: int) -> None:
    every = max(math.ceil(steps / (reports + 1)), 1)
    told = [step for step in range(1, steps) if step % every == 0]
    assert len(told) <= reports


@pytest.mark.parametrize("spoil", ["weights", "rate"])
def test_a_loss_that_is_not_finite(spoil: str, data: Data, teacher: nn.Module, damaged: nn.Module) -> None:
    recipe = Recipe()
    if spoil == "weights":
        with torch.no_grad():
            damaged.linear.bias[3] = math.nan  # type: ignore[index,union-attr]
    else:
        recipe = Recipe(learning_rate=1e30, clip=1e30)
    with pytest.raises(NotFinite, match=r"repair: the loss (on the search split )?became (nan|inf)"):
        Repair(data, Classification(), recipe)(damaged, Lesson(teacher), 10, 0, quiet)
    assert not damaged.training


@given(st.integers(1, 300), st.floats(0, 0.9))
def test_the_rate_rises_to_its_peak_then_falls(steps: int, warmup: float) -> None:
    recipe = Recipe(learning_rate=0.3, warmup=warmup)
    rates = [recipe.rate(step, steps) for step in range(steps)]
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(0.3)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert min(rates) > 0


def test_every_epoch_shows_each_train_input_once(data: Data) -> None:
    batches = Batches(data, Recipe(batch_size=100, augment="none"), 1000).shuffled(0)
    rows = torch.cat([next(batches).inputs for _ in range(9)]).flatten(1).numpy()
    assert len(np.unique(rows, axis=0)) == 900


def test_shifts_move_every_image_by_its_own_offset() -> None:
    inputs = torch.arange(1, 101, dtype=torch.uint8).repeat_interleave(1).reshape(1, 1, 10, 10).repeat(200, 1, 1, 1)
    moved = shift(inputs, 2, torch.Generator().manual_seed(0))
    assert moved.dtype == torch.uint8
    assert moved.shape == inputs.shape
    padded = nn.functional.pad(inputs[:1], (2, 2, 2, 2))
    views = {padded[0, 0, i : i + 10, j : j + 10].numpy().tobytes(): (i, j) for i in range(5) for j in range(5)}
    found = {views[image.contiguous().numpy().tobytes()] for image in moved[:, 0]}
    assert len(found) == 25  # 200 draws of 25 offsets: one stays away with probability 0.007


def test_flips_mirror_about_half_of_the_images() -> None:
    inputs = torch.arange(12.0).reshape(1, 3, 2, 2).repeat(400, 1, 1, 1)
    flipped = flip(inputs, torch.Generator().manual_seed(0))
    mirrored = (flipped == inputs.flip(-1)).flatten(1).all(1)
    assert torch.equal(flipped[~mirrored], inputs[~mirrored])
    assert abs(int(mirrored.sum()) - 200) < 50


@pytest.mark.parametrize(
    ("shape", "changes", "mirrors"), [((3, 32, 32), True, True), ((1, 8, 8), True, False), ((7,), False, False)]
)
def test_auto_augments_by_the_shape_of_the_inputs(shape: tuple[int, ...], changes: bool, mirrors: bool) -> None:
    inputs = torch.arange(1.0, shape[-1] + 1).expand(64, *shape)  # brighter to the right
    found = augmentation("auto", shape)(inputs, torch.Generator().manual_seed(1))
    assert torch.equal(found, inputs) is not changes
    middle = shape[-1] // 2
    assert bool((found[..., middle - 1] > found[..., middle]).any()) is mirrors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recipe(learning_rate=-0.1), "learning_rate: must be above 0, or 0 for the optimizer's own, not -0.1"),
        (lambda: Recipe(batch_size=1), "batch_size: must be at least 2"),
        (lambda: Recipe(warmup=1.0), r"warmup: must be in \[0, 1\), not 1.0"),
        (lambda: augmentation("flips", (3, 32, 32)), "augment must be one of auto, none, shift, flip-shift"),
        (lambda: augmentation("shift", (7,)), "augment 'shift' needs images"),
    ],
)
def test_recipes_are_checked(make: Callable[[], object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make()


def test_less_data_than_a_batch_is_one_batch(tmp_path: Path, teacher: nn.Module, damaged: nn.Module) -> None:
    draw = np.random.default_rng(0)
    arrays = {f"x_{s}": draw.random((8, 1, 8, 8), dtype=np.float32) for s in ("train", "search")}
    np.savez(tmp_path / "a.npz", y_train=np.arange(8), y_search=np.arange(8), **arrays)
    data = load_data(Part("npz", {"path": str(tmp_path / "a.npz"), "classes": 10}))
    assert Repair(data, Classification(), Recipe())(damaged, Lesson(teacher), 2, 0, quiet)
