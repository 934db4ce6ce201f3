"""The evaluator: its numbers against computations by hand, its splits, its seeds, its trip to another process."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automc.core.metrics import Constraint, Objective
from automc.core.policy import Policy, Site
from automc.core.study import ModelSpec, Part, Rung, StudySpec
from automc.errors import CompressionError, DataError, ModelError, NotFinite, SpecError
from automc.evaluation.data import load_data
from automc.evaluation.evaluator import NetworkEvaluator, prepare
from automc.evaluation.tasks.classification import Classification
from automc.export import packed

SPEC = StudySpec(
    "study",
    ModelSpec("digits_net"),
    Part("digits"),
    (),
    ("prune", "quantize", "distill"),
    (Objective("top1"), Objective("size_bytes")),
    rungs=(Rung(), Rung(5)),
)


def quiet(step: int, value: float) -> bool:
    return True


def joint(found: NetworkEvaluator, ratio: float = 0.25, bits: int = 6, alpha: float = 0.5) -> Policy:
    values: dict[Site, Any] = {Site("prune", group.name, "prune_ratio"): ratio for group in found.table.groups}
    values |= {Site("quantize", layer.name, "weight_bits"): bits for layer in found.table.layers}
    return Policy(values | {Site("distill", "*", "kd_alpha"): alpha})


@pytest.fixture(scope="module")
def evaluator() -> NetworkEvaluator:
    return prepare(SPEC)


def test_the_empty_policy_is_the_original_on_every_rung(evaluator: NetworkEvaluator) -> None:
    for rung in (0, 1):
        assert evaluator.evaluate(Policy({}), rung, quiet).metrics == evaluator.baseline
    assert evaluator.baseline["agreement"] == 1
    assert {v for k, v in evaluator.baseline.items() if k.endswith("_ratio")} == {1.0}
    assert evaluator.baseline["top1"] > 0.98


@pytest.mark.parametrize("rung", [0, 1])
def test_metrics_equal_a_computation_by_hand(rung: int, evaluator: NetworkEvaluator) -> None:
    policy = joint(evaluator)
    found = evaluator.evaluate(policy, rung, quiet)
    model, split = evaluator.build(policy, rung), evaluator.data.split("search")
    with torch.inference_mode():
        inputs = (split.inputs.float() / 16 - 0.305) / 0.376
        outputs, original = model(inputs), evaluator.build(Policy({}), 0)(inputs)
    hits = (outputs.argmax(1) == split.targets).sum().item()
    same = (outputs.argmax(1) == original.argmax(1)).sum().item()
    metrics = found.metrics
    # One batch in the place of several: sums in another order may turn one near-tie.
    assert abs(metrics["top1"] - hits / 359) <= 1 / 359
    assert abs(metrics["agreement"] - same / 359) <= 1 / 359
    assert metrics["loss"] == pytest.approx(F.cross_entropy(outputs, split.targets).item(), rel=1e-4)
    assert metrics["params"] == sum(p.numel() for p in model.parameters())
    assert metrics["size_bytes"] == len(packed.dumps(model, evaluator.example))
    for name, ratio in {"params": "params_ratio", "macs": "macs_ratio", "size_bytes": "size_ratio"}.items():
        assert metrics[ratio] == metrics[name] / evaluator.baseline[name]
    assert metrics["bops"] == metrics["macs"] * 6 * 32
    assert "latency_ms" not in metrics
    assert found.realized["conv1"]["channels"] == 24
    assert found.seconds > 0


def test_training_rungs_repair(evaluator: NetworkEvaluator) -> None:
    policy = joint(evaluator, 0.5)
    assert evaluator.evaluate(policy, 1, quiet).metrics["loss"] < evaluator.evaluate(policy, 0, quiet).metrics["loss"]


def test_batch_norm_is_recalibrated_without_training(evaluator: NetworkEvaluator) -> None:
    """The first norm's statistics are those of the pruned first convolution's outputs on the calibration inputs."""
    model = evaluator.build(joint(evaluator, 0.5, 32), 0)
    with torch.inference_mode():
        outputs = model.conv1(evaluator.data.normalise(evaluator.data.split("calibration").inputs))  # type: ignore[operator]
    norm = model.bn1
    assert isinstance(norm.running_mean, Tensor)
    assert torch.allclose(norm.running_mean, outputs.mean((0, 2, 3)), atol=1e-4)


def test_the_same_seed_gives_the_same_trial_and_another_does_not(evaluator: NetworkEvaluator) -> None:
    policy = joint(evaluator)
    first = evaluator.evaluate(policy, 1, quiet)
    torch.manual_seed(99)
    assert prepare(SPEC).evaluate(policy, 1, quiet).metrics == first.metrics
    assert prepare(replace(SPEC, seed=1)).evaluate(policy, 1, quiet).metrics["loss"] != first.metrics["loss"]


def test_evaluating_changes_neither_the_original_nor_the_threads(evaluator: NetworkEvaluator) -> None:
    before = copy.deepcopy(evaluator._teacher.state_dict())
    torch.set_num_threads(2)
    try:
        evaluator.evaluate(joint(evaluator), 1, quiet)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(before[key], value) for key, value in evaluator._teacher.state_dict().items())
    assert evaluator.evaluate(Policy({}), 0, quiet).metrics == evaluator.baseline


def test_a_search_opens_train_only_to_repair_and_test_never() -> None:
    untrained = prepare(replace(SPEC, rungs=(Rung(),)))
    untrained.evaluate(joint(untrained), 0, quiet)
    # One opening of train: its first rows, the calibration split.
    assert dict(untrained.data.openings) == {"train": 1, "search": 1}
    assert "train" not in untrained.data._opened
    trained = prepare(SPEC)
    for rung in (0, 1):
        trained.evaluate(joint(trained), rung, quiet)
        trained.build(joint(trained), rung)
    assert set(trained.data.openings) == {"train", "search"}
    assert trained.measure(trained.build(Policy({}), 0), "test")["top1"] > 0.98
    assert trained.data.openings["test"] == 1


def test_a_stop_is_obeyed_and_measured(evaluator: NetworkEvaluator) -> None:
    heard: list[int] = []

    def stop(step: int, value: float) -> bool:
        heard.append(step)
        return False

    policy = joint(evaluator, 0.5)
    found = evaluator.evaluate(policy, 1, stop)
    assert len(heard) == 1
    assert math.isfinite(found.metrics["loss"])
    assert found.metrics["loss"] != evaluator.evaluate(policy, 1, quiet).metrics["loss"]


def test_a_policy_that_does_not_fit_is_refused(evaluator: NetworkEvaluator) -> None:
    with pytest.raises(CompressionError, match="no group 'conv7'"):
        evaluator.evaluate(Policy({Site("prune", "conv7", "prune_ratio"): 0.5}), 0, quiet)


def test_outputs_that_are_not_finite(evaluator: NetworkEvaluator) -> None:
    model = evaluator.build(Policy({}), 0)
    with torch.no_grad():
        model.linear.weight[0, 0] = math.inf  # type: ignore[index,union-attr]
    with pytest.raises(NotFinite, match="outputs are NaN or infinite for 100 of 100 search inputs"):
        evaluator.measure(model)


def test_latency_is_measured_when_a_study_asks_for_it() -> None:
    found = prepare(replace(SPEC, rungs=(Rung(),), constraints=(Constraint.parse("latency_ratio <= 0.9"),)))
    assert found.baseline["latency_ratio"] == 1
    metrics = found.evaluate(joint(found, 0.75, 32), 0, quiet).metrics
    assert 0 < metrics["latency_ms"] < 100
    # An eighth of the MACs: noise on a shared machine never makes that the slower network.
    assert metrics["latency_ratio"] < 1


def test_seconds_are_a_metric_only_when_asked_for(evaluator: NetworkEvaluator) -> None:
    asked = prepare(replace(SPEC, rungs=(Rung(),), constraints=(Constraint.parse("seconds <= 60"),)))
    found = asked.evaluate(Policy({}), 0, quiet)
    assert found.metrics["seconds"] == found.seconds


class Flat(nn.Module):
    def __init__(self, classes: int = 10, rank: int = 2) -> None:
        super().__init__()
        self.fc = nn.Linear(64, classes)
        self.rank = rank

    def forward(self, x: Tensor) -> Any:
        out = self.fc(x.flatten(1))
        return {0: {"logits": out}, 2: out, 3: out[:, None], 4: (out, out)}[self.rank]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Flat(7), "give the model, which has 7 scores, num_classes: 10 or other weights, or mend the labels"),
        (Flat(rank=3), r"must return scores of shape \(n, classes\), not \(2, 1, 10\)"),
        (Flat(rank=0), "must return one tensor of class scores, not dict"),
        (Flat(rank=4), "must return one tensor of class scores, not tuple"),
        (nn.Linear(7, 10), r"cannot take inputs of shape \(2, 1, 8, 8\) from data digits: RuntimeError: mat1 and mat2"),
        ("digits_net", "model must be an nn.Module, not str"),
    ],
)
def test_models_that_do_not_fit_the_data(model: Any, message: str) -> None:
    with pytest.raises((ModelError, DataError), match=message) as caught:
        prepare(SPEC, model=model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learningrate": 0.1}, "network has no such setting .*did you mean 'learning_rate'"),
        ({"batch_size": 12.5}, "batch_size: must be a whole number, not 12.5"),
        ({"augment": 3}, "augment: must be text, not 3"),
        ({"momentum": 1}, r"momentum: must be in \[0, 1\), not 1"),
    ],
)
def test_evaluator_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        prepare(replace(SPEC, evaluator=Part("network", settings)))


def test_classification_metrics_on_four_inputs() -> None:
    outputs = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 0.0]])
    teacher = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    task = Classification()
    found = task.summarise(task.judge(outputs, task.answer(teacher), torch.tensor([0, 1, 1, 1])))
    losses = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(-1)), math.log(1 + math.exp(3)), math.log(2)]
    values = {name: each.value for name, each in found.items()}
    shares = {"top1": 0.5, "agreement": 0.75, "top1_worst_class": 1 / 3}
    assert values == pytest.approx({**shares, "loss": sum(losses) / 4})
    assert found["top1"].error == pytest.approx(math.sqrt(4 * 0.5 * 0.5 + 0.25) / 5)
    assert {each.samples for each in found.values()} == {4}


MINE = """
import torch.nn.functional as F
from torch import nn

