"""The proof: it repeats the measurement from the folder alone, and no change of a file gets past it."""

from __future__ import annotations

import functools
import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from export_bundles import baseline, networks, promised, split, write
from export_nets import normalise
from hypothesis import given, settings
from hypothesis import strategies as st

from automc.errors import ProofError
from automc.export.bundle import manifest as names
from automc.export.bundle.manifest import Manifest, describe
from automc.export.bundle.normalisation import Normalisation
from automc.export.proof import proving as proofs
from automc.export.proof.proving import Proof, main, measure, verify, verify_fresh

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("bundles") / "out")


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def reseal(folder: Path, change: Callable[[dict], None] = lambda data: None) -> None:
    """Change a manifest as somebody would who knows how the seal is made; hashes of files are taken anew."""
    data = json.loads((folder / names.NAME).read_text())
    data.pop("seal")
    data["files"] = {path.name: describe(path) for path in folder.iterdir() if path.name != names.NAME}
    change(data)
    (folder / names.NAME).write_text(json.dumps({**data, "seal": names._seal(data)}))


def test_the_proof_measures_what_torch_measured(made: Path) -> None:
    start = time.perf_counter()
    proof = verify(made, apart=False)
    assert proof.passed
    assert proof.reasons == ()
    assert proof.scores["top1"] == pytest.approx(promised()["top1"], abs=0.005)
    assert proof.baseline_scores["top1"] == pytest.approx(baseline()["top1"], abs=1e-9)  # float: the same answers
    assert proof.scores["agreement"] == pytest.approx(promised()["agreement"], abs=0.005)
    assert proof.difference is None
    assert proof.size_bytes == (made / "model.safetensors").stat().st_size
    assert proof.merged == ()
    assert proof.compared == 12  # 4 weights, 4 biases, 2 rounded inputs of two numbers
    assert 0 < proof.latency.low <= proof.latency.median <= proof.latency.high
    assert proof.require() is proof
    assert time.perf_counter() - start < 60


def test_a_fresh_process_gives_the_same_proof_without_torch(made: Path) -> None:
    here, fresh = verify(made, rounds=1, apart=False), verify_fresh(made)
    same = ("passed", "reasons", "scores", "baseline_scores", "size_bytes", "baseline_bytes", "compared")
    assert [getattr(here, name) for name in same] == [getattr(fresh, name) for name in same]
    assert type(fresh.size_bytes) is int
    assert Proof.from_data(json.loads(json.dumps(fresh.to_data()))) == fresh
    program = (
        "import sys; from pathlib import Path; from automc.export.proof.proving import verify\n"
        "assert verify(Path(sys.argv[1]), rounds=1, apart=False).passed\n"
        "print(sorted({'torch', 'automc.operators', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(made)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_the_folder_may_move_and_be_read_only(copy: Path) -> None:
    for path in copy.iterdir():
        path.chmod(0o444)
    assert verify(copy, rounds=1, apart=False).passed


def edit(key: str, value: object, inside: str = "promised") -> Callable[[dict], None]:
    return lambda data: data[inside].update({key: value})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (edit("top1", 0.99), r"top1: promised 0\.99, measured 0\.\d+ \(tolerance 0\.005\d*\)"),
        (edit("agreement", 0.5), "agreement: promised 0.5"),
        (edit("top1", float("nan")), "top1: promised nan"),
        (edit("top1", 0.5, "original"), "top1 of the original: promised 0.5"),
        (edit("size_bytes", 1.0), "size_bytes: promised 1"),
        (edit("size_ratio", 0.2), "size_ratio: promised 0.2"),
        (lambda d: d.update(baseline_bytes=10**6), "size_ratio: promised"),
        (lambda d: d.update(constraints=["macs_ratio <= 0.3"]), "constraint macs_ratio <= 0.3 does not hold: 0.4"),
        (lambda d: d.update(constraints=["top1 >= 0.999"]), "constraint top1 >= 0.999 does not hold: 0.9"),
        (lambda d: d.update(constraints=["latency_ms <= 1e-6"]), "constraint latency_ms <= 1e-06 does not hold: 0.0"),
        (lambda d: d.update(constraints=["bops_ratio <= 1"]), "constraint bops_ratio <= 1 does not hold: not measured"),
    ],
)
def test_a_promise_that_is_not_kept_is_one_reason(copy: Path, change: Callable[[dict], None], reason: str) -> None:
    reseal(copy, change)
    proof = verify(copy, rounds=1, apart=False)
    assert not proof.passed
    assert len(proof.reasons) == 1
    with pytest.raises(ProofError, match=reason):
        proof.require()


def test_the_slack_of_a_constraint_is_the_tolerance(copy: Path) -> None:
    reseal(copy, lambda data: data.update(constraints=[f"top1 >= {promised()['top1'] + 0.004}"]))
    assert verify(copy, rounds=1, apart=False).passed
    reseal(copy, lambda data: data["tolerance"].clear())
    assert not verify(copy, rounds=1, apart=False).passed


def test_other_weights_than_the_packed_ones_are_found(copy: Path) -> None:
    proto = onnx.load(str(copy / "model.onnx"))
    (codes,) = (t for t in proto.graph.initializer if t.name == "conv3.weight.codes")
    array = onnx.numpy_helper.to_array(codes).copy()
    array.reshape(-1)[0] ^= 1  # one code of four bits is another
    codes.CopyFrom(onnx.numpy_helper.from_array(array, codes.name))
    onnx.save(proto, str(copy / "model.onnx"))
    reseal(copy)
    assert verify(copy, rounds=1, apart=False).reasons == ("weights: conv3.weight is not in model.onnx, bit by bit",)


