"""The main job on the bundled digits: search, export, proof; the test split is opened at the very end only."""

import hashlib
import json

import numpy as np
import pytest
import torch

import automc
from automc.app.config import study_from
from automc.app.runs import start
from automc.cli import main
from automc.core.policy import Policy
from automc.core.search import Ending
from automc.core.study import ModelSpec, Part
from automc.errors import ProofError, SpecError
from automc.evaluation.data import load_data
from automc.evaluation.zoo import load_model
from automc.export import packed

RUNGS = [{"steps": 0}, {"steps": 12, "share": 0.25}]


@pytest.fixture(scope="module")
def arrays():
    data = load_data(Part("digits"))
    return {name: (data.split(name).inputs, data.split(name).targets) for name in ("train", "search", "test")}


def study(tmp_path, **changes):
    said = {
        "name": "d",
        "model": "digits_net",
        "data": "digits",
        "space": "joint_kd",
        "objectives": {"top1": "maximize", "size_bytes": "minimize"},
        "rungs": RUNGS,
        "budget": {"trials": 12},
        "workers": {"count": 0},
        "storage": str(tmp_path / "d.db"),
    }
    return study_from(said | changes, "test")


def test_search_never_opens_the_test_split_and_export_proves_the_file(arrays, tmp_path):
    """A whole search by the Python API with objects; twelve evaluations, two of them with training (10 s)."""
    opened = []

    def test_split():
        opened.append(True)
        return arrays["test"]

    found = automc.search(
        load_model(ModelSpec("digits_net")),
        {"train": arrays["train"], "search": arrays["search"], "test": test_split},
        space="joint_kd",
        rungs=RUNGS,
        trials=12,
        name="objects",
        workers={"count": 0},
        storage=str(tmp_path / "objects.db"),
    )
    assert all(t.state.value == "complete" or t.hopeless for t in found.records())
    assert len(found.records()) == 12
    assert {t.rung for t in found.records()} == {0, 1}
    pick = found.picked("max:top1")
    model = found.best("max:top1")
    assert not opened, "a search, its front and its best model need no test split"

    proof = found.export(pick.number, tmp_path / "out")
    assert proof.passed, proof.reasons
    kept = {artifact.file: artifact for artifact in found.store.artifacts(found.name, pick.number)}
    assert sorted(kept) == ["graph.json", "model.onnx", "model.safetensors"]
    for name, artifact in kept.items():
        assert artifact.sha256 == hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest()
        assert artifact.proof["passed"] is proof.passed
    assert opened
    assert proof.size_bytes == (tmp_path / "out/model.safetensors").stat().st_size
    # The repair of the last rung changes weights, and with them how often each code occurs.
    assert proof.size_bytes == pytest.approx(pick.measurement.metrics["size_bytes"], rel=0.0 if pick.rung else 0.01)
    inputs, targets = arrays["test"]
    with torch.inference_mode():
        answers = model(inputs.float() / 255.0 if inputs.dtype == torch.uint8 else inputs).argmax(1)
    # The exported file is that same model in another runtime: rounding steps may flip an image.
    assert proof.scores["top1"] == pytest.approx(float((answers == targets).float().mean()), abs=2.5 / len(targets))

    with pytest.raises(SpecError, match="started with its model as a Python object: give it again"):
        automc.resume("objects", str(tmp_path / "objects.db")).evaluator  # noqa: B018


def test_what_is_measured_is_what_the_policy_says(tmp_path):
    made = start(study(tmp_path, budget={"trials": 6}, rungs=[{"steps": 0}], space="joint"))
    assert made.run() is Ending.DONE
    for trial in made.records():
        metrics = trial.measurement.metrics
        model = made.evaluator.build(trial.policy, 0)
        assert metrics["size_bytes"] == len(packed.dumps(model, made.evaluator.example))
        assert metrics["params"] == sum(p.numel() for p in model.parameters())
        again = made.evaluator.evaluate(trial.policy, 0, lambda step, value: True)
        assert dict(again.metrics) == pytest.approx(dict(metrics)), "the same policy, the same numbers"
    original = made.evaluator.evaluate(Policy({}), 0, lambda step, value: True)
    assert original.metrics["top1"] == made.baseline["top1"]


def test_from_the_command_line_to_a_verified_folder_and_a_tampered_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AUTOMC_STORAGE", raising=False)
    text = "model: digits_net\ndata: digits\nspace: prune\nobjectives: {top1: maximize, macs: minimize}\n"
    (tmp_path / "s.yaml").write_text(text + "workers: {count: 0}\nbudget: {trials: 4}\nstorage: s.db\n")
    assert main(["search", "s.yaml"]) == 0
    capsys.readouterr()
    assert main(["pareto", "s", "--storage", "s.db", "--pick", "max:top1", "--json"]) == 0
    number = json.loads(capsys.readouterr().out)[0]["number"]
    picks = ["export", "s", "--pick", "macs > 0", "--max", "top1", "--storage", "s.db", "-o"]
    assert main([*picks, "out", "--batches", "1,4"]) == 0
    out, err = capsys.readouterr()
    assert "every promise holds" in out
    assert "latency of 4 inputs:" in out
    assert f"trial s/{number}" in err
    for wrong, said in (
        (["--front"], "--front writes all members; leave out --pick"),
        (["--min", "top1"], "--min and --max together"),
        (["--batches", "0"], "whole numbers from 1 to 65536"),
        (["--format", "onnx,safetensors"], "write --format onnx,packed"),
    ):
        assert main([*picks, "other", *wrong]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    assert main(["verify", "out"]) == 0
    with np.load("out/test.npz") as arrays:
        assert len(arrays["targets"]) == 450
    weights = tmp_path / "out/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    capsys.readouterr()
    assert main(["verify", "out"]) == ProofError.exit_code
    err = capsys.readouterr().err
    assert "model.safetensors" in err
    assert "Traceback" not in err


def test_ray_workers_give_what_this_process_gives(tmp_path):
    """Model, data and a training rung through Ray (it starts in 5 s)."""
    few = {"budget": {"trials": 8}}
    inline = start(study(tmp_path, **few))
    inline.run()
    pool = start(study(tmp_path, name="pool", workers={"count": 2}, **few))
    assert pool.run() is Ending.DONE
    told = [[(t.policy, t.rung, t.state, dict(t.measurement.metrics)) for t in s.records()] for s in (inline, pool)]
    assert told[0] == told[1]
    assert {rung for _, rung, _, _ in told[0]} == {0, 1}
