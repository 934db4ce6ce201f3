"""Building a policy's network: when the repair takes place, who teaches, and that each family really teaches."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass, field, replace
from typing import Any

import cloudpickle
import pytest
import torch
from torch import Tensor, nn

from automc.core.metrics import Objective
from automc.core.order import SITE as ORDER_SITE
from automc.core.policy import Policy, Site, Value
from automc.core.study import ModelSpec, Part, Rung, StudySpec
from automc.evaluation.building import Builder
from automc.evaluation.evaluator import NetworkEvaluator, prepare
from automc.evaluation.finetune import Repair
from automc.evaluation.lesson import Lesson
from automc.evaluation.tasks.base import Task
from automc.operators import OPERATORS
from automc.operators.base import Answer, Compression, compress, split_at_training
from automc.operators.distillation.distances import FEATURES
from automc.operators.distillation.features import watched
from automc.operators.live import LiveLayer
from automc.operators.prune import prune
from automc.operators.quantize import quantize
from automc.operators.recalibrate import recalibrate

SPEC = StudySpec(
    "study",
    ModelSpec("digits_net"),
    Part("digits"),
    (),
    ("prune", "quantize", "distill"),
    (Objective("top1"), Objective("size_bytes")),
    rungs=(Rung(), Rung(4)),
    # What is put right without training has tests of its own; from a worse start, 30 steps show what a lesson teaches.
    evaluator=Part("network", {"reconstruct": "none", "correct": False, "learning_rate": 0.05}),
)


def quiet(step: int, value: float) -> bool:
    return True


@pytest.fixture(scope="module")
def evaluator() -> NetworkEvaluator:
    return prepare(SPEC)


@pytest.fixture(scope="module")
def builder(evaluator: NetworkEvaluator) -> Builder:
    return evaluator._builder


def kd(**chosen: Value) -> dict[Site, Value]:
    return {Site("distill", "*", name): value for name, value in chosen.items()}


def policy(builder: Builder, ratio: float = 0.5, bits: int | None = 4, **chosen: Value) -> Policy:
    table = builder.trace.table
    values: dict[Site, Value] = {Site("prune", group.name, "prune_ratio"): ratio for group in table.groups}
    if bits:
        values |= {Site("quantize", layer.name, "weight_bits"): bits for layer in table.layers}
        values |= {Site("quantize", layer.name, "activation_bits"): 8 for layer in table.layers}
    return Policy(values | kd(**chosen))


def part(whole: Policy, operator: str) -> dict[str, dict[str, Value]]:
    """One operator's settings, whole as ``compress`` hands them over."""
    neutral = {name: setting.neutral for name, setting in OPERATORS[operator].settings.items()}
    return {target: neutral | chosen for target, chosen in whole.settings(operator).items()}


def same(first: nn.Module, second: nn.Module) -> bool:
    one, two = first.state_dict(), second.state_dict()
    return list(one) == list(two) and all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize(
    ("order", "wanted"),
    [
        (("prune", "quantize", "distill"), (("prune", "quantize", "distill"), ())),
        (("prune", "distill", "quantize"), (("prune", "distill"), ("quantize",))),
        (("distill", "prune"), (("distill",), ("prune",))),
        (("prune", "quantize"), (("prune", "quantize"), ())),
        ((), ((), ())),
    ],
)
def test_the_order_is_split_behind_distillation(order: tuple[str, ...], wanted: object) -> None:
    assert split_at_training(order) == wanted


def test_quantized_before_distillation_trains_with_live_quantizers(builder: Builder) -> None:
    whole = policy(builder, kd_alpha=0.5)
    found = builder(whole, ("prune", "quantize", "distill"), 4, 7, quiet)
    model = copy.deepcopy(builder.original)
    state = Compression(model, builder.original, builder.trace, builder.calibration)
    state = prune(state, part(whole, "prune"))
    state = quantize(state, part(whole, "quantize"))
    if state.stale:
        recalibrate(model, builder.calibration)
    builder.repair(model, Lesson(builder.original, found.losses), 4, 7, quiet)
    recalibrate(model, builder.calibration)
    assert same(found.model, model)


