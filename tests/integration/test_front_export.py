"""A whole front as folders, and one member of it by what it is good at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import automc
from automc.app import front_export
from automc.app.delivery import deliver
from automc.app.picking import objective
from automc.core.trial import Trial
from automc.errors import ModelError, ProofError, SpecError, UnknownTrial
from automc.export.bundle.manifest import Manifest
from automc.export.bundle.writing import Written
from automc.export.proof.proving import verify

RULES = {"rules": [{"operator": "quantize", "settings": {"weight_bits": [2, 4, 8]}}]}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> automc.Study:
    torch.manual_seed(0)
    g = np.random.default_rng(0)
    data = {}
    for name, count in (("train", 96), ("search", 80), ("test", 60)):
        x = g.standard_normal((count, 8), dtype=np.float32)
        data[name] = (x, (x[:, :4].sum(1) > 0).astype(np.int64))
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)).eval()
    folder = tmp_path_factory.mktemp("front")
    return automc.search(
        model,
        data,
        space=RULES,
        objectives={"loss": "minimize", "size_bytes": "minimize"},
        proposer="random",
        trials=8,
        workers=0,
        rungs=[{"steps": 0}],
        storage=f"{folder}/studies.db",
    )


def test_a_front_is_a_folder_each_and_one_that_fails_stops_no_other(
    study: automc.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [trial.number for trial in study.front()]
    assert len(members) >= 3
    failing, bad, *good = members

    def mixed(study: automc.Study, trial: Trial, folder: Path, *more: object) -> Written:
        if trial.number == failing:
            raise ModelError("model Sequential: cannot be written as ONNX (today)")
        written = deliver(study, trial, folder, ("onnx",), (2,))
        return written if trial.number != bad else refused(written)

    def refused(written: Written) -> Written:
        place = written.folder.parent / "rejected" / written.folder.name
        place.parent.mkdir()
        written.folder.rename(place)
        proof = Written(place, written.proof).proof
        return Written(place, type(proof)(**{**proof.__dict__, "passed": False, "reasons": ("too slow",)}))

    monkeypatch.setattr(front_export, "deliver", mixed)
    heard: list[int] = []
    found = front_export.export_front(study, tmp_path / "out", ("onnx",), told=lambda each: heard.append(each.number))
    assert heard == [member.number for member in found] == members
    assert [member.folder for member in found] == ["", f"rejected/{bad}", *map(str, good)]
    for number in good:
        manifest = Manifest.read(tmp_path / "out" / str(number))
        assert manifest.facts["trial"] == number
        assert manifest.batches == (1, 2)
        assert set(manifest.facts["splits"]) == {"calibration", "search", "test"}
        said = f"automc export study/{number} -o {number} --format onnx --batches 2 --storage studies.db"
        assert manifest.facts["command"] == said
        assert manifest.proof["passed"] is True
        assert verify(tmp_path / "out" / str(number), rounds=1, apart=False).passed
    index = (tmp_path / "out" / "FRONT.md").read_text()
    assert f"| {failing} | - |" in index
    assert "cannot be written as ONNX (today) |" in index
    assert f"| {bad} | [rejected/{bad}](rejected/{bad}) |" in index
    assert index.count("| proved |") == len(good)
    with pytest.raises(ProofError, match=f"2 of {len(members)} members are not as promised:\ntrial {failing}: model"):
        front_export.require(found)
    front_export.require(found[2:])


def test_a_member_is_picked_by_a_filter_and_a_metric(study: automc.Study) -> None:
    metrics = {t.number: t.measurement.metrics for t in study.front() if t.measurement}
    middle = sorted(each["size_bytes"] for each in metrics.values())[1]
    fitting = {n for n, each in metrics.items() if each["size_bytes"] >= middle}
    picked = study.picked(f"size_bytes >= {middle}", best=objective("min", "size_bytes"))
    assert metrics[picked.number]["size_bytes"] == middle
    best = study.picked(f"size_bytes >= {middle}", best=objective("max", "top1"))
    assert metrics[best.number]["top1"] == max(metrics[n]["top1"] for n in fitting)
    least = study.picked("", best=objective("min", "size_bytes"))
    assert least.number == min(metrics, key=lambda n: metrics[n]["size_bytes"])
    with pytest.raises(SpecError, match="this study did not measure latency_ms"):
        study.picked("", best=objective("min", "latency_ms"))
    with pytest.raises(UnknownTrial, match="no member of the front has size_bytes < 1"):
        study.picked("size_bytes < 1", best=objective("min", "loss"))


def test_a_study_whose_model_changed_is_not_exported_as_what_it_was(
    study: automc.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, evaluator = study.front()[0], study.evaluator
    other = evaluator.original()
    with torch.no_grad():
        other.model[0].weight += 0.01
    monkeypatch.setattr(type(evaluator), "original", lambda self: other)
    with pytest.raises(SpecError, match="its model changed since it began"):
        deliver(study, trial, tmp_path / "out", ("onnx",))
    assert not list(tmp_path.iterdir())
