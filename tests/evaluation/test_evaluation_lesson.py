"""Lessons: terms in turn, labels that are not read, the moving average, adapters and hooks that come and go."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from automc.core.policy import Policy, Site
from automc.core.study import Part
from automc.evaluation.batches import Batches
from automc.evaluation.data import Data, load_data
from automc.evaluation.finetune import Recipe, Repair
from automc.evaluation.lesson import DECAY, Lesson, learning
from automc.evaluation.splits import Split
from automc.evaluation.tasks.classification import Classification
from automc.export import packed
from automc.operators import ORDER, live, live_kinds
from automc.operators.base import Answer, Compression, compress
from automc.operators.distillation.distances import FEATURES, FeatureTerm
from automc.operators.distillation.features import Feature
from automc.operators.distillation.logits import LogitTerm
from automc.operators.layers import trace

BLOCKS = tuple(Feature(path, False) for path in ("block1", "block2.bn1", "block3"))


@pytest.fixture(scope="module")
def original(teacher: nn.Module, data: Data) -> Compression:
    inputs = data.normalise(data.split("calibration").inputs)
    return Compression(teacher, teacher, trace(teacher, inputs[:2]), inputs)


@pytest.fixture
def student(original: Compression) -> nn.Module:
    """Every group at half its channels, every weight at 4 bits."""
    table = original.trace.table
    values: dict[Site, Any] = {Site("prune", group.name, "prune_ratio"): 0.5 for group in table.groups}
    values |= {Site("quantize", layer.name, "weight_bits"): 4 for layer in table.layers}
    return compress(original, Policy(values), ORDER).model


def quiet(step: int, value: float) -> bool:
    return True


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@dataclass
class Spy:
    """A term with an adapter of its own: ``keeps * loss + adapter(student's first logit)``; it notes what it saw."""

    keeps: float = 1.0
    layers: tuple[str, ...] = ()
    seen: list[tuple[Answer, Answer]] = field(default_factory=list)
    started: list[nn.Module] = field(default_factory=list)

    def start(self, student: Answer, teacher: Answer) -> nn.Module:
        self.started.append(_Spying(self))
        return self.started[-1]


class _Spying(nn.Module):
    def __init__(self, spy: Spy) -> None:
        super().__init__()
        self.spy, self.weight = spy, nn.Parameter(torch.ones(()))

    def forward(self, student: Answer, teacher: Answer) -> Tensor:
        self.spy.seen.append((student, teacher))
        return self.weight * student.outputs[:, 0].mean()


def test_terms_apply_in_turn_to_the_tasks_loss(teacher: nn.Module) -> None:
    inputs = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mean = teacher(inputs)[:, 0].mean().item()
    with learning(Lesson(teacher, (Spy(0.5), Spy(0.25))), teacher) as course:
        found = course.loss(inputs, lambda outputs: torch.tensor(8.0))
    assert found.item() == pytest.approx(0.25 * (0.5 * 8.0 + mean) + mean)


def test_the_teacher_stays_and_answers_without_gradients(data: Data, teacher: nn.Module, student: nn.Module) -> None:
    before, spy = copy.deepcopy(teacher.state_dict()), Spy(layers=("block1",))
    Repair(data, Classification(), Recipe())(student, Lesson(teacher, (spy,)), 3, 0, quiet)
    assert len(spy.seen) == 3
    for own, wanted in spy.seen:
        assert own.outputs.requires_grad
        assert own.outputs.shape == wanted.outputs.shape == (64, 10)
        assert not wanted.outputs.requires_grad
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())


def with_train_labels(targets: Callable[[Tensor], Tensor]) -> Data:
    data = load_data(Part("digits"))
    split = data.split("train")
    data._opened["train"] = Split(split.inputs, targets(split.targets))
    return data


@pytest.mark.parametrize("kind", ["none", *FEATURES])
def test_alone_distillation_never_reads_a_label(kind: str, data: Data, teacher: nn.Module, student: nn.Module) -> None:
    """Labels that no network has an output for would raise where the task's loss met them."""
    features = () if kind == "none" else (FeatureTerm(kind, 1.0, BLOCKS),)
    absent = with_train_labels(lambda targets: torch.full_like(targets, 10**6))
    models = copy.deepcopy(student), copy.deepcopy(student)
    for where, model in zip((data, absent), models, strict=True):
        lesson = Lesson(teacher, (LogitTerm(4.0, 1.0), *features))
        assert Repair(where, Classification(), Recipe())(model, lesson, 3, 0, quiet)
    assert torch.equal(weights(models[0]), weights(models[1]))
    assert not torch.equal(weights(models[0]), weights(student))
    with pytest.raises(IndexError):
        Repair(absent, Classification(), Recipe())(student, Lesson(teacher, (LogitTerm(4.0, 0.9),)), 1, 0, quiet)