def test_quantized_after_distillation_is_the_trained_float_network_quantized(builder: Builder) -> None:
    whole = policy(builder, kd_alpha=0.5)
    found = builder(whole, ("prune", "distill", "quantize"), 4, 7, quiet)
    model = copy.deepcopy(builder.original)
    state = Compression(model, builder.original, builder.trace, builder.calibration)
    prune(state, part(whole, "prune"))
    recalibrate(model, builder.calibration)
    builder.repair(model, Lesson(builder.original, found.losses), 4, 7, quiet)
    recalibrate(model, builder.calibration)
    assert not any(isinstance(module, LiveLayer) for module in model.modules())
    state = Compression(model, builder.original, builder.trace, builder.calibration, ranges="observed")
    state = quantize(state, part(whole, "quantize"))
    if state.stale:
        recalibrate(model, builder.calibration)
    assert same(found.model, model)
    assert {module.weight_bits for module in found.model.modules() if isinstance(module, LiveLayer)} == {4}
    assert not same(found.model, builder(whole, ("prune", "quantize", "distill"), 4, 7, quiet).model)


def test_an_order_without_distillation_has_the_repair_last(builder: Builder) -> None:
    whole = policy(builder)
    found = builder(whole, ("prune", "quantize"), 4, 7, quiet)
    assert same(found.model, builder(whole, ("prune", "quantize", "distill"), 4, 7, quiet).model)
    assert not same(found.model, builder(whole, ("prune", "distill", "quantize"), 4, 7, quiet).model)


def test_without_steps_the_order_is_simply_the_order(builder: Builder) -> None:
    whole = policy(builder, kd_alpha=0.5)
    for order in (("prune", "distill", "quantize"), ("distill", "quantize", "prune")):
        found = builder(whole, order, 0, 7, quiet)
        state = Compression(builder.original, builder.original, builder.trace, builder.calibration)
        wanted = compress(state, whole, order)
        if wanted.stale:
            recalibrate(wanted.model, builder.calibration)
        assert same(found.model, wanted.model)


def test_a_policy_may_carry_its_order(builder: Builder) -> None:
    whole = policy(builder, kd_alpha=0.5)
    carried = Policy({**whole, ORDER_SITE: "prune distill quantize"})
    assert builder(carried, ("prune",), 0, 7, quiet).realized == builder(whole, SPEC.order, 0, 7, quiet).realized
    found = builder(carried, ("prune", "quantize", "distill"), 4, 7, quiet)
    assert same(found.model, builder(whole, ("prune", "distill", "quantize"), 4, 7, quiet).model)


@dataclass
class Recording:
    """A repair that notes its calls."""

    repair: Repair
    calls: list[tuple[nn.Module, Lesson, int, int]] = field(default_factory=list)
    trained: list[int] = field(default_factory=list)

    @property
    def task(self) -> Task:
        return self.repair.task

    def supervised(self, split: str) -> bool:
        return self.repair.supervised(split)

    def __call__(
        self, model: nn.Module, lesson: Lesson, steps: int, seed: int, monitor: Any, bookmark: Any = None
    ) -> bool:
        self.calls.append((model, lesson, steps, seed))
        forwards: list[bool] = []
        hook = model.register_forward_hook(lambda module, _, output: forwards.append(module.training))
        try:
            return self.repair(model, lesson, steps, seed, monitor)
        finally:
            hook.remove()
            self.trained.append(sum(forwards))


def recorded(builder: Builder) -> tuple[Builder, Recording]:
    recording = Recording(builder.repair)
    return replace(builder, repair=recording), recording  # type: ignore[arg-type]


def test_an_assistant_of_half_strength_takes_a_third_of_the_steps(builder: Builder) -> None:
    made, recording = recorded(builder)
    whole = policy(builder, 0.5, 4, kd_alpha=0.5, kd_features="hint", kd_teacher="assistant")
    heard: list[int] = []
    found = made(whole, SPEC.order, 12, 7, lambda step, value: bool(heard.append(step)) or True)
    (assistant, taught, spent, own_seed), (student, lesson, left, seed) = recording.calls
    assert (spent, left) == (4, 8)
    assert recording.trained == [4, 8]
    assert own_seed != seed
    assert taught.teacher is builder.original
    assert lesson.teacher is assistant
    assert student is found.model
    wide = {name: m.out_channels for name, m in builder.original.named_modules() if isinstance(m, nn.Conv2d)}
    for model, keeps, bits in ((assistant, 0.75, 6), (student, 0.5, 4)):
        layers = {name: m for name, m in model.named_modules() if isinstance(m, LiveLayer)}
        assert {m.weight_bits for m in layers.values()} == {bits}
        assert {name: m.out_channels for name, m in layers.items() if name in wide} == {
            name: keeps * channels for name, channels in wide.items()
        }
    assert heard  # the student's reports go on where the assistant's steps end
    assert all(4 < step < 12 for step in heard)


