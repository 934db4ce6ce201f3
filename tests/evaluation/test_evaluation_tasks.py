"""Tasks: their losses against torch, what they refuse, learning without labels, and a task of the user's own."""

from __future__ import annotations

import copy
import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automc.core.judges import JUDGES
from automc.core.metrics import Constraint, Objective
from automc.core.policy import Policy, Site
from automc.core.study import ModelSpec, Part, Rung, StudySpec
from automc.errors import DataError, ModelError, SpecError
from automc.evaluation.data import load_data
from automc.evaluation.evaluator import NetworkEvaluator, prepare
from automc.evaluation.finetune import Recipe, Repair
from automc.evaluation.lesson import Lesson
from automc.evaluation.readers.user import as_data
from automc.evaluation.splits import Data
from automc.evaluation.tasks import TASKS
from automc.evaluation.tasks.base import Task
from automc.evaluation.tasks.classification import Classification
from automc.evaluation.tasks.detection import Detection
from automc.evaluation.tasks.embeddings import Embeddings
from automc.evaluation.tasks.language import LanguageModelling
from automc.evaluation.tasks.loading import load_task
from automc.evaluation.tasks.regression import Regression
from automc.evaluation.tasks.segmentation import Segmentation
from automc.evaluation.tasks.teaching import teacher_loss
from automc.operators.distillation.logits import LogitTerm

SPEC = StudySpec(
    "study",
    ModelSpec("given"),
    Part("given"),
    (),
    ("prune", "quantize", "distill"),
    (Objective("size_bytes"),),
    rungs=(Rung(), Rung(6)),
)


def quiet(step: int, value: float) -> bool:
    return True


def net(inputs: int = 5, outputs: int = 3, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, outputs)).eval()


def splits(targets: Any = None, count: int = 96) -> Data:
    """Standard normal inputs (n, 5); ``targets`` is a function of them."""
    g = np.random.default_rng(0)
    made = {}
    for name in ("train", "search", "test"):
        x = g.normal(size=(count, 5)).astype(np.float32)
        made[name] = (x, None if targets is None else targets(x))
    return as_data("mine", made)


@pytest.mark.parametrize("name", TASKS)
def test_a_named_task_has_the_judge_of_its_name(name: str) -> None:
    task = load_task(Part(name))
    assert task.judged_as is not None
    assert task.judged_as.name == name
    assert set(TASKS[name].metrics) == set(JUDGES[name].metrics) == set(task.measures(99, True))
    assert pickle.loads(pickle.dumps(task)) == task


def test_the_losses_are_torch_s() -> None:
    torch.manual_seed(0)
    scores, labels = torch.randn(4, 3, 2, 5), torch.randint(0, 3, (4, 2, 5))
    labels[0] = 255
    wanted = F.cross_entropy(scores.movedim(1, -1)[1:].reshape(-1, 3), labels[1:].reshape(-1))
    assert torch.allclose(Segmentation().loss(scores, labels), wanted)
    tokens, following = torch.randn(4, 6, 7), torch.randint(0, 7, (4, 6))
    following[2] = -100
    rows = torch.tensor([0, 1, 3])
    assert torch.allclose(
        LanguageModelling().loss(tokens, following),
        F.cross_entropy(tokens[rows].reshape(-1, 7), following[rows].reshape(-1)),
    )
    values = torch.randn(6, 1)
    assert torch.allclose(Regression().loss(values, torch.ones(6, dtype=torch.int64)), (values - 1).square().mean())


def test_the_teacher_s_loss_is_taken_over_classes_wherever_they_lie() -> None:
    """KL(teacher || student) with the sum over classes: of language that is the last axis."""
    torch.manual_seed(0)
    own, wanted = torch.randn(3, 4, 6), torch.randn(3, 4, 6)
    p, q = wanted.softmax(-1), own.softmax(-1)
    assert torch.allclose(teacher_loss(LanguageModelling(), own, wanted), (p * (p / q).log()).sum(-1).mean())
    p, q = wanted.softmax(1), own.softmax(1)
    assert torch.allclose(teacher_loss(Classification(), own, wanted), (p * (p / q).log()).sum(1).mean())
    relative = (own - wanted).square().sum() / wanted.square().sum()
    assert torch.allclose(teacher_loss(Embeddings(), own, wanted), relative)
    assert torch.allclose(teacher_loss(Detection(), {"raw": own}, {"raw": wanted}), relative)


