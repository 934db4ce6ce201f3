"""The proof of a bundle: measure again, from its folder alone, in the runtime a user would use, and judge.

``python -m automc.export.proof FOLDER`` prints the proof as JSON and ends with 0, or with 7 and a line for each
promise that is not kept. No torch is loaded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from automc.core.interleave import Timing
from automc.errors import AutomcError, ProofError
from automc.export import packed, weights
from automc.export.judged import distance, measured_scores, read_test
from automc.export.manifest import BASELINE, MODEL, PACKED, TEST, Manifest
from automc.export.runtime import Runner, latencies

ROUNDS = 50
"""Timed runs of each network."""

LIMIT_S = 1800.0
"""Longest time a proof in a fresh process may take."""


@dataclass(frozen=True)
class Proof:
    """What was measured, and whether it is what was promised.

    Attributes:
        passed: every check held. reasons: one line per check that did not.
        scores, baseline_scores: the task's metrics of the exported and the original network on the test split, the one
            that says most first; empty where automc has no judge for the task.
        difference: size of ``outputs - promised outputs`` over that of the promised ones, where outputs are compared;
            None where metrics are.
        size_bytes: length of model.safetensors, None where the bundle has none.
        baseline_bytes: length of the original network's packed file.
        latency, baseline_latency: ms of one run of the batch that the study says, one thread.
        compared: arrays of the packed file found in the ONNX file bit by bit. merged: those that cannot be compared.
        seconds: how long the proof took.
    """

    passed: bool
    reasons: tuple[str, ...]
    scores: Mapping[str, float]
    baseline_scores: Mapping[str, float]
    difference: float | None
    size_bytes: int | None
    baseline_bytes: int
    latency: Timing
    baseline_latency: Timing
    compared: int
    merged: tuple[str, ...]
    seconds: float = 0.0

    def metrics(self) -> dict[str, float]:
        """What was measured, under the names of the metrics table."""
        found = {
            **self.scores,
            "latency_ms": self.latency.median,
            "latency_ratio": self.latency.median / self.baseline_latency.median,
        }
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
        """Plain lists, numbers and text, as JSON can carry them."""
        return {**self.metrics(), **asdict(self)}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Proof:
        """The proof that ``to_data`` wrote, also after a trip through JSON."""
        kept = {name: data[name] for name in cls.__dataclass_fields__}
        kept |= {name: Timing(**data[name]) for name in ("latency", "baseline_latency")}
        return cls(**{**kept, "reasons": tuple(data["reasons"]), "merged": tuple(data["merged"])})


def verify(folder: Path, rounds: int = ROUNDS) -> Proof:
    """Measure a bundle again and judge it by its promise.

    Raises:
        ProofError: it cannot be measured at all: a file is missing, changed or unreadable.
    """
    start = time.perf_counter()
    manifest = Manifest.read(folder)
    manifest.check_files(folder)
    proof = measure(folder, manifest, rounds)
    reasons = tuple(judge(manifest, proof))
    return replace(proof, passed=not reasons, reasons=reasons, seconds=time.perf_counter() - start)


def verify_fresh(folder: Path) -> Proof:
    """``verify`` in a new process that has loaded nothing of this one.

    Raises:
        ProofError: as ``verify``, or the process ended without a proof.
    """
    root = str(Path(__file__).resolve().parents[2])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
    }
    command = [sys.executable, "-P", "-m", "automc.export.proof", str(folder)]  # -P: nothing from here
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=LIMIT_S, check=False)
        return Proof.from_data(json.loads(done.stdout))
    except subprocess.TimeoutExpired as error:
        raise ProofError(f"{folder}: the proof took longer than {LIMIT_S:.0f} s") from error
    except (ValueError, KeyError, TypeError) as error:
        last = (done.stderr.strip().splitlines() or [f"the process ended with {done.returncode} and no word"])[-1]
        raise ProofError(last) from error


def measure(folder: Path, manifest: Manifest, rounds: int = ROUNDS) -> Proof:
    """Everything a proof measures, not judged yet; the files are taken as they are."""
    test = read_test(folder / TEST)
    model, baseline = Runner(folder / MODEL), Runner(folder / BASELINE)
    judge = manifest.judge()
    scores, baseline_scores = measured_scores(judge, model, baseline, test, manifest) if judge else ({}, {})
    difference = None if judge else distance(model, test, manifest)
    batch = int(manifest.facts.get("latency_batch", 1))
    latency, baseline_latency = latencies((model, baseline), manifest.input_shape, rounds, batch)
    size: int | None = None
    compared, merged = 0, tuple[str, ...]()
    if PACKED in manifest.files:
        data = (folder / PACKED).read_bytes()
        size, arrays = len(data), packed.tensors(data)
        merged = tuple(weights.unmatched(arrays, weights.constants(folder / MODEL)))
        compared = len(arrays) - len(merged)
    return Proof(
        passed=False,
        reasons=("not judged",),
        scores=scores,
        baseline_scores=baseline_scores,
        difference=difference,
        size_bytes=size,
        baseline_bytes=manifest.baseline_bytes,
        latency=latency,
        baseline_latency=baseline_latency,
        compared=compared,
        merged=merged,
    )


def judge(manifest: Manifest, proof: Proof) -> Iterator[str]:
    """One line for each promise that the measurement does not keep."""
    measured = proof.metrics()
    near = {name: manifest.tolerance.get(name, 0.0) for name in proof.scores}
    near |= {"size_bytes": 0.0, "size_ratio": 1e-9}
    for name in sorted(near.keys() & measured.keys() & manifest.promised.keys()):
        yield from _differs(name, manifest.promised[name], measured[name], near[name])
    for name in sorted(proof.baseline_scores.keys() & manifest.original.keys()):
        known_as = f"{name} of the original"
        yield from _differs(known_as, manifest.original[name], proof.baseline_scores[name], near.get(name, 0.0))
    if proof.difference is not None:
        yield from _differs("outputs: distance from torch's", 0.0, proof.difference, manifest.tolerance["outputs"])
    for name in sorted(set(proof.merged) - set(manifest.merged)):
        yield f"weights: {name} of {PACKED} is not in {MODEL}, bit by bit"
    known = {**manifest.promised, **measured}
    for constraint in manifest.limits():
        slack = near.get(constraint.metric, 0.0)
        if constraint.metric.startswith("latency"):
            slack = manifest.tolerance["latency"] * abs(constraint.bound)
        if constraint.violation(known) > slack:
            yield f"constraint {constraint} does not hold: {known.get(constraint.metric, 'not measured')}"


def _differs(name: str, promised: float, measured: float, tolerance: float) -> Iterator[str]:
    if not abs(promised - measured) <= tolerance + 1e-12:
        yield f"{name}: promised {promised:.6g}, measured {measured:.6g} (tolerance {tolerance:g})"


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
