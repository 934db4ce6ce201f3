"""A bundle as a user gets it: what is in it, that it runs, and that it never appears half-written."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from export_bundles import EXAMPLE, networks, promised, split, write
from torch import nn

from automc.errors import ModelError, ProofError, SpecError
from automc.export import packed
from automc.export.bundle import writing as bundle
from automc.export.bundle.manifest import Manifest, tolerance
from automc.export.onnx import writing as onnx_file
from automc.export.proof.promises import broken
from automc.export.proof.proving import Proof, verify, verify_fresh

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("bundles") / "out", prove=verify_fresh)


def test_the_manifest_says_what_the_files_are(made: Path) -> None:
    manifest = json.loads((made / "MANIFEST.json").read_text())
    names = {"model.onnx", "model.safetensors", "graph.json", "baseline.onnx", "policy.json", "test.npz", "README.md"}
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
    shares = {"latency": 0.25, "latency_ratio": 0.05, "outputs": 0.01, "matches": 0.02}
    half = {name: 0.5 * math.sqrt(p * (1 - p) / len(split().inputs)) for name, p in promised().items() if p <= 1}
    assert manifest["tolerance"] == {name: max(0.005, half[name]) for name in ("top1", "agreement")} | shares
    assert manifest["task"] == {"name": "classification", "settings": {}}
    assert tolerance({"top1": 0.5, "macs": 9.0}, 100) == {"top1": 0.025, **shares}
    assert tolerance({}, 50) == shares | {"matches": 0.04}  # two inputs
    assert tolerance({"loss": 0.01, "mse": 0.01}, 1000) == {"loss": 0.005, "mse": 0.0002, **shares}
    assert tolerance({"top1_worst_class": 0.5, "loss": 2.0}, 1000, 50) == {
        "top1_worst_class": 0.04,  # two inputs of 50
        "loss": 0.04,
        **shares,
    }


def test_policy_and_test_split_are_readable(made: Path) -> None:
    policy = json.loads((made / "policy.json").read_text())
    assert policy["policy"] == {"quantize": {"conv1": {"weight_bits": 4}}}
    assert policy["realized"] == {"conv1": {"weight_bits": 4}}
    with np.load(made / "test.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["inputs"], split().inputs)
        assert np.array_equal(arrays["targets"], split().targets)


ALONE = """
import sys
sys.path[:] = [each for each in sys.path if each and "/site-packages" not in each] + [sys.argv[2]]
sys.modules["torch"] = sys.modules["automc"] = None  # importing them fails
exec(compile(open(sys.argv[1]).read(), "card", "exec"))
print(sorted(name for name in ("torch", "automc", "onnx") if sys.modules.get(name)))
"""


def test_the_cards_program_runs_with_numpy_and_onnxruntime_alone(made: Path, tmp_path: Path) -> None:
    card = (made / "README.md").read_text()
    program = card.split("```python\n")[1].split("```")[0]
    assert len([line for line in program.splitlines() if line.strip()]) <= 12
    (tmp_path / "card.py").write_text(program)
    packages = str(Path(np.__file__).parents[1])
    command = [sys.executable, "-S", "-c", ALONE, str(tmp_path / "card.py"), packages]
    done = subprocess.run(command, cwd=made, capture_output=True, text=True, timeout=60, check=False, env={})
    assert done.returncode == 0, done.stderr
    answer, loaded = done.stdout.splitlines()
    name, value = answer.split()
    manifest = json.loads((made / "MANIFEST.json").read_text())
    assert name == "top1"
    assert float(value) == manifest["proof"]["scores"]["top1"]
    assert float(value) == pytest.approx(manifest["promised"]["top1"], abs=manifest["tolerance"]["top1"])
    assert loaded == "[]"


def test_the_card_says_what_the_proof_measured(made: Path) -> None:
    card, manifest = (made / "README.md").read_text(), Manifest.read(made)
    proof = Proof.from_data(manifest.proof)
    assert proof.passed
    assert f"| stored bytes | {len(packed.dumps(networks()[1], EXAMPLE)):,} | {promised()['size_bytes']:,.0f} |" in card
    assert "| MACs | 1,000 | 400 | 0.400 |" in card
    assert f"{proof.scores['top1']:.4f} ± {proof.errors['top1']:.4f}" in card
    assert [each.batch for each in proof.races] == [1, 8]
    for each in proof.races:
        assert f"{each.ratio.median:.3f} ({each.ratio.low:.3f} to {each.ratio.high:.3f}) |" in card
    assert set(proof.networks) == {"onnx", "packed", "baseline"}
    for each in proof.networks.values():
        assert 10**7 < each.idle_bytes < each.peak_bytes < 10**9
        assert 0 < each.load_ms < 10_000
    assert "| layer | kind | weight bits | share | stored | runs |\n" in card
    assert re.search(r"\| conv1 \| conv \| 4 \| 25.0% \| .*(int8|4-bit).* \| (int8|float) \|\n", card)
    rest = {"README.md", "MANIFEST.json"}  # written when the proof is known
    assert proof.files == {path.name: path.stat().st_size for path in made.iterdir() if path.name not in rest}


def test_outputs_of_the_searched_network_are_stored_and_compared(made: Path, tmp_path: Path) -> None:
    test = split()
    with np.load(made / "test.npz") as arrays:
        stored = arrays["outputs.output"]
    with torch.no_grad():
        assert np.array_equal(stored, networks()[0](torch.from_numpy(test.normalisation(test.inputs))).numpy())
    session = onnxruntime.InferenceSession(str(made / "model.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"input": test.normalisation(test.inputs)})
    near = Proof.from_data(Manifest.read(made).proof).likeness
    assert near is not None
    assert near.inputs == len(test.inputs)
    assert near.agreement == pytest.approx((found.argmax(1) == stored.argmax(1)).mean())
    assert near.max_difference == pytest.approx(np.abs(found - stored).max(), rel=1e-3, abs=1e-6)
    assert near.mean_difference == pytest.approx(np.abs(found - stored).mean(), rel=1e-3, abs=1e-6)
    other = dataclasses.replace(test, outputs={"output": -test.outputs["output"]})
    out = write(tmp_path / "out", test=other)
    assert out == tmp_path / "rejected" / "out"
    assert (
        "agreement of onnx with the searched network: promised 1, measured 0 (tolerance 0.02)"
        in (out / "REASON.txt").read_text()
    )


def test_what_does_not_keep_its_promise_is_written_beside_with_the_reason(tmp_path: Path) -> None:
    good = write(tmp_path / "out")
    before = {path.name: path.read_bytes() for path in good.iterdir()}
    bad = write(tmp_path / "out", facts={"constraints": ["macs_ratio <= 0.1"], "trial": 8})
    reason = "constraint macs_ratio <= 0.1 does not hold: 0.4"
    assert bad == tmp_path / "rejected" / "out"
    assert (bad / "REASON.txt").read_text() == reason + "\n"
    assert f"**Rejected**: {reason}" in (bad / "README.md").read_text()
    assert Manifest.read(bad).proof["reasons"] == [reason]
    assert verify(bad, rounds=1, apart=False).reasons == (reason,)
    assert {path.name: path.read_bytes() for path in good.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "rejected"]


def test_slower_than_the_search_promised_is_rejected_on_that_machine(tmp_path: Path) -> None:
    slow = {"metrics": {**promised(), "latency_ratio": 1e-6}}
    out = write(tmp_path / "out", facts=slow)
    assert out == tmp_path / "rejected" / "out"
    assert (out / "REASON.txt").read_text().startswith("latency_ratio: slower than promised: 1e-06 in the search, now ")
    manifest = Manifest.read(out)
    proof = verify(out, rounds=20, apart=False)
    assert not proof.passed
    elsewhere = dataclasses.replace(proof, machine={**proof.machine, "processor": "another"})
    assert list(broken(manifest, elsewhere)) == []
    fast = dataclasses.replace(
        manifest, promised={**manifest.promised, "latency_ratio": proof.races[0].ratio.low / 1.04}
    )
    assert list(broken(fast, proof)) == []


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


def test_without_the_packed_file(tmp_path: Path) -> None:
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
        ({"formats": ("packed",)}, "always with onnx, which the proof measures; not packed"),
        ({"formats": ("onnx", "tflite")}, "not onnx, tflite"),
        ({"formats": ("onnx", "safetensors")}, "'safetensors' is called 'packed': write --format onnx,packed"),
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

    from automc.export.baking.bake import bake as bundle_bake

    original = onnx_file.write_onnx
    monkeypatch.setattr(onnx_file, "write_onnx", halved)
    with pytest.raises(ProofError, match=r"changed the compressed weight conv1\.weight"):
        write(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
