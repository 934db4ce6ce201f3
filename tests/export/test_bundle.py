"""A bundle as a user gets it: what is in it, that it runs, and that it never appears half-written."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from export_bundles import EXAMPLE, networks, promised, split, write
from torch import nn

from automc.errors import ModelError, ProofError, SpecError
from automc.export import bundle, packed
from automc.export.manifest import Manifest, tolerance

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("bundles") / "out")


def test_the_manifest_says_what_the_files_are(made: Path) -> None:
    manifest = json.loads((made / "MANIFEST.json").read_text())
    names = {"model.onnx", "model.safetensors", "baseline.onnx", "policy.json", "test.npz", "README.md"}
    assert {path.name for path in made.iterdir()} == names | {"MANIFEST.json"}
    for name, wanted in manifest["files"].items():
        data = (made / name).read_bytes()
        assert wanted == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert set(manifest["files"]) == names
    model, original = networks()
    assert manifest["baseline_bytes"] == len(packed.dumps(original, EXAMPLE))
    assert (
        manifest["promised"]["size_bytes"]
        == len(packed.dumps(model, EXAMPLE))
        == manifest["files"]["model.safetensors"]["bytes"]
    )
    assert manifest["facts"]["versions"]["torch"] == torch.__version__
    assert (manifest["facts"]["study"], manifest["facts"]["trial"]) == ("digits", 7)
    assert manifest["input_shape"] == [1, 8, 8]
    shares = {"latency": 0.25, "outputs": 0.01}
    assert manifest["tolerance"] == {"top1": 0.005, "agreement": 0.005, **shares}
    assert manifest["task"] == {"name": "classification", "settings": {}}
    assert tolerance({"top1": 0.5, "macs": 9.0}, 100) == {"top1": 0.02, **shares}
    assert tolerance({"top1_worst_class": 0.5, "loss": 2.0}, 1000, 50) == {
        "top1_worst_class": 0.04,
        "loss": 0.02,
        **shares,
    }


def test_policy_and_test_split_are_readable(made: Path) -> None:
    policy = json.loads((made / "policy.json").read_text())
    assert policy["policy"] == {"quantize": {"conv1": {"weight_bits": 4}}}
    assert policy["realized"] == {"conv1": {"weight_bits": 4}}
    with np.load(made / "test.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["inputs"], split().inputs)
        assert np.array_equal(arrays["targets"], split().targets)


def test_the_cards_program_runs_with_numpy_and_onnxruntime_alone(made: Path) -> None:
    card = (made / "README.md").read_text()
    program = card.split("```python\n")[1].split("```")[0]
    assert len([line for line in program.splitlines() if line.strip()]) <= 12
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=made, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    name, value = done.stdout.split()
    test = split()
    with torch.no_grad():
        ours = networks()[0](torch.from_numpy(test.normalisation(test.inputs[:100]))).argmax(1).numpy()
    assert name == "top1"
    assert float(value) == pytest.approx((ours == test.targets[:100]).mean(), abs=0.02)  # two inputs of 100
    assert f"| stored bytes | {len(packed.dumps(networks()[1], EXAMPLE)):,} | {promised()['size_bytes']:,.0f} |" in card
    assert "| MACs | 1,000 | 400 | 0.400 |" in card


def test_it_says_nothing_of_this_machines_folders(made: Path) -> None:
    home = str(Path(bundle.__file__).parents[2]).encode()
    assert [path.name for path in made.iterdir() if home in path.read_bytes()] == []


def test_an_older_bundle_is_replaced_and_other_folders_are_not(tmp_path: Path) -> None:
    out = write(tmp_path / "deep" / "out")
    first = Manifest.read(out)
    (tmp_path / "deep" / "out" / "leftover.txt").write_text("of the old one")
    write(out, facts={"trial": 8})
    assert Manifest.read(out).facts["trial"] == 8 != first.facts["trial"]
    assert not (out / "leftover.txt").exists()
    assert [path.name for path in out.parent.iterdir()] == ["out"]

    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.txt").write_text("all I have")
    with pytest.raises(SpecError, match="holds something that is no automc bundle; give a new or empty folder"):
        write(other)
    (tmp_path / "file").write_text("x")
    with pytest.raises(SpecError, match="holds something that is no automc bundle"):
        write(tmp_path / "file")
    assert (other / "thesis.txt").read_text() == "all I have"


def test_a_failure_leaves_the_old_bundle_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = write(tmp_path / "out")
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(SpecError, match="out: cannot be written: No space left on device"):
        write(out)
    monkeypatch.undo()

    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no forward")

    with pytest.raises(ModelError, match="no forward"):
        write(out, model=Broken())
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_without_safetensors(tmp_path: Path) -> None:
    out = write(tmp_path / "out", formats=("onnx",))
    assert not (out / "model.safetensors").exists()
    assert "stored bytes" not in (out / "README.md").read_text()


def test_when_the_last_step_fails_the_old_bundle_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = write(tmp_path / "out")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if target == out and not self.name.endswith(".old"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(SpecError, match="out: cannot be written: Input/output error"):
        write(out, facts={"trial": 9})
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"formats": ("safetensors",)}, "formats are onnx"),
        ({"formats": ("onnx", "tflite")}, "not onnx, tflite"),
        ({"facts": {"metrics": {"top1": 1.0}}}, "must promise size_bytes"),
        ({"facts": {"spec": object()}}, "must be plain data"),
        ({"facts": {"realized": {"conv1": object()}}}, "must be plain data"),
        ({"facts": {"metrics": {"top1": float("nan"), "size_bytes": 1.0}}}, "without NaN"),
        ({"test": bundle.TestSplit(np.zeros((2, 1, 9, 8)), np.zeros(2, np.int64))}, r"shape \(1, 8, 8\)"),
        ({"test": bundle.TestSplit(np.zeros((0, 1, 8, 8)), np.zeros(0, np.int64))}, "one label for each"),
    ],
)
def test_arguments_that_break_a_rule(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        write(tmp_path / "out", **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_compressed_weight_that_the_exporter_changed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def halved(model: nn.Module, example: torch.Tensor, path: Path, **_: object) -> None:
        model = bundle_bake(model, example)
        model.conv1.weight.data *= 0.5
        original(model, example, path)

    from automc.export.bake import bake as bundle_bake

    original = bundle.write_onnx
    monkeypatch.setattr(bundle, "write_onnx", halved)
    with pytest.raises(ProofError, match=r"changed the compressed weight conv1\.weight"):
        write(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
