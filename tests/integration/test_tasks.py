"""Every task from a search in this process to a proved file, on tiny data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import automc
from automc.core.metrics import METRICS
from automc.core.trial import TrialState
from automc.errors import SpecError
from automc.evaluation.tasks import TASKS
from automc.export.bundle import manifest as names
from automc.export.proof.proving import Proof, verify

torch.set_num_threads(1)

RULES = {
    "order": ["prune", "quantize", "distill"],
    "rules": [
        {"operator": "prune", "settings": {"prune_ratio": [0.0, 0.5]}},
        {"operator": "quantize", "settings": {"weight_bits": [4, 8]}},
        {"operator": "distill", "settings": {"kd_alpha": [0.0, 0.5]}},
    ],
}
Pair = tuple[NDArray[Any], NDArray[Any] | None]


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 8)
        self.rnn = nn.LSTM(8, 12, batch_first=True)
        self.head = nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.rnn(self.embed(x))[0])
        return out


class Boxes(nn.Module):
    """Two by two cells, each with one box and two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
        self.head = nn.Conv2d(8, 6, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        raw = self.head(self.body(x)).flatten(2).transpose(1, 2)
        centre, half = raw[..., :2].sigmoid() * 8, raw[..., 2:4].sigmoid() * 4
        chances = raw[..., 4:].softmax(-1)
        boxes = torch.cat([centre - half, centre + half], -1)
        return {"boxes": boxes, "scores": chances.amax(-1), "labels": chances.argmax(-1), "raw": raw}


def mlp(outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, outputs))


def numbers(g: np.random.Generator, n: int) -> Pair:
    x = g.normal(size=(n, 6)).astype(np.float32)
    return x, x[:, :2] * 3 + 1


def masks(g: np.random.Generator, n: int) -> Pair:
    x = g.integers(0, 256, (n, 3, 8, 8), dtype=np.uint8)
    return x, np.where(g.random((n, 8, 8)) < 0.1, 255, x.argmax(1))


def texts(g: np.random.Generator, n: int) -> Pair:
    x = g.integers(0, 12, (n, 9))
    return x[:, :-1], np.where(g.random((n, 8)) < 0.1, -100, x[:, 1:])


def pictures(g: np.random.Generator, n: int) -> Pair:
    return g.integers(0, 256, (n, 1, 8, 8), dtype=np.uint8), None


def boxes(g: np.random.Generator, n: int) -> Pair:
    targets = np.zeros((n, 2, 5), np.float32)
    targets[:, 0] = [1, 1, 6, 6, 0]
    targets[:, 1, 4] = -1
    return g.normal(size=(n, 1, 8, 8)).astype(np.float32), targets


def classifier() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))


def segmenter() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))


Case = tuple[Callable[[], nn.Module], Callable[[np.random.Generator, int], Pair], Any, tuple[str, ...]]
CASES: dict[str, Case] = {
    "regression": (lambda: mlp(2), numbers, "regression", ()),
    "segmentation": (segmenter, masks, "segmentation", ()),
    "language": (Tokens, texts, "language_modelling", ()),
    "unlabelled": (classifier, pictures, "classification", ("agreement",)),
    "embeddings": (lambda: mlp(10), lambda g, n: (numbers(g, n)[0], None), "embeddings", ()),
    "detection": (Boxes, boxes, {"name": "detection", "settings": {"confident": 0.3}}, ()),
}


def searched(case: str, folder: Path, **more: Any) -> automc.Study:
    build, make, task, metrics = CASES[case]
    torch.manual_seed(0)
    g = np.random.default_rng(0)
    data = {name: make(g, count) for name, count in (("train", 96), ("search", 80), ("test", 60))}
    objectives = {name: METRICS[name].direction for name in (*metrics, "size_bytes")} if metrics else None
    given: dict[str, Any] = {"task": task, "objectives": objectives, "proposer": "random", "rungs": [{"steps": 4}]}
    given |= {"trials": 3, "workers": 0, "storage": f"{folder}/studies.db"}
    return automc.search(build().eval(), data, space=RULES, **{**given, **more})