class Lambda(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f
    def forward(self, x):
        return self.f(x)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        planes = 16
        self.shortcut = Lambda(lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, planes // 4, planes // 4)))
        self.conv3 = nn.Conv2d(16, 12, 3, padding=1)
        self.fc = nn.Linear(12, 10)
    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.conv2(x) + self.shortcut(x))
        return self.fc(F.relu(self.conv3(x)).mean((2, 3)))

def build():
    return Net()
"""

CHILD = """
import sys, pickle, torch
evaluator, policy = pickle.load(open(sys.argv[1], "rb"))
assert "test" not in evaluator.data._opened
print(repr(sorted(evaluator.evaluate(policy, 1, lambda step, value: True).metrics.items())))
"""


def elsewhere(evaluator: NetworkEvaluator, policy: Policy, folder: Path) -> str:
    """What a fresh process, in another folder and without the user's file, measures."""
    (folder / "evaluator.pkl").write_bytes(cloudpickle.dumps((evaluator, policy)))
    command = [sys.executable, "-c", CHILD, str(folder / "evaluator.pkl")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_fresh_process_measures_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    found = prepare(replace(SPEC, model=ModelSpec("mine.py:build"), rungs=(Rung(), Rung(2))))
    found.data.split("test")
    (tmp_path / "mine.py").unlink()
    policy = Policy({Site("prune", found.table.groups[-1].name, "prune_ratio"): 0.5})
    wanted = found.evaluate(policy, 1, quiet).metrics
    assert elsewhere(found, policy, tmp_path) == repr(sorted(wanted.items()))


def test_user_data_and_a_class_of_this_test_travel_too(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import torch\n"
        "def make():\n"
        "    g = torch.Generator().manual_seed(0)\n"
        "    split = lambda: (torch.randn(64, 1, 8, 8, generator=g).numpy(), (torch.arange(64) % 10).numpy())\n"
        "    return {'train': split(), 'search': split(), 'test': split}\n"
    )
    data = load_data(Part("own.py:make"), tmp_path)
    (tmp_path / "own.py").unlink()
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        found = prepare(replace(SPEC, rungs=(Rung(), Rung(2))), model=Flat(), data=data)
        policy = Policy({Site("quantize", "fc", "weight_bits"): 4})
        wanted = found.evaluate(policy, 1, quiet).metrics
        assert elsewhere(found, policy, tmp_path) == repr(sorted(wanted.items()))
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert data.openings["test"] == 0
