"""Answers of the teacher that are kept: the very bits of a teacher that runs in every step, and when there are none."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from automc.core.study import ModelSpec
from automc.evaluation import recall
from automc.evaluation.data import Data
from automc.evaluation.device import Device
from automc.evaluation.finetune import Repair
from automc.evaluation.lesson import Lesson
from automc.evaluation.recall import KEY
from automc.evaluation.recipe import Recipe
from automc.evaluation.tasks.classification import Classification
from automc.evaluation.zoo import load_model
from automc.operators.distillation.distances import FeatureTerm
from automc.operators.distillation.features import Feature
from automc.operators.distillation.logits import LogitTerm

TERM = LogitTerm(4.0, 0.7)
HINT = FeatureTerm("hint", 1.0, (Feature("block1", False),))
FIXED = Recipe(augment="none", batch_size=256)
EPOCH = 988 // 256


def quiet(step: int, value: float) -> bool:
    return True


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class Counted(nn.Module):
    """A teacher that counts the inputs it is asked for."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.asked = model, 0
        self.eval()

    def forward(self, x: Tensor) -> Any:
        self.asked += len(x)
        return self.model(x)


@pytest.fixture
def counted(teacher: nn.Module) -> Counted:
    return Counted(copy.deepcopy(teacher))


@pytest.fixture
def student(teacher: nn.Module) -> nn.Module:
    model, generator = copy.deepcopy(teacher), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * parameter.abs().mean() * torch.randn(parameter.shape, generator=generator)
    return model


def repaired(data: Data, student: nn.Module, lesson: Lesson, recipe: Recipe, steps: int, seed: int = 0) -> Tensor:
    model = copy.deepcopy(student)
    Repair(data, Classification(), recipe, Device("cpu", "float32"))(model, lesson, steps, seed, quiet)
    return weights(model)


def test_kept_answers_change_no_bit(
    data: Data, counted: Counted, student: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over more than an epoch, with the same batches; the short last batch of the rows is among them."""
    memory: dict[Any, Any] = {}
    kept = repaired(data, student, Lesson(counted, (TERM,), memory), FIXED, EPOCH + 2)
    assert memory[KEY].shape == (988, 10)
    monkeypatch.setattr(recall, "LIMIT", 0)
    counted.asked = 0
    assert torch.equal(kept, repaired(data, student, Lesson(counted, (TERM,)), FIXED, EPOCH + 2))
    assert counted.asked >= (EPOCH + 2) * 256


@pytest.mark.parametrize(("name", "shape"), [("resnet20", (3, 32, 32)), ("mobilenet_v2", (3, 32, 32))])
def test_an_answer_does_not_depend_on_the_other_rows_of_its_batch(name: str, shape: tuple[int, ...]) -> None:
    """What ``recalled`` builds on, for kernels of other widths than digits_net's; in batches of one size."""
    model = load_model(ModelSpec(name)).eval()
    inputs = torch.randn(80, *shape, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(80, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        rows = torch.cat([model(inputs[:16]), model(inputs[16:32]), model(inputs[64:80])])
        mixed = torch.empty(80, rows.shape[1])
        for part in order.split(16):
            mixed[part] = model(inputs[part])
    assert torch.equal(rows, mixed[[*range(32), *range(64, 80)]])


def test_the_teacher_is_asked_once_a_study(data: Data, counted: Counted, student: nn.Module) -> None:
    memory: dict[Any, Any] = {}
    first = repaired(data, student, Lesson(counted, (TERM,), memory), FIXED, EPOCH)
    asked = counted.asked
    assert asked == 256 * 4 + 2  # every row, the last batch filled up, and two for the memory layout
    other = repaired(data, student, Lesson(counted, (LogitTerm(2.0, 0.5),), memory), FIXED, EPOCH, seed=1)
    assert counted.asked == asked + 2
    assert not torch.equal(first, other)
    again = repaired(data, student, Lesson(counted, (TERM,), {}), FIXED, EPOCH)
    assert torch.equal(first, again)


@pytest.mark.parametrize(
    ("terms", "recipe", "steps", "each"),
    [
        ((TERM,), Recipe(augment="shift", batch_size=256), EPOCH, 256),
        ((TERM, HINT), FIXED, EPOCH, 256),
        ((TERM,), FIXED, EPOCH - 1, 256),
        ((), FIXED, EPOCH, 0),
    ],
    ids=["augmented", "features", "too few steps", "no terms"],
)
def test_where_nothing_is_kept(
    terms: tuple[Any, ...],
    recipe: Recipe,
    steps: int,
    each: int,
    data: Data,
    teacher: nn.Module,
    student: nn.Module,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory: dict[Any, Any] = {}
    model, asked = copy.deepcopy(teacher), 0

    def count(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        nonlocal asked
        asked += len(args[0])

    model.register_forward_pre_hook(count)
    repaired(data, student, Lesson(model, terms, memory), recipe, steps)
    assert memory == {}
    assert asked == each * steps + 2


def test_too_much_to_keep_is_not_kept(
    data: Data, counted: Counted, student: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recall, "LIMIT", 988 * 10 * 4 - 1)
    memory: dict[Any, Any] = {}
    repaired(data, student, Lesson(counted, (TERM,), memory), FIXED, EPOCH)
    assert memory == {KEY: None}
    assert counted.asked == 256 * (EPOCH + 1) + 2
    monkeypatch.setattr(recall, "LIMIT", 988 * 10 * 4)
    repaired(data, student, Lesson(counted, (TERM,), memory := {}), FIXED, EPOCH)
    assert memory[KEY] is not None


def test_a_following_teacher_is_never_kept(data: Data, student: nn.Module) -> None:
    memory: dict[Any, Any] = {}
    repaired(data, student, Lesson(None, (TERM,), memory), FIXED, EPOCH)
    assert memory == {}
