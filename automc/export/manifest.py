"""MANIFEST.json: what a bundle holds and promises, under a seal. Loads no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from automc.core.judges import Judge, judge_named
from automc.core.metrics import METRICS, Constraint
from automc.errors import ProofError, SpecError
from automc.export.runtime import Normalisation

NAME = "MANIFEST.json"
FORMAT = "automc-bundle"
VERSION = 1

MODEL, PACKED, BASELINE = "model.onnx", "model.safetensors", "baseline.onnx"
POLICY, TEST, CARD = "policy.json", "test.npz", "README.md"
REQUIRED = (MODEL, BASELINE, POLICY, TEST, CARD)
OPTIONAL = (PACKED,)

SHARE, VALUE, LATENCY, OUTPUTS = 0.005, 0.01, 0.25, 0.01
"""How far a proof may be from the promise, since torch and ONNX Runtime add in another order and a rounded input may
then move a step. Of metrics in ratios (top1): absolute. Of others (loss) and of outputs: relative. Of latency:
relative, since machines are busy."""


def tolerance(promised: Mapping[str, float], inputs: int, fewest: int = 0) -> dict[str, float]:
    """By metric of the task, how far a proof may be from the promise, in its unit; for latency and outputs the share.

    Args:
        inputs: of the test split; two of them may always be answered otherwise. fewest: of one class, which is what
            ``top1_worst_class`` may be measured on; all when 0.
    """
    found = {"latency": LATENCY, "outputs": OUTPUTS}
    for name in promised.keys() & {name for name, metric in METRICS.items() if metric.sampled}:
        few = fewest or inputs if name == "top1_worst_class" else inputs
        found[name] = max(SHARE, 2 / few) if METRICS[name].unit == "ratio" else VALUE * abs(promised[name])
    return found


@dataclass(frozen=True)
class Manifest:
    """What a bundle holds and promises.

    Attributes:
        files: SHA-256 and bytes of each file by name.
        normalisation: how raw test inputs become the network's. input_shape: of one input, without the batch axis.
        promised: metrics of the compressed network, measured on the test split in torch.
        original: the same metrics of the original network.
        baseline_bytes: length of the original network's packed file.
        constraints: what the study demands, as text such as ``"macs_ratio <= 0.5"``.
        task: name and settings of the judge that measures the task's metrics (core/judges); None where automc has
            none for it: then the outputs must be those that are stored with the test split.
        tolerance: see ``tolerance``; 0 where a name is missing.
        merged: arrays of the packed file that the ONNX exporter changed, which therefore cannot be compared.
        facts: study, trial, versions, machine, spec: whatever else is worth knowing, as plain data.
    """

    files: Mapping[str, Mapping[str, Any]]
    normalisation: Normalisation
    input_shape: tuple[int, ...]
    promised: Mapping[str, float]
    original: Mapping[str, float]
    baseline_bytes: int
    constraints: tuple[str, ...] = ()
    tolerance: Mapping[str, float] = field(default_factory=dict)
    merged: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    task: Mapping[str, Any] | None = field(default_factory=lambda: {"name": "classification", "settings": {}})

    def judge(self) -> Judge | None:
        """What measures the task's metrics, where automc has it."""
        return None if self.task is None else judge_named(self.task["name"], self.task["settings"])

    def limits(self) -> Sequence[Constraint]:
        """The constraints, parsed."""
        return [Constraint.parse(text) for text in self.constraints]

    def to_json(self) -> str:
        """Readable JSON with a seal: the SHA-256 of everything else in it.

        Raises:
            SpecError: a value that JSON cannot hold, NaN and infinity included.
        """
        data = {"format": FORMAT, "version": VERSION, **asdict(self)}
        try:
            return json.dumps({**data, "seal": _seal(data)}, indent=2, sort_keys=True, allow_nan=False) + "\n"
        except (TypeError, ValueError) as error:
            raise SpecError(f"bundle: facts must be plain data without NaN: {error}") from error

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a bundle.

        Raises:
            ProofError: no such folder or file, broken JSON or seal, another version, a file name that is no part of a
                bundle (so no path leads out of the folder), a required file missing from the list.
        """
        data = read_data(folder)
        where = folder / NAME
        if data.get("version") != VERSION:
            raise ProofError(f"{where}: version {data.get('version')!r}, this automc reads {VERSION}")
        seal = data.pop("seal", None)
        if seal != _seal(data):
            raise ProofError(f"{where}: its seal is broken: the file was changed after it was written")
        try:
            found = cls._from(data)
            found.limits()
            found.judge()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ProofError(f"{where}: not a manifest: {type(error).__name__}: {error}".splitlines()[0]) from error
        strange = sorted(set(found.files) - {*REQUIRED, *OPTIONAL})
        absent = sorted(set(REQUIRED) - set(found.files))
        if strange or absent:
            listed = f"lists {strange[0]!r}, which is no part of a bundle" if strange else f"does not list {absent[0]}"
            raise ProofError(f"{where}: {listed}")
        return found

    @classmethod
    def _from(cls, data: Mapping[str, Any]) -> Manifest:
        scale, mean, std = (data["normalisation"][key] for key in ("scale", "mean", "std"))
        fields = {key: value for key, value in data.items() if key not in ("format", "version")}
        return cls(
            **{
                **fields,
                "files": {
                    str(name): {"sha256": str(f["sha256"]), "bytes": int(f["bytes"])}
                    for name, f in data["files"].items()
                },
                "normalisation": Normalisation(float(scale), tuple(map(float, mean)), tuple(map(float, std))),
                "input_shape": tuple(map(int, data["input_shape"])),
                "promised": _numbers(data["promised"]),
                "original": _numbers(data["original"]),
                "tolerance": {"latency": 0.0, "outputs": 0.0, **_numbers(data["tolerance"])},
                "baseline_bytes": int(data["baseline_bytes"]),
                "constraints": tuple(map(str, data["constraints"])),
                "merged": tuple(map(str, data["merged"])),
            }
        )

    def check_files(self, folder: Path) -> None:
        """Compare every file with its SHA-256.

        Raises:
            ProofError: one line that names each file that is missing or changed.
        """
        wrong = [f"{name} {fault}" for name, wanted in self.files.items() if (fault := _fault(folder / name, wanted))]
        if wrong:
            raise ProofError(f"{folder}: {'; '.join(wrong)}")


def read_data(folder: Path) -> dict[str, Any]:
    """The JSON object of a bundle's manifest, unchecked but for its format.

    Raises:
        ProofError: the folder is no bundle.
    """
    where = folder / NAME
    try:
        data = json.loads(where.read_bytes())
    except OSError as error:
        raise ProofError(f"{folder}: not an automc bundle: {NAME}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ProofError(f"{where}: not readable JSON: {error}".splitlines()[0]) from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ProofError(f"{where}: not the manifest of an automc bundle")
    return data


def describe(path: Path) -> dict[str, Any]:
    """A file's SHA-256 and length."""
    data = path.read_bytes()
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def _fault(path: Path, wanted: Mapping[str, Any]) -> str:
    if not path.is_file():
        return "is missing"
    try:
        found = describe(path)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if found["bytes"] != wanted["bytes"]:
        return f"has {found['bytes']} bytes, promised {wanted['bytes']}"
    return "" if found["sha256"] == wanted["sha256"] else "has another SHA-256 than promised"


def _numbers(data: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(value) for name, value in data.items()}


def _seal(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
