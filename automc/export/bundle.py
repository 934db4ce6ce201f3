"""A bundle: the folder a user takes away, with all that is needed to run the network and to check the promise."""

from __future__ import annotations

import json
import os
import platform
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from automc.core.policy import Policy
from automc.errors import ProofError, SpecError
from automc.export import manifest as names
from automc.export import packed, proof
from automc.export.card import card
from automc.export.judged import OUTPUT
from automc.export.manifest import Manifest, describe, read_data
from automc.export.onnx_file import write_onnx
from automc.export.runtime import Normalisation

FORMATS = ("onnx", "safetensors")
PACKAGES = ("automc", "torch", "numpy", "onnx", "onnxruntime", "safetensors")


@dataclass(frozen=True)
class TestSplit:
    """The inputs a bundle is proved on.

    Attributes:
        inputs: raw uint8, float32 or int64 (tokens), shape (n, ...). targets: shape (n, ...), (n, 0) without labels.
        normalisation: what the network's inputs are made from them with.
        outputs: what the compressed network answers in torch, by name, for a task that automc has no judge for.
    """

    __test__ = False  # no test class of pytest's

    inputs: NDArray[Any]
    targets: NDArray[Any]
    normalisation: Normalisation = field(default_factory=Normalisation)
    outputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def write_bundle(
    folder: Path,
    *,
    model: nn.Module,
    baseline_model: nn.Module,
    example: Tensor,
    test: TestSplit,
    policy: Policy,
    facts: Mapping[str, Any],
    formats: Sequence[str] = FORMATS,
) -> Path:
    """Write a bundle, measure it, and put it in the place of an older one in a single step.

    Args:
        folder: new, empty, or an older bundle.
        model, baseline_model: the compressed and the original network, not baked yet; neither is changed.
        example: normalised inputs, shape (n, ...).
        facts: ``metrics`` (required: size_bytes; those of the task, measured on the test split) is the promise;
            ``baseline`` the same metrics of the original; ``task`` the judge (classification), see Manifest;
            ``constraints`` texts; ``realized`` and ``layers`` go into policy.json; all others (study, trial, spec,
            ...) into the manifest as they are.
        formats: of FORMATS; onnx must be among them, because the proof runs it.

    Returns:
        The folder.

    Raises:
        SpecError: the folder holds something else or cannot be written, or an argument breaks a rule above.
        ModelError: a network cannot be written.
        ProofError: a compressed weight is not in the ONNX file bit by bit.
    """
    folder = Path(folder)
    _check(folder, facts, formats, example, test)
    part = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}"
    try:
        part.mkdir(parents=True)
        baseline_bytes = _write_networks(part, model, baseline_model, example, "safetensors" in formats)
        _write_rest(part, test, policy, facts)
        manifest = _manifest(part, example, test, facts, baseline_bytes)
        measured = proof.measure(part, manifest)
        manifest = _note_merged(manifest, measured, part)
        (part / names.CARD).write_text(card(manifest, measured), encoding="utf-8")
        sealed = replace(manifest, files=_described(part)).to_json()
        (part / names.NAME).write_text(sealed, encoding="utf-8")
        _swap(part, folder)
    except OSError as error:
        raise SpecError(f"bundle {folder}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _check(folder: Path, facts: Mapping[str, Any], formats: Sequence[str], example: Tensor, test: TestSplit) -> None:
    if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or _is_bundle(folder))):
        raise SpecError(f"bundle {folder}: holds something that is no automc bundle; give a new or empty folder")
    if "onnx" not in formats or not set(formats) <= set(FORMATS):
        raise SpecError(
            f"bundle: formats are onnx, which the proof runs, with or without safetensors, not {', '.join(formats)}"
        )
    if "size_bytes" not in facts.get("metrics", ()):
        raise SpecError("bundle: facts['metrics'] must promise size_bytes")
    if facts.get("task", "") is None and not test.outputs:
        raise SpecError("bundle: a task without a judge needs the outputs for the test split")
    if not len(test.targets) or test.inputs.shape[1:] != example.shape[1:] or len(test.inputs) != len(test.targets):
        raise SpecError(
            f"bundle: needs one label for each test input of shape {tuple(example.shape[1:])}, "
            f"not inputs {test.inputs.shape} and targets {test.targets.shape}"
        )


def _is_bundle(folder: Path) -> bool:
    try:
        return bool(read_data(folder))
    except ProofError:
        return False


def _write_networks(part: Path, model: nn.Module, baseline_model: nn.Module, example: Tensor, with_packed: bool) -> int:
    """The ONNX files and the packed one; the length that the original network's packed file would have."""
    write_onnx(model, example, part / names.MODEL)
    write_onnx(baseline_model, example, part / names.BASELINE)
    if with_packed:
        (part / names.PACKED).write_bytes(packed.dumps(model, example))
    return len(packed.dumps(baseline_model, example))


def _write_rest(part: Path, test: TestSplit, policy: Policy, facts: Mapping[str, Any]) -> None:
    done = {"policy": json.loads(policy.to_json()), "fingerprint": policy.fingerprint}
    done |= {"realized": facts.get("realized", {}), "layers": facts.get("layers", {})}
    (part / names.POLICY).write_text(_json(done), encoding="utf-8")
    outputs = {f"{OUTPUT}{name}": each for name, each in test.outputs.items()}
    np.savez_compressed(part / names.TEST, inputs=test.inputs, targets=test.targets, **outputs)  # type: ignore[arg-type]


def _manifest(part: Path, example: Tensor, test: TestSplit, facts: Mapping[str, Any], baseline_bytes: int) -> Manifest:
    """The manifest of the files written so far."""
    used = ("metrics", "baseline", "constraints", "realized", "layers", "task")
    one_class = test.targets.ndim == 1 and test.targets.dtype.kind == "i"
    fewest = int(np.unique(test.targets, return_counts=True)[1].min()) if one_class else 0
    task = {"task": facts["task"]} if "task" in facts else {}
    return Manifest(
        files=_described(part),
        normalisation=test.normalisation,
        input_shape=tuple(example.shape[1:]),
        promised=dict(facts["metrics"]),
        original=dict(facts.get("baseline", {})),
        baseline_bytes=baseline_bytes,
        tolerance=names.tolerance(facts["metrics"], len(test.targets), fewest),
        constraints=tuple(str(constraint) for constraint in facts.get("constraints", ())),
        facts={
            "versions": {name: metadata.version(name) for name in PACKAGES},
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
            **{name: value for name, value in facts.items() if name not in used},
        },
        **task,
    )


def _described(part: Path) -> dict[str, dict[str, Any]]:
    return {path.name: describe(path) for path in sorted(part.iterdir())}


def _note_merged(manifest: Manifest, measured: proof.Proof, part: Path) -> Manifest:
    """Float arrays may be changed by the exporter (merged into others); compressed weights may not."""
    if names.PACKED in manifest.files:
        compressed = packed.compressed_weights((part / names.PACKED).read_bytes())
        lost = [name for name in compressed if name in measured.merged]
        if lost:
            raise ProofError(f"bundle: the ONNX exporter changed the compressed weight {lost[0]}")
    return replace(manifest, merged=measured.merged)


def _swap(part: Path, folder: Path) -> None:
    """Put the finished folder in its place; an older bundle is moved aside first and removed last."""
    old = part.with_name(part.name + ".old")
    if folder.exists():
        folder.rename(old)
    try:
        part.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _json(data: Any) -> str:
    try:
        return json.dumps(data, indent=2, sort_keys=True, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise SpecError(f"bundle: facts must be plain data without NaN: {error}") from error