def cut(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "policy.json").unlink(), "policy.json is missing"),
        (lambda f: (f / "MANIFEST.json").unlink(), "not an automc bundle: MANIFEST.json: No such file"),
        (cut("model.onnx"), r"model\.onnx has \d+ bytes, promised \d+"),
        (cut("MANIFEST.json"), "MANIFEST.json: not readable JSON"),
        (lambda f: (cut("model.onnx")(f), reseal(f)), "model.onnx: not a readable ONNX file: "),
        (lambda f: (cut("test.npz")(f), reseal(f)), "test.npz: not a test split: ValueError: BadZipFile"),
        (lambda f: (cut("model.safetensors")(f), reseal(f)), "not a whole packed file"),
        (
            lambda f: reseal(f, edit("../../etc/passwd", {"sha256": "", "bytes": 0}, "files")),
            "lists '../../etc/passwd', which",
        ),
        (
            lambda f: reseal(f, edit("a/model.onnx", {"sha256": "", "bytes": 0}, "files")),
            "lists 'a/model.onnx', which is no part",
        ),
        (lambda f: reseal(f, lambda d: d["files"].pop("test.npz")), "does not list test.npz"),
        (lambda f: reseal(f, lambda d: d.update(version=1)), "version 1, this automc reads 2: export the trial again"),
        (lambda f: reseal(f, lambda d: d.update(format="zip")), "not the manifest of an automc bundle"),
        (lambda f: reseal(f, lambda d: d.pop("promised")), "not a manifest: KeyError: 'promised'"),
        (lambda f: reseal(f, lambda d: d.update(surprise=1)), "not a manifest: TypeError"),
        (lambda f: reseal(f, lambda d: d.update(constraints=["top1 ~ 1"])), "constraint 'top1 ~ 1' must read"),
        (lambda f: reseal(f, lambda d: d.update(input_shape=[1, 9, 9])), r"\.onnx: ONNX Runtime cannot run it"),
        (lambda f: (f / "MANIFEST.json").write_text("[" * 10**5), "not readable JSON"),
    ],
)
def test_damage_is_an_error_in_one_line(copy: Path, damage: Callable[[Path], object], message: str, capfd) -> None:
    damage(copy)
    with pytest.raises(ProofError, match=message) as caught:
        verify(copy, rounds=1, apart=False)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProofError, match=r"not an automc bundle: MANIFEST\.json: No such file or directory"):
        verify_fresh(tmp_path / "absent")


def test_an_object_array_is_not_unpickled(copy: Path) -> None:
    np.savez(copy / "test.npz", inputs=np.array([print], dtype=object), targets=np.zeros(1))
    reseal(copy)
    with pytest.raises(ProofError, match=r"test\.npz: not a test split: ValueError: Object arrays cannot be loaded"):
        verify(copy, apart=False)


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_a_flipped_byte_anywhere_is_found_or_changes_nothing(made: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(path.name for path in made.iterdir())))
    content = (made / name).read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    flipped = bytearray(content)
    flipped[place] ^= data.draw(st.integers(1, 255))
    whole = Manifest.read(made)
    (made / name).write_bytes(bytes(flipped))
    try:
        found = Manifest.read(made)
        found.check_files(made)
    except ProofError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert (name, found) == (names.NAME, whole)  # white space of the manifest
    finally:
        (made / name).write_bytes(content)


def test_the_command_ends_with_seven_and_says_why(
    copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proofs, "verify", functools.partial(verify, rounds=1, apart=False))
    assert main([str(copy)]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["passed"] is True
    assert err == ""
    reseal(copy, lambda d: (d["promised"].update(top1=0.1), d.update(constraints=["macs_ratio <= 0.1"])))
    assert main([str(copy)]) == 7
    out, err = capsys.readouterr()
    assert len(json.loads(out)["reasons"]) == 2
    assert "top1: promised 0.1" in err
    assert "constraint macs_ratio" in err
    cut("model.onnx")(copy)
    assert main([str(copy)]) == 7
    assert "promised" in capsys.readouterr().err
    assert main([]) == 2


def test_answers_are_those_of_torch_on_pixels_too(tmp_path: Path) -> None:
    test = split()
    pixels = (test.inputs * 15).astype(np.uint8)
    shapes = Normalisation(240.0, (0.3,), (0.37,))
    assert shapes(pixels).dtype == np.float32
    assert np.abs(shapes(pixels) - normalise(test.inputs).numpy()).max() < 1e-6
    assert np.array_equal(Normalisation(2.0)(np.array([[4.0]])), [[2.0]])


def test_measured_metrics_carry_the_tables_names(made: Path) -> None:
    metrics = measure(made, Manifest.read(made), rounds=1, apart=False).metrics()
    scores = {"top1", "top5", "top1_worst_class", "loss", "agreement"}
    assert set(metrics) == {*scores, "latency_ms", "latency_ratio", "size_bytes", "size_ratio"}
    assert math.isclose(metrics["size_ratio"], promised()["size_ratio"])


def test_networks_are_left_as_they_were(made: Path) -> None:
    assert not any(layer.frozen for layer in networks()[0].modules() if hasattr(layer, "frozen"))
