"""MANIFEST.json: what a bundle holds and promises, under a seal. Loads no torch."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from automc.core import untrusted
from automc.core.judges import Judge, judge_named
from automc.core.metrics import METRICS, Constraint
from automc.errors import ProofError, SpecError, one_line
from automc.export.bundle.normalisation import Normalisation
from automc.export.formats import FORMATS, MODEL

NAME = "MANIFEST.json"
FORMAT = "automc-bundle"
VERSION = 2

BASELINE, POLICY, TEST, CARD = "baseline.onnx", "policy.json", "test.npz", "README.md"
REQUIRED = (MODEL, BASELINE, POLICY, TEST, CARD)
REASON = "REASON.txt"
OPTIONAL = (REASON, *(file for each in FORMATS.values() for file in each.files if file != MODEL))

SHARE, VALUE, LATENCY, LATENCY_RATIO, OUTPUTS, AGREEMENT = 0.005, 0.02, 0.25, 0.05, 0.01, 0.02
"""How far a proof may be from the promise, since torch and ONNX Runtime add in another order and a rounded input may
then move a step. Of metrics in ratios (top1) and of the agreement with the searched network: absolute. Of others
(loss) and of outputs: relative, but for a loss in nats, which is at least allowed as much as a ratio. Of latency:
relative, since machines are busy; of its ratio less, for a busy moment hits both networks."""

LARGEST_INPUT, LARGEST_BATCH, LONGEST_TEXT = 2**28, 2**16, 2**22
"""Numbers of one input, inputs of one timed run, and bytes of a manifest: beyond these it is refused."""


def tolerance(promised: Mapping[str, float], inputs: int, fewest: int = 0) -> dict[str, float]:
    """By metric of the task, how far a proof may be from the promise, in its unit; for latency and outputs the share.

    Args:
        inputs: of the test split; two of them may always be answered otherwise, and a share may be off by half of its
            standard error, which such a split could not tell. fewest: of one class, which is what
            ``top1_worst_class`` may be measured on; all when 0.
    """
    found = {"latency": LATENCY, "latency_ratio": LATENCY_RATIO, "outputs": OUTPUTS}
    found["matches"] = max(AGREEMENT, 2 / inputs)
    for name in promised.keys() & {name for name, metric in METRICS.items() if metric.sampled}:
        few = fewest or inputs if name == "top1_worst_class" else inputs
        share = min(max(promised[name], 0.0), 1.0)
        untold = 0.5 * (share * (1 - share) / few) ** 0.5
        least = {"ratio": max(SHARE, 2 / few, untold), "nats": SHARE}.get(METRICS[name].unit, 0.0)
        found[name] = least if METRICS[name].unit == "ratio" else max(least, VALUE * abs(promised[name]))
    return found


@dataclass(frozen=True)
class Manifest:
    """What a bundle holds and promises.

    Attributes:
        files: SHA-256 and bytes of each file by name.
        normalisation: how raw test inputs become the network's. input_shape: of one input, without the batch axis.
        whole: the network takes whole numbers, as they are.
        batches: inputs of one timed run; the first is that of ``latency_ms`` and ``latency_ratio``.
        promised: metrics of the compressed network, measured on the test split in torch; latency_ratio as the search
            measured it.
        original: the same metrics of the original network.
        baseline_bytes: length of the original network's packed file.
        constraints: what the study demands, as text such as ``"macs_ratio <= 0.5"``.
        task: name and settings of the judge that measures the task's metrics (core/judges); None where automc has
            none for it: then the outputs must be those that are stored with the test split.
        tolerance: see ``tolerance``; 0 where a name is missing.
        merged: arrays of the packed file that the ONNX exporter changed, which therefore cannot be compared.
        layers: a row for each layer: what was done to it, its share of the bytes.
        proof: what was measured when the bundle was written (Proof.to_data), {} until then.
        facts: study, trial, policy, splits, versions, machine, command, spec: whatever else is worth knowing, as plain
            data.
    """

    files: Mapping[str, Mapping[str, Any]]
    normalisation: Normalisation
    input_shape: tuple[int, ...]
    promised: Mapping[str, float]
    original: Mapping[str, float]
    baseline_bytes: int
    whole: bool = False
    batches: tuple[int, ...] = (1,)
    constraints: tuple[str, ...] = ()
    tolerance: Mapping[str, float] = field(default_factory=dict)
    merged: tuple[str, ...] = ()
    layers: tuple[Mapping[str, Any], ...] = ()
    proof: Mapping[str, Any] = field(default_factory=dict)
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
            said = str(data.get("version"))[:40]
            raise ProofError(f"{where}: version {said}, this automc reads {VERSION}: export the trial again")
        seal = data.pop("seal", None)
        try:
            if seal != _seal(data):
                raise ProofError(f"{where}: its seal is broken: the file was changed after it was written")
            found = cls._from(data)
            found.limits()
            found.judge()
        except (ArithmeticError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ProofError(f"{where}: not a manifest: {one_line(error)}") from error
        strange = sorted(set(found.files) - {*REQUIRED, *OPTIONAL})
        absent = sorted(set(REQUIRED) - set(found.files))
        if strange or absent:
            listed = (
                f"lists {strange[0][:80]!r}, which is no part of a bundle" if strange else f"does not list {absent[0]}"
            )
            raise ProofError(f"{where}: {listed}")
        return found

    @classmethod
    def _from(cls, data: Mapping[str, Any]) -> Manifest:
        scale, mean, std = (data["normalisation"][key] for key in ("scale", "mean", "std"))
        normalise = Normalisation(_floats([scale])[0], _floats(mean), _floats(std))
        if len(normalise.mean) != len(normalise.std) or 0.0 in (normalise.scale, *normalise.std):
            raise ValueError("normalisation: mean and std must be equally many, scale and std not 0")
        fields = {key: value for key, value in data.items() if key not in ("format", "version")}
        files = {
            str(name): {"sha256": str(each["sha256"]), "bytes": _whole(each["bytes"], 0, 2**48)}
            for name, each in data["files"].items()
        }
        shape = tuple(_whole(axis, 1, LARGEST_INPUT) for axis in data["input_shape"])
        _whole(math.prod(shape), 1, LARGEST_INPUT)
        checked = {
            "files": files,
            "normalisation": normalise,
            "input_shape": shape,
            "whole": bool(data["whole"]),
            "batches": tuple(_whole(each, 1, LARGEST_BATCH) for each in data["batches"]),
            "promised": _numbers(data["promised"]),
            "original": _numbers(data["original"]),
            "tolerance": {"latency": 0.0, "latency_ratio": 0.0, "outputs": 0.0, "matches": 0.0}
            | _numbers(data["tolerance"]),
            "baseline_bytes": _whole(data["baseline_bytes"], 1, 2**48),
            "constraints": tuple(map(str, data["constraints"])),
            "merged": tuple(map(str, data["merged"])),
            "layers": tuple(dict(row) for row in data["layers"]),
            "proof": dict(data["proof"]),
            "facts": dict(data["facts"]),
        }
        if not checked["batches"]:
            raise ValueError("batches: at least one")
        return cls(**{**fields, **checked})

    def check_files(self, folder: Path) -> None:
        """Compare every file with its SHA-256.

        Raises:
            ProofError: one line that names each file that is missing or changed.
        """
        wrong = [f"{name} {fault}" for name, wanted in self.files.items() if (fault := _fault(folder / name, wanted))]
        if wrong:
            raise ProofError(f"{folder}: {'; '.join(wrong)}")


def read_data(folder: Path) -> dict[str, Any]:
    """The JSON object of a bundle's manifest, unchecked but for its length and format.

    Raises:
        ProofError: the folder is no bundle.
    """
    where = folder / NAME
    try:
        data = untrusted.json_object(where, LONGEST_TEXT)
    except OSError as error:
        raise ProofError(f"{folder}: not an automc bundle: {NAME}: {error.strerror}") from error
    except ValueError as error:
        raise ProofError(f"{where}: not readable JSON: {one_line(error)}") from error
    if data.get("format") != FORMAT:
        raise ProofError(f"{where}: not the manifest of an automc bundle")
    return data


def describe(path: Path) -> dict[str, Any]:
    """A file's SHA-256 and length."""
    return {"sha256": untrusted.sha256(path), "bytes": path.stat().st_size}


def _fault(path: Path, wanted: Mapping[str, Any]) -> str:
    try:
        length = untrusted.regular(path)
        if length != wanted["bytes"]:
            return f"has {length} bytes, promised {wanted['bytes']}"
        return "" if untrusted.sha256(path) == wanted["sha256"] else "has another SHA-256 than promised"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except ValueError as error:
        return str(error).removeprefix(f"{path.name} ")


def _whole(value: Any, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{str(value)[:40]!r} is no whole number from {least} to {most}")
    return value


def _floats(values: Any) -> tuple[float, ...]:
    found = tuple(float(each) for each in values)
    if not all(map(math.isfinite, found)):
        raise ValueError("normalisation: must be finite")
    return found


def _numbers(data: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(value) for name, value in data.items()}


def _seal(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