BOXES = {"boxes": torch.rand(2, 3, 4), "scores": torch.rand(2, 3), "labels": torch.zeros(2, 3, dtype=torch.int64)}
NOTHING = torch.empty(2, 0, dtype=torch.int64)


@pytest.mark.parametrize(
    ("task", "outputs", "targets", "message"),
    [
        (Classification(), torch.zeros(2, 3), torch.zeros(9), "labels must be whole numbers, not torch.float32"),
        (Classification(), torch.zeros(2, 3), torch.zeros(9, 2, dtype=torch.int64), r"shape \(n,\), not \(9, 2\)"),
        (Classification(), torch.zeros(2, 3), torch.tensor([0, 3]), r"labels must be 0\.\.2, found 3"),
        (Regression(), torch.zeros(2, 3), torch.zeros(9, 2), r"one target has shape \(2,\), one output \(3,\)"),
        (Regression(), torch.zeros(2, dtype=torch.int64), NOTHING, "floating-point numbers, not torch.int64"),
        (Segmentation(), torch.zeros(2, 3), NOTHING, r"scores of shape \(n, classes, height, width\), not \(2, 3\)"),
        (
            Segmentation(),
            torch.zeros(2, 3, 4, 4),
            torch.zeros(9, 2, 2, dtype=torch.int64),
            r"one mask has shape \(2, 2\), the scores \(4, 4\)",
        ),
        (
            Segmentation(ignore_index=7),
            torch.zeros(2, 3, 1, 1),
            torch.tensor([[[7]], [[255]]]),
            r"labels must be 0\.\.2 \(or 7, which does not count\), found 255",
        ),
        (Segmentation(), torch.zeros(2, 3, 1, 1), torch.full((2, 1, 1), 255), "every label is 255"),
        (LanguageModelling(), torch.zeros(2, 3), NOTHING, r"scores of shape \(n, tokens, vocabulary\)"),
        (LanguageModelling(), torch.zeros(2, 3, 5), torch.zeros(2, 4, dtype=torch.int64), "one target token a place"),
        (Embeddings(), (torch.zeros(2, 3),), NOTHING, "must return one tensor of embeddings, not tuple"),
        (Embeddings(), torch.zeros(2), NOTHING, r"embeddings of shape \(n, ..., width\), not \(2,\)"),
        (Detection(), torch.zeros(2, 3), NOTHING, "a dict with the tensors boxes, scores, labels, not Tensor"),
        (Detection(), {"boxes": torch.zeros(1)}, NOTHING, "not a dict with boxes"),
        (Detection(), {**BOXES, "scores": torch.zeros(2, 4)}, NOTHING, r"scores \(2, 4\), labels \(2, 3\)"),
        (Detection(), BOXES, torch.zeros(2, 4), r"targets must have shape \(n, m, 5\)"),
        (Detection(), BOXES, torch.full((2, 1, 5), -1.0), "not a single box"),
        (Detection(), BOXES, torch.tensor([[[3.0, 0, 1, 1, 0]]]), "boxes must have x1 <= x2"),
    ],
)
def test_what_does_not_fit_the_task(task: Task, outputs: Any, targets: Tensor, message: str) -> None:
    with pytest.raises((ModelError, DataError), match=message) as caught:
        task.check(outputs, targets, 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Part("regresion"), "unknown task 'regresion', did you mean 'regression'"),
        (Part("segmentation", {"ignore": 1}), r"task\.settings\.ignore: .* \(it has: ignore_index\)"),
        (Part("segmentation", {"ignore_index": 0.5}), "ignore_index: must be int, not 0.5"),
        (Part("regression", {"x": 1}), r"it has: none"),
        (Part("detection", {"confident": 2}), "confident must be above 0, at most 1, not 2"),
    ],
)
def test_names_and_settings_are_checked(part: Part, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_task(part)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            replace(SPEC, objectives=(Objective("top1"),)),
            "objectives.top1: without labels the task measures no top1 .*use agreement",
        ),
        (
            replace(SPEC, constraints=(Constraint.parse("loss <= 1"),)),
            r"constraints: without labels .* \(it measures: agreement\)",
        ),
        (replace(SPEC, objectives=(Objective("r2"),), task=Part("regression")), "no r2 .*; use teacher_r2"),
        (replace(SPEC, objectives=(Objective("mse"),)), "objectives.mse: the task measures no mse"),
    ],
)
def test_a_metric_that_unlabelled_data_cannot_give(spec: StudySpec, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        prepare(spec, model=net(), data=splits())


def test_top5_of_three_classes_is_refused() -> None:
    spec = replace(SPEC, objectives=(Objective("top5"),))
    with pytest.raises(SpecError, match="no top5 on this data"):
        prepare(spec, model=net(), data=splits(lambda x: x[:, :3].argmax(1)))


def policy(found: NetworkEvaluator, **distill: Any) -> Policy:
    values: dict[Site, Any] = {Site("prune", group.name, "prune_ratio"): 0.5 for group in found.table.groups}
    return Policy(values | {Site("distill", "*", name): value for name, value in distill.items()})


@pytest.mark.parametrize("distill", [{}, {"kd_alpha": 0.3}, {"kd_alpha": 0.5, "kd_teacher": "self"}])
def test_without_labels_the_repair_comes_nearer_to_the_original(distill: dict[str, Any]) -> None:
    found = prepare(replace(SPEC, rungs=(Rung(), Rung(60))), model=net(), data=splits(count=256))
    heard: list[float] = []

    def listen(step: int, value: float) -> bool:
        heard.append(value)
        return True

    before, after = (found.build(policy(found, **distill), rung, listen) for rung in (0, 1))
    inputs = found.data.split("test").inputs
    with torch.no_grad():
        wanted = found.original().model(inputs)
        far, near = (teacher_loss(Classification(), model(inputs), wanted).item() for model in (before, after))
    assert near < 0.8 * far
    assert len(heard) == 5
    assert min(heard) >= 0  # a KL divergence, not a cross-entropy of labels that are not there
    assert set(found.baseline) & {"top1", "loss", "agreement"} == {"agreement"}


def test_without_labels_the_terms_mix_as_they_would_with_labels() -> None:
    """One step of ``(1 - a) * KL at 1 + a * T^2 * KL at T``, against the gradient of just that."""
    data, teacher, student = splits(), net(seed=0), net(seed=1)
    recipe = Recipe(batch_size=96, weight_decay=0.0, momentum=0.0, learning_rate=0.5, schedule="constant", warmup=0.0)
    own, inputs = copy.deepcopy(student), data.split("train").inputs
    with torch.no_grad():
        wanted = teacher(inputs)
    parts = [F.kl_div(F.log_softmax(own(inputs) / t, 1), F.softmax(wanted / t, 1), reduction="none") for t in (1, 4)]
    loss = 0.7 * parts[0].sum(1).mean() + 0.3 * 16 * parts[1].sum(1).mean()
    (gradient,) = torch.autograd.grad(loss, [own[0].weight])  # type: ignore[list-item]
    repair = Repair(data, Classification(), recipe, original=teacher)
    before = student[0].weight.detach().clone()  # type: ignore[union-attr,operator]
    repair(student, Lesson(teacher, (LogitTerm(4.0, 0.3),)), 1, 0, quiet)
    # The rows come in another order; a sum of 96 single-precision terms is right to some 1e-6 of its size.
    assert torch.allclose(student[0].weight, before - 0.5 * gradient, atol=1e-6)


def test_outputs_that_are_no_scores_are_compared_as_they_are() -> None:
    found = prepare(replace(SPEC, task=Part("regression")), model=net(), data=splits(lambda x: x[:, :3]))
    state = found.evaluate(policy(found, kd_alpha=0.5), 1, quiet)
    assert state.realized["*"]["kd_logits"] == "plain"
    scores = prepare(SPEC, model=net(), data=splits(lambda x: x[:, :3].argmax(1)))
    assert scores.evaluate(policy(scores, kd_alpha=0.5), 1, quiet).realized["*"]["kd_logits"] == "soft"


def test_images_stay_where_their_masks_are() -> None:
    x = np.zeros((8, 3, 8, 8), np.uint8)
    data = as_data("images", dict.fromkeys(("train", "search", "test"), (x, np.zeros((8, 8, 8), int))))
    assert Repair(data, Segmentation(), Recipe()).recipe.augment == "none"
    with pytest.raises(SpecError, match=r"augment: flip-shift moves images, but not the targets"):
        Repair(data, Segmentation(), Recipe(augment="flip-shift"))
    assert Repair(data, Embeddings(), Recipe(augment="flip-shift")).recipe.augment == "flip-shift"


def test_taylor_scores_of_a_segmentation_use_the_masks_that_count() -> None:
    """Labels of 255 reach the cross-entropy of the operators as the ones it ignores."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    masks = np.random.default_rng(0).integers(0, 2, (20, 4, 4))
    masks[:, :2] = 255
    x = np.random.default_rng(1).normal(size=(20, 1, 4, 4))
    data = as_data("masks", dict.fromkeys(("train", "search", "test"), (x, masks)))
    found = prepare(replace(SPEC, rungs=(Rung(),), task=Part("segmentation")), model=model, data=data)
    assert set(found.original().targets.unique().tolist()) == {-100, 0, 1}  # type: ignore[union-attr]
    site = {Site("prune", "0", "prune_ratio"): 0.5, Site("prune", "0", "criterion"): "taylor"}
    assert found.evaluate(Policy(site), 0, quiet).realized["0"]["channels"] == 2


def test_unlabelled_arrays_and_files(tmp_path: Path) -> None:
    x = np.arange(40, dtype=np.float32).reshape(20, 2)
    np.savez(tmp_path / "a.npz", x_train=x, x_test=x[:5])
    npz = load_data(Part("npz", {"path": str(tmp_path / "a.npz")}))
    own = as_data("own", {"train": x, "search": (torch.from_numpy(x), None), "test": lambda: x})
    for data, rows in ((npz, 18), (own, 20)):
        assert data.classes == 0
        assert tuple(data.split("train").targets.shape) == (rows, 0)
        assert not data.split("test").labelled
        again = pickle.loads(pickle.dumps(data.split("train")))
        assert torch.equal(again.inputs, data.split("train").inputs)
        assert again.targets.shape == (rows, 0)
    assert npz.digest("test") != own.digest("test")


def test_images_without_class_folders_have_no_labels(tmp_path: Path) -> None:
    from PIL import Image

    for split, count in (("train", 20), ("test", 3)):
        (tmp_path / split).mkdir()
        for i in range(count):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / split / f"{i}.png")
    data = load_data(Part("folder", {"path": str(tmp_path)}))
    assert [len(data.split(name)) for name in ("train", "search", "test")] == [18, 2, 3]
    assert not data.split("train").labelled
    assert data.classes == 0


def test_targets_that_are_not_finite() -> None:
    data = splits(lambda x: np.where(np.arange(len(x))[:, None] == 3, np.nan, x))
    with pytest.raises(DataError, match="train split: targets must be finite, row 3 holds NaN"):
        data.split("train")


OWN = """
import torch
from automc.core.judges.estimates import mean
from automc.evaluation.tasks.base import Task

class Within(Task):
    def __init__(self, near):
        self.near = near
    def measures(self, classes, labelled):
        return ("score",)
    def loss(self, outputs, targets):
        return (outputs - targets).abs().mean()
    def judge(self, outputs, teacher, targets):
        return {"score": ((outputs - targets).abs() < self.near).all(1)}
    def summarise(self, judged):
        return {"score": mean(judged["score"].numpy())}

def make(near=0.5):
    return Within(near)

def wrong():
    return Within
"""


def test_a_task_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    name = f"{tmp_path}/own.py:make"
    spec = replace(SPEC, task=Part(name, {"near": 1.0}), objectives=(Objective("score"),))
    found = prepare(spec, model=net(), data=splits(lambda x: x[:, :3]))
    split = found.data.split("search")
    with torch.no_grad():
        near = ((found.original().model(split.inputs) - split.targets).abs() < 1).all(1).double().mean().item()
    assert found.baseline["score"] == pytest.approx(near)
    trial = found.evaluate(policy(found), 1, quiet)
    share = trial.metrics["score"]
    assert trial.errors["score"] == pytest.approx(math.sqrt(96 * share * (1 - share) + 0.25) / 97)
    with pytest.raises(ModelError, match=r"must be a task .* not a class; call it"):
        load_task(Part(f"{tmp_path}/own.py:wrong"))
    with pytest.raises(ModelError, match="unknown setting 'nearer'"):
        load_task(Part(name, {"nearer": 1}))


def test_an_older_spec_is_a_classification() -> None:
    data = SPEC.to_data()
    del data["task"]
    assert StudySpec.from_data(data).task == Part("classification")
    other = replace(SPEC, task=Part("segmentation", {"ignore_index": 3}))
    assert StudySpec.from_data(other.to_data()) == other
