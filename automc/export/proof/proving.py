"""The proof of a bundle: measure again, from its folder alone, in the runtime a user would use, and judge.

``python -m automc.export.proof FOLDER`` prints the proof as JSON and ends with 0, or with 7 and a line for each
promise that is not kept. No torch is loaded, but in the processes of formats that need it.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from automc.core.interleave import Timing
from automc.core.machine import machine
from automc.errors import AutomcError, ProofError
from automc.export.bundle.manifest import BASELINE, CARD, TEST, Manifest
from automc.export.formats import FORMATS, MODEL, PACKED, Format
from automc.export.onnx.runtime import Runner
from automc.export.proof.alone import ORIGINAL, Alone, alone
from automc.export.proof.fresh import fresh
from automc.export.proof.judged import Likeness, judged, read_test
from automc.export.proof.promises import broken
from automc.export.proof.racing import ROUNDS, Race, race


@dataclass(frozen=True)
class Proof:
    """What was measured, and whether it is what was promised.

    Attributes:
        passed: every check held. reasons: one line per check that did not.
        scores, baseline_scores: the task's metrics of the exported and the original network on the test split, the one
            that says most first; empty where automc has no judge for the task.
        errors: standard errors of ``scores``. samples: inputs that they were measured on.
        files: bytes of each file by name.
        size_bytes: length of the packed file, None where the bundle has none.
        baseline_bytes: length of the original network's packed file.
        races: latency beside the original's, one for each stated batch, that of the study first.
        networks: by format, and ``baseline`` for the original network, what a process of its own found.
        compared: arrays of other files found in the ONNX file bit by bit. merged: those that cannot be compared.
        machine: where (core/machine). seconds: how long the proof took.
    """

    passed: bool
    reasons: tuple[str, ...]
    scores: Mapping[str, float]
    baseline_scores: Mapping[str, float]
    size_bytes: int | None
    baseline_bytes: int
    races: tuple[Race, ...]
    compared: int
    merged: tuple[str, ...]
    errors: Mapping[str, float] = field(default_factory=dict)
    samples: int = 0
    files: Mapping[str, int] = field(default_factory=dict)
    networks: Mapping[str, Alone] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def latency(self) -> Timing:
        """Of one run of the study's batch."""
        return self.races[0].ours

    @property
    def baseline_latency(self) -> Timing:
        """The original network's."""
        return self.races[0].original

    @property
    def likeness(self) -> Likeness | None:
        """Of the ONNX file to the searched network, where its outputs are stored."""
        return self.networks["onnx"].likeness if "onnx" in self.networks else None

    @property
    def difference(self) -> float | None:
        """Distance from torch's outputs, where they are what is judged; None where metrics are."""
        return None if self.scores or self.likeness is None else self.likeness.distance

    def metrics(self) -> dict[str, float]:
        """What was measured, under the names of the metrics table."""
        first = self.races[0]
        found = {**self.scores, "latency_ms": first.ours.median, "latency_ratio": first.ratio.median}
        if self.size_bytes is not None:
            found |= {"size_bytes": float(self.size_bytes), "size_ratio": self.size_bytes / self.baseline_bytes}
        return found

    def require(self) -> Proof:
        """This proof when it passed.

        Raises:
            ProofError: every reason, in one line.
        """
        if not self.passed:
            raise ProofError("; ".join(self.reasons))
        return self

    def to_data(self) -> dict[str, Any]:
        """Plain lists, numbers and text, as JSON can carry them: None in the place of NaN and infinity."""
        found: dict[str, Any] = _finite({**self.metrics(), **asdict(self)})
        return found

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Proof:
        """The proof that ``to_data`` wrote, also after a trip through JSON."""
        kept = {name: data[name] for name in cls.__dataclass_fields__}
        kept |= {name: tuple(data[name]) for name in ("reasons", "merged")}
        for name in ("scores", "baseline_scores", "errors"):
            kept[name] = {metric: math.nan if value is None else value for metric, value in data[name].items()}
        kept["races"] = tuple(Race.from_data(each) for each in data["races"])
        kept["networks"] = {name: Alone.from_data(each) for name, each in data["networks"].items()}
        return cls(**kept)


def verify(folder: Path, rounds: int = ROUNDS, apart: bool = True) -> Proof:
    """Measure a bundle again and judge it by its promise.

    Args:
        rounds: of timing, at most. apart: measure load time, memory and every other format too, in processes of their
            own; without it only the ONNX files are run, in this one.

    Raises:
        ProofError: it cannot be measured at all: a file is missing, changed or unreadable.
    """
    start = time.perf_counter()
    manifest = Manifest.read(folder)
    manifest.check_files(folder)
    proof = measure(folder, manifest, rounds, apart)
    reasons = tuple(broken(manifest, proof))
    return replace(proof, passed=not reasons, reasons=reasons, seconds=time.perf_counter() - start)


def verify_fresh(folder: Path) -> Proof:
    """``verify`` in a new process that has loaded nothing of this one.

    Raises:
        ProofError: as ``verify``, or the process ended without a proof.
    """
    try:
        return Proof.from_data(fresh("automc.export.proof", folder))
    except (KeyError, TypeError) as error:
        raise ProofError(f"{folder}: its proof lacks something: {error!r}") from error


def measure(folder: Path, manifest: Manifest, rounds: int = ROUNDS, apart: bool = True) -> Proof:
    """Everything a proof measures, not judged yet; the files are taken as they are. Arguments as of ``verify``."""
    formats = written(manifest)
    run = [each.name for each in formats if each.runner] if apart else []
    networks = {name: alone(folder, name) for name in ([*run, ORIGINAL] if apart else [])}
    test = read_test(folder / TEST)
    model, baseline = Runner(folder / MODEL), Runner(folder / BASELINE)
    found = judged(model, baseline, test, manifest, folder / MODEL)
    if not apart:
        networks = {"onnx": Alone(likeness=found.likeness)}
    shape, whole = manifest.input_shape, manifest.whole
    same = [each.compare(folder) for each in formats if each.comparer]
    return Proof(
        passed=False,
        reasons=("not judged",),
        scores={name: each.value for name, each in found.scores.items()},
        baseline_scores={name: each.value for name, each in found.baseline.items()},
        errors={name: each.error for name, each in found.scores.items()},
        samples=len(test.inputs),
        files={name: each["bytes"] for name, each in manifest.files.items() if name != CARD},
        size_bytes=manifest.files[PACKED]["bytes"] if PACKED in manifest.files else None,
        baseline_bytes=manifest.baseline_bytes,
        races=tuple(race(model, baseline, shape, batch, whole, rounds) for batch in manifest.batches),
        networks=networks,
        compared=sum(each.same for each in same),
        merged=tuple(name for each in same for name in each.others),
        machine=machine(),
    )


def _finite(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {name: _finite(each) for name, each in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(each) for each in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def written(manifest: Manifest) -> list[Format]:
    """The formats whose files a bundle has."""
    return [each for each in FORMATS.values() if set(each.files) <= set(manifest.files)]


def main(arguments: list[str]) -> int:
    """The command: 0 when the proof passed, 7 when not, 2 for anything but one folder."""
    if len(arguments) != 1:
        print("usage: python -m automc.export.proof FOLDER", file=sys.stderr)
        return 2
    try:
        proof = verify(Path(arguments[0]))
        print(json.dumps(proof.to_data()))
        proof.require()
    except AutomcError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0
