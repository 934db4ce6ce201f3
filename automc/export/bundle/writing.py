"""A bundle: the folder a user takes away, with all that is needed to run the network and to check the promise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from automc.core.machine import machine
from automc.core.policy import Policy
from automc.errors import ProofError, SpecError
from automc.export import packed
from automc.export.bundle import manifest as names
from automc.export.bundle import placing
from automc.export.bundle.card import card
from automc.export.bundle.manifest import Manifest, describe
from automc.export.bundle.normalisation import Normalisation
from automc.export.formats import DEFAULT, MODEL, PACKED, Format, Source, formats_named
from automc.export.onnx.layer_table import layer_table, sums
from automc.export.onnx.writing import OPSET, write_onnx
from automc.export.proof.judged import OUTPUT
from automc.export.proof.proving import Proof, verify_fresh

STORED_BYTES = 4 * 2**20
"""Of outputs of the searched network, that are stored for comparison."""

PACKAGES = ("automc", "torch", "numpy", "onnx", "onnxruntime", "safetensors")


@dataclass(frozen=True)
class TestSplit:
    """The inputs a bundle is proved on.

    Attributes:
        inputs: raw uint8, float32 or int64 (tokens), shape (n, ...). targets: shape (n, ...), (n, 0) without labels.
        normalisation: what the network's inputs are made from them with.
        outputs: what the compressed network answers in torch, by name, shape (n, ...); of a task that automc has a
            judge for only the first rows are stored, as many as STORED_BYTES hold.
    """

    __test__ = False  # no test class of pytest's

    inputs: NDArray[Any]
    targets: NDArray[Any]
    normalisation: Normalisation = field(default_factory=Normalisation)
    outputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)


class Written(NamedTuple):
    """Where a bundle is, and its proof: in the folder asked for, or, where the proof did not pass, in ``rejected/``
    beside it.
    """

    folder: Path
    proof: Proof


def write_bundle(
    folder: Path,
    *,
    model: nn.Module,
    baseline_model: nn.Module,
    example: Tensor,
    test: TestSplit,
    policy: Policy,
    facts: Mapping[str, Any],
    formats: Sequence[str] = DEFAULT,
    batches: Sequence[int] = (1,),
    prove: Callable[[Path], Proof] = verify_fresh,
) -> Written:
    """Write a bundle, prove it in a fresh process, and put it in the place of an older one in a single step.

    Args:
        folder: new, empty, or an older bundle.
        model, baseline_model: the compressed and the original network, not baked yet; neither is changed.
        example: normalised inputs, shape (n, ...).
        facts: ``metrics`` (required: size_bytes; those of the task, measured on the test split) is the promise;
            ``baseline`` the same metrics of the original; ``task`` the judge (classification), see Manifest;
            ``constraints`` texts; ``rows`` one for each layer, by ``layer``; ``realized`` and ``layers`` go into
            policy.json; all others (study, trial, spec, ...) into the manifest as they are.
        formats: names of ``formats.FORMATS``; onnx must be among them, because the proof runs it.
        batches: inputs of one timed run, the study's first. prove: measures the folder.

    Raises:
        SpecError: the folder holds something else or cannot be written, or an argument breaks a rule above.
        ModelError: a network cannot be written.
        ProofError: a compressed weight is not in the ONNX file bit by bit, or the bundle cannot be measured.
    """
    folder = Path(folder)
    chosen = formats_named(formats)
    refused = placing.rejected(folder)
    placing.require_free(folder, refused)
    _check(facts, example, test)
    part = placing.beside(folder)
    try:
        part.mkdir(parents=True)
        baseline_bytes = _write_networks(part, chosen, Source(model, example), baseline_model)
        _write_rest(part, test, policy, facts)
        (part / names.CARD).write_text("Not proved yet.\n", encoding="utf-8")
        manifest = _manifest(part, example, test, facts, baseline_bytes, batches)
        manifest = _sealed(part, replace(manifest, merged=_merged(part, chosen)))
        proof = _proved(prove, part, folder)
        (part / names.CARD).write_text(card(manifest, proof), encoding="utf-8")
        if not proof.passed:
            (part / names.REASON).write_text("".join(f"{each}\n" for each in proof.reasons), encoding="utf-8")
        _sealed(part, replace(manifest, proof=proof.to_data()))
        place = folder if proof.passed else refused
        place.parent.mkdir(parents=True, exist_ok=True)
        placing.swap(part, place)
    except OSError as error:
        raise SpecError(f"bundle {folder}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Written(place, proof)


def _check(facts: Mapping[str, Any], example: Tensor, test: TestSplit) -> None:
    if "size_bytes" not in facts.get("metrics", ()):
        raise SpecError("bundle: facts['metrics'] must promise size_bytes")
    if facts.get("task", "") is None and not test.outputs:
        raise SpecError("bundle: a task without a judge needs the outputs for the test split")
    if not len(test.targets) or test.inputs.shape[1:] != example.shape[1:] or len(test.inputs) != len(test.targets):
        raise SpecError(
            f"bundle: needs one label for each test input of shape {tuple(example.shape[1:])}, "
            f"not inputs {test.inputs.shape} and targets {test.targets.shape}"
        )


def _write_networks(part: Path, formats: Sequence[Format], source: Source, baseline_model: nn.Module) -> int:
    """The files of all formats, and the original network; the length that its packed file would have."""
    for each in formats:
        each.write(part, source)
    write_onnx(baseline_model, source.example, part / names.BASELINE)
    return len(packed.dumps(baseline_model, source.example))


def _write_rest(part: Path, test: TestSplit, policy: Policy, facts: Mapping[str, Any]) -> None:
    done = {"policy": json.loads(policy.to_json()), "fingerprint": policy.fingerprint}
    done |= {"realized": facts.get("realized", {}), "layers": facts.get("layers", {})}
    (part / names.POLICY).write_text(_json(done), encoding="utf-8")
    size = sum(each.nbytes for each in test.outputs.values()) / len(test.inputs)
    rows = len(test.inputs) if facts.get("task", "") is None else int(STORED_BYTES / max(size, 1.0)) or 1
    outputs = {f"{OUTPUT}{name}": each[:rows] for name, each in test.outputs.items()}
    np.savez_compressed(part / names.TEST, inputs=test.inputs, targets=test.targets, **outputs)  # type: ignore[arg-type]


def _manifest(
    part: Path,
    example: Tensor,
    test: TestSplit,
    facts: Mapping[str, Any],
    baseline_bytes: int,
    batches: Sequence[int],
) -> Manifest:
    """The manifest of the files written so far."""
    used = ("metrics", "baseline", "constraints", "realized", "layers", "task", "rows")
    one_class = test.targets.ndim == 1 and test.targets.dtype.kind == "i"
    fewest = int(np.unique(test.targets, return_counts=True)[1].min()) if one_class else 0
    task = {"task": facts["task"]} if "task" in facts else {}
    return Manifest(
        files=_described(part),
        normalisation=test.normalisation,
        input_shape=tuple(example.shape[1:]),
        whole=test.inputs.dtype.kind == "i" and not test.normalisation.mean,
        batches=tuple(dict.fromkeys(map(int, batches))),
        promised=dict(facts["metrics"]),
        original=dict(facts.get("baseline", {})),
        baseline_bytes=baseline_bytes,
        tolerance=names.tolerance(facts["metrics"], len(test.targets), fewest),
        layers=_layers(part, facts.get("rows", ())),
        constraints=tuple(str(constraint) for constraint in facts.get("constraints", ())),
        facts={
            "versions": {name: metadata.version(name) for name in PACKAGES},
            "machine": machine(),
            "opset": OPSET,
            "sums": sums(part / MODEL),
            **{name: value for name, value in facts.items() if name not in used},
        },
        **task,
    )


def _described(part: Path) -> dict[str, dict[str, Any]]:
    return {path.name: describe(path) for path in sorted(part.iterdir())}


def _proved(prove: Callable[[Path], Proof], part: Path, folder: Path) -> Proof:
    try:
        return prove(part)
    except ProofError as error:
        raise ProofError(str(error).replace(str(part), str(folder))) from error


def _layers(part: Path, rows: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """The layer table, with what the ONNX file stores of a layer and how ONNX Runtime computes it here."""
    found = {row.layer: row for row in layer_table(part / MODEL)}

    def told(row: Mapping[str, Any]) -> Mapping[str, Any]:
        own = found.get(row["layer"])
        return {**row, "stored": own.stored if own else "float32", "runs": own.runs if own else "float"}

    return tuple(map(told, rows))


def _merged(part: Path, formats: Sequence[Format]) -> tuple[str, ...]:
    """Float arrays may be changed by the exporter (merged into others); compressed weights may not."""
    merged = tuple(name for each in formats if each.comparer for name in each.compare(part).others)
    if (part / PACKED).is_file():
        lost = [name for name in packed.compressed_weights((part / PACKED).read_bytes()) if name in merged]
        if lost:
            raise ProofError(f"bundle: the ONNX exporter changed the compressed weight {lost[0]}")
    return merged


def _sealed(part: Path, manifest: Manifest) -> Manifest:
    """Write the manifest with the digests of all other files."""
    (part / names.NAME).unlink(missing_ok=True)
    manifest = replace(manifest, files=_described(part))
    (part / names.NAME).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def _json(data: Any) -> str:
    try:
        return json.dumps(data, indent=2, sort_keys=True, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise SpecError(f"bundle: facts must be plain data without NaN: {error}") from error