def test_a_compressed_teacher_is_not_trained(builder: Builder) -> None:
    made, recording = recorded(builder)
    found = made(policy(builder, 0.5, 4, kd_alpha=0.5, kd_teacher="compressed"), SPEC.order, 4, 7, quiet)
    ((student, lesson, steps, _),) = recording.calls
    assert (steps, student) == (4, found.model)
    assert lesson.teacher is not None
    half = builder(policy(builder, 0.25, 6, kd_alpha=0.5), SPEC.order, 0, 7, quiet).model
    assert {m.activation_bits for m in half.modules() if isinstance(m, LiveLayer)} == {8}
    assert same(lesson.teacher, half)


def test_teachers_are_the_original_or_the_student_itself(builder: Builder) -> None:
    for chosen, wanted in ((kd(kd_alpha=0.5), builder.original), (kd(kd_alpha=0.5, kd_teacher="self"), None)):
        made, recording = recorded(builder)
        made(Policy({**policy(builder), **chosen}), SPEC.order, 1, 7, quiet)
        assert recording.calls[0][1].teacher is wanted


def test_a_teacher_without_a_term_is_never_made(builder: Builder) -> None:
    made, recording = recorded(builder)
    made(policy(builder, kd_teacher="assistant"), SPEC.order, 3, 7, quiet)
    assert [steps for _, _, steps, _ in recording.calls] == [3]


FAMILIES: list[dict[str, Value]] = [
    *({"kd_features": kind} for kind in FEATURES),
    {"kd_alpha": 1.0},
    {"kd_alpha": 1.0, "kd_logits": "plain"},
]
TEACHERS = ("self", "assistant", "compressed")


def trained(builder: Builder, steps: int, **chosen: Value) -> Compression:
    """A network pruned by two thirds, after so many steps."""
    return builder(policy(builder, 0.67, None, **chosen), ("prune", "distill"), steps, 7, quiet)


@pytest.fixture(scope="module")
def by_labels(builder: Builder) -> nn.Module:
    return trained(builder, 30).model


@pytest.mark.parametrize("chosen", FAMILIES, ids=lambda chosen: "-".join(str(value) for value in chosen.values()))
def test_every_family_teaches(
    chosen: dict[str, Value], evaluator: NetworkEvaluator, builder: Builder, by_labels: nn.Module
) -> None:
    """30 steps bring the network nearer to the original, in the family's own distance, than the labels alone do."""
    before, after = (trained(builder, steps, **chosen) for steps in (0, 30))
    inputs = evaluator.data.normalise(evaluator.data.split("search").inputs[:128])
    assert distance(after, inputs) < distance(replace(after, model=before.model), inputs)
    assert distance(after, inputs) < distance(replace(after, model=by_labels), inputs)
    assert lifted(evaluator, before, after)


@pytest.mark.parametrize("teacher", TEACHERS)
def test_every_teacher_teaches(teacher: str, evaluator: NetworkEvaluator, builder: Builder) -> None:
    before, after = (trained(builder, steps, kd_alpha=0.5, kd_teacher=teacher) for steps in (0, 30))
    assert lifted(evaluator, before, after)


def lifted(evaluator: NetworkEvaluator, before: Compression, after: Compression) -> bool:
    first, last = (evaluator.measure(state.model)["top1"] for state in (before, after))
    return last > max(first + 0.1, 0.8)


@torch.no_grad()
def distance(state: Compression, inputs: Tensor) -> float:
    """The terms' value between the network and the original, with adapters fitted to just these inputs."""
    paths = [path for term in state.losses for path in term.layers]
    with watched(state.model, paths) as own, watched(state.teacher, paths) as wanted:
        student, teacher = Answer(state.model(inputs), own), Answer(state.teacher(inputs), wanted)
        return sum(term.start(student, teacher)(student, teacher).item() for term in state.losses)


def test_trials_do_not_depend_on_earlier_ones_nor_on_where_they_run(evaluator: NetworkEvaluator) -> None:
    whole = policy(evaluator._builder, kd_alpha=0.5, kd_features="fsp", kd_teacher="assistant")
    evaluator.evaluate(policy(evaluator._builder, 0.25, kd_features="hint"), 1, quiet)
    wanted = evaluator.evaluate(whole, 1, quiet)
    assert evaluator._builder.memory
    travelled = pickle.loads(cloudpickle.dumps(evaluator))
    assert travelled._builder.memory.keys() == evaluator._builder.memory.keys()
    again = travelled.evaluate(whole, 1, quiet)
    assert again.metrics == wanted.metrics
    assert again.realized == wanted.realized


def test_operators_get_the_calibration_labels(evaluator: NetworkEvaluator, builder: Builder) -> None:
    found = builder(Policy({}), SPEC.order, 0, 7, quiet)
    assert found.targets is not None
    assert torch.equal(found.targets, evaluator.data.split("calibration").targets)
    assert found.memory is builder.memory
