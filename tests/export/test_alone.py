"""One network in a process of its own: what it takes, and what is said when it cannot be had."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from export_bundles import write

from automc.core.metrics import METRICS
from automc.errors import ProofError
from automc.export.bundle.manifest import Manifest
from automc.export.formats import FORMATS
from automc.export.proof import alone as alone_module
from automc.export.proof import fresh as fresh_module
from automc.export.proof.alone import Alone, alone, main
from automc.export.proof.fresh import fresh
from automc.export.proof.promises import broken
from automc.export.proof.proving import Proof, verify

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("bundles") / "out", formats=("onnx",))


def test_a_process_loads_its_runtime_only_and_says_what_the_network_takes(made: Path) -> None:
    program = (
        "import sys; from automc.export.proof.alone import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "print(sorted({'torch', 'openvino', 'ray', 'pandas', 'sqlalchemy'} & set(sys.modules)), file=sys.stderr)"
    )
    command = [sys.executable, "-c", program, str(made), "onnx"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr.strip() == "[]"
    found = Alone.from_data(json.loads(done.stdout))
    assert found.likeness is not None
    assert found.likeness.agreement is not None
    assert found.likeness.agreement > 0.99
    assert found.load_ms > 0
    assert 10**6 < found.peak_bytes - found.idle_bytes < 5 * 10**8


def test_a_runtime_that_is_not_installed_is_said_and_breaks_nothing(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = replace(FORMATS["onnx"], needs=("onnxruntime", "no_such_runtime"))
    monkeypatch.setattr(alone_module, "FORMATS", {"onnx": absent})
    found = alone(made, "onnx")
    assert found == Alone(missing="no_such_runtime")
    proof = replace(verify(made, rounds=1, apart=False), networks={"onnx": found})
    assert list(broken(Manifest.read(made), proof)) == []


def test_what_cannot_be_measured_is_one_line(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(made), "tflite"]) == 2
    assert main([str(tmp_path), "onnx"]) == 7
    copy = Path(shutil.copytree(made, tmp_path / "copy"))
    (copy / "model.onnx").write_bytes(b"no model")
    assert main([str(copy), "onnx"]) == 7
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert said[2].endswith("model.onnx: not a readable ONNX file: DecodeError")
    with pytest.raises(ProofError, match=r"model\.onnx: not a readable ONNX file"):
        alone(copy, "onnx")


def test_a_process_that_ends_without_a_word_or_never_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ProofError, match=r"No module named automc\.nothing"):
        fresh("automc.nothing", tmp_path)
    with pytest.raises(ProofError, match="its proof ended with 0 and no word"):
        fresh("automc.errors", tmp_path)
    monkeypatch.setattr(fresh_module, "LIMIT_S", 0.01)
    with pytest.raises(ProofError, match="its proof took longer than 0 s"):
        fresh("automc.export.proof", tmp_path)


def test_a_proof_with_nan_survives_json(made: Path) -> None:
    proof = verify(made, rounds=1, apart=False)
    name = next(iter(proof.scores))
    assert METRICS[name].sampled
    strange = replace(proof, scores={**proof.scores, name: math.nan}, errors={name: math.inf})
    again = Proof.from_data(json.loads(json.dumps(strange.to_data(), allow_nan=False)))
    assert math.isnan(again.scores[name])
    assert again.races == proof.races
    assert again.networks == proof.networks