def test_the_own_teacher_is_the_moving_average(student: nn.Module) -> None:
    """Its answers, and those of a network whose weights were averaged here from all students so far."""
    generator = torch.Generator().manual_seed(0)
    inputs, spy = torch.randn(8, 1, 8, 8, generator=generator), Spy()
    average = {name: p.detach().double().numpy() for name, p in student.named_parameters()}
    reference = copy.deepcopy(student).eval()
    optimizer = torch.optim.SGD(student.parameters(), 0.05)
    with learning(Lesson(None, (spy,)), student.train()) as course:
        for step in range(4):
            loss = course.loss(inputs, lambda outputs: outputs.square().mean())
            with torch.no_grad():
                for name, parameter in reference.named_parameters():
                    parameter.copy_(torch.from_numpy(average[name]))
                assert torch.allclose(spy.seen[step][1].outputs, reference(inputs), atol=1e-4)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            course.follow()
            for name, parameter in student.named_parameters():
                average[name] = DECAY * average[name] + (1 - DECAY) * parameter.detach().double().numpy()
            for name, buffer in student.named_buffers():
                reference.get_buffer(name).copy_(buffer)
    assert not torch.allclose(spy.seen[0][1].outputs, spy.seen[3][1].outputs, atol=1e-2)


def test_the_average_begins_as_the_student_and_follows_in_a_repair(data: Data, student: nn.Module) -> None:
    before, spy = copy.deepcopy(student), Spy()
    Repair(data, Classification(), Recipe(augment="none"))(student, Lesson(None, (spy,)), 2, 0, quiet)
    first = next(Batches(data, Recipe(augment="none"), 1000).shuffled(0)).inputs
    with torch.no_grad():
        wanted = before.eval()(first.to(memory_format=torch.channels_last))  # as the repair runs images
        assert torch.equal(spy.seen[0][1].outputs, wanted)


@pytest.mark.parametrize("kind", ["hint", "fsp"])
def test_adapters_learn_and_are_thrown_away(
    kind: str, data: Data, teacher: nn.Module, student: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[nn.Module, dict[str, Tensor]]] = []
    start = FeatureTerm.start

    def noted(term: FeatureTerm, own: Answer, wanted: Answer) -> nn.Module:
        made.append((module := start(term, own, wanted), copy.deepcopy(module.state_dict())))
        return module

    monkeypatch.setattr(FeatureTerm, "start", noted)
    names = set(student.state_dict())
    Repair(data, Classification(), Recipe())(student, Lesson(teacher, (FeatureTerm(kind, 1.0, BLOCKS),)), 3, 0, quiet)
    ((module, before),) = made
    assert len(before) == 6  # weight and bias of three
    assert all(not torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert set(student.state_dict()) == names


@pytest.mark.parametrize("teaches", ["original", "self"])
def test_nothing_of_a_lesson_stays_on_the_network(
    teaches: str, data: Data, teacher: nn.Module, student: nn.Module
) -> None:
    """A network that never was in a lesson, given the weights, is the same: pickled, copied and packed."""
    fresh, example = copy.deepcopy(student), torch.zeros(2, 1, 8, 8)
    terms = tuple(FeatureTerm(kind, 1.0, BLOCKS) for kind in FEATURES)
    lesson = Lesson(teacher if teaches == "original" else None, (LogitTerm(4.0, 0.5), *terms))
    Repair(data, Classification(), Recipe())(student, lesson, 2, 0, quiet)
    fresh.load_state_dict(student.state_dict())
    for module in (*student.modules(), *teacher.modules()):
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    for found in (student, copy.deepcopy(student), pickle.loads(pickle.dumps(student))):
        assert packed.dumps(found, example) == packed.dumps(fresh, example)


def test_a_lesson_that_fails_takes_its_hooks_along(data: Data, teacher: nn.Module, student: nn.Module) -> None:
    data_ = with_train_labels(lambda targets: torch.full_like(targets, 10**6))
    with pytest.raises(IndexError):
        Repair(data_, Classification(), Recipe())(
            student, Lesson(teacher, (FeatureTerm("hint", 1.0, BLOCKS),)), 1, 0, quiet
        )
    assert not any(module._forward_hooks for module in (*student.modules(), *teacher.modules()))


def test_live_layers_are_told_the_progress_before_each_step(
    data: Data, teacher: nn.Module, student: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[nn.Module, float, Tensor]] = []
    monkeypatch.setattr(live, "advance", lambda model, progress: told.append((model, progress, weights(model))))
    before = weights(student)
    Repair(data, Classification(), Recipe())(student, Lesson(teacher), 4, 0, quiet)
    assert [progress for _, progress, _ in told] == [0, 0.25, 0.5, 0.75]
    assert all(model is student for model, _, _ in told)
    assert torch.equal(told[0][2], before)
    assert not torch.equal(told[1][2], before)


def keep_half(scores: Tensor) -> Tensor:
    return scores > scores.flatten().median()


def test_masks_grow_anew_while_the_network_repairs(data: Data, teacher: nn.Module) -> None:
    model = copy.deepcopy(teacher)
    layer = live_kinds.live(model.get_submodule("block1.conv1"))
    way = layer.ways["weight"]
    assert isinstance(way, live.LiveWeight)
    way.pattern, way.mask = keep_half, keep_half(torch.arange(9 * 32 * 32.0).reshape(32, 32, 3, 3))
    first = way.mask
    Repair(data, Classification(), Recipe())(model, Lesson(teacher), 3, 0, quiet)
    assert way.mask is not None
    assert not torch.equal(way.mask, first)
    assert way.mask.sum() == first.sum()