def promise(folder: Path, change: Callable[[dict[str, Any]], None]) -> Proof:
    """The proof after somebody who knows the seal changed the promise."""
    data = json.loads((folder / names.NAME).read_text())
    data.pop("seal")
    change(data)
    (folder / names.NAME).write_text(json.dumps({**data, "seal": names._seal(data)}))
    return verify(folder, rounds=1, apart=False)


@pytest.mark.parametrize("case", CASES)
def test_a_task_from_the_search_to_a_proved_file(case: str, tmp_path: Path) -> None:
    study = searched(case, tmp_path)
    task = study.spec.task
    records = study.records()
    assert [trial.state for trial in records] == [TrialState.COMPLETE] * 3
    for trial in records:
        assert trial.measurement is not None
        sampled = {name for name in trial.measurement.metrics if METRICS[name].sampled}
        assert sampled
        assert sampled <= set(TASKS[task.name].metrics)
        assert set(trial.measurement.errors) >= sampled
        assert trial.measurement.samples == 80
    proof = study.export(study.picked("min:size_bytes").number, tmp_path / "out")
    assert proof.passed, proof.reasons
    assert list(proof.scores) == [name for name in TASKS[task.name].metrics if name in study.baseline]
    lead = next(iter(proof.scores))
    assert f"| {lead} (test) |" in (tmp_path / "out" / "README.md").read_text()
    broken = promise(tmp_path / "out", lambda data: data["promised"].update({lead: proof.scores[lead] + 0.5}))
    assert broken.reasons[0].startswith(f"{lead}: promised")


def test_a_regression_s_proof_is_what_the_file_does(tmp_path: Path) -> None:
    proof = searched("regression", tmp_path).export(0, tmp_path / "out")
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    with np.load(tmp_path / "out" / "test.npz") as test:
        (outputs,) = session.run(None, {"input": test["inputs"]})
        assert proof.scores["mse"] == pytest.approx(np.square(outputs - test["targets"]).mean(), rel=1e-5)


OWN = """
from automc.core.judges.estimates import mean
from automc.evaluation.tasks.base import Task

class Size(Task):
    def measures(self, classes, labelled):
        return ("score",)
    def loss(self, outputs, targets):
        return (outputs - targets).abs().mean()
    def judge(self, outputs, teacher, targets):
        return {"score": -(outputs - targets).abs().amax(1)}
    def summarise(self, judged):
        return {"score": mean(judged["score"].numpy())}
"""


def test_a_task_of_ones_own_is_proved_by_its_outputs(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    study = searched("regression", tmp_path, task=f"{tmp_path}/own.py:Size", objectives={"score": "maximize"})
    proof = study.export(0, tmp_path / "out")
    assert proof.passed, proof.reasons
    assert proof.scores == {}
    assert proof.difference is not None
    assert 0 <= proof.difference < 1e-3
    assert "score (test, in torch)" in (tmp_path / "out" / "README.md").read_text()
    with np.load(tmp_path / "out" / "test.npz") as test:
        arrays = dict(test)
    arrays["outputs.output"] = arrays["outputs.output"] * 1.02
    np.savez(tmp_path / "out" / "test.npz", **arrays)
    files = {"test.npz": names.describe(tmp_path / "out" / "test.npz")}
    broken = promise(tmp_path / "out", lambda data: data["files"].update(files))
    assert [reason.split(":")[0] for reason in broken.reasons] == ["outputs of onnx"]


def test_a_task_object_is_given_again(tmp_path: Path) -> None:
    from automc.evaluation.tasks.regression import Regression

    study = searched("regression", tmp_path, task=Regression())
    assert study.spec.task.name == "python:object"
    study.close()
    opened = automc.open_study("study", f"{tmp_path}/studies.db")
    with pytest.raises(SpecError, match="with its model as a Python object"):
        _ = opened.evaluator


def test_top1_of_unlabelled_data_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"without labels the task measures no top1 .*use agreement"):
        searched("unlabelled", tmp_path, objectives={"top1": "maximize"})
    assert list(tmp_path.iterdir()) == []
