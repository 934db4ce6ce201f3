"""Whether what a proof measured is what was promised: one line for each promise that is not kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from automc.export.bundle.manifest import Manifest
from automc.export.formats import MODEL

if TYPE_CHECKING:
    from automc.export.proof.proving import Proof

_HARDWARE = ("processor", "cpus")


def broken(manifest: Manifest, proof: Proof) -> Iterator[str]:
    """The reasons, in the order of the README."""
    yield from _scores(manifest, proof)
    yield from _outputs(manifest, proof)
    for name in sorted(set(proof.merged) - set(manifest.merged)):
        yield f"weights: {name} is not in {MODEL}, bit by bit"
    yield from _constraints(manifest, proof)
    yield from _slower(manifest, proof)


def _scores(manifest: Manifest, proof: Proof) -> Iterator[str]:
    """The task's metrics of both networks, and bytes."""
    measured = proof.metrics()
    near = {name: manifest.tolerance.get(name, 0.0) for name in proof.scores}
    near |= {"size_bytes": 0.0, "size_ratio": 1e-9}
    for name in sorted(near.keys() & measured.keys() & manifest.promised.keys()):
        yield from _differs(name, manifest.promised[name], measured[name], near[name])
    for name in sorted(proof.baseline_scores.keys() & manifest.original.keys()):
        known_as = f"{name} of the original"
        yield from _differs(known_as, manifest.original[name], proof.baseline_scores[name], near.get(name, 0.0))


def _outputs(manifest: Manifest, proof: Proof) -> Iterator[str]:
    """Every file's outputs beside torch's: by the task's measure, or by their distance where it has none."""
    for name, each in proof.networks.items():
        if (near := each.likeness) is None:
            continue
        if near.agreement is None:
            known_as = f"outputs of {name}: distance from torch's"
            yield from _differs(known_as, 0.0, near.distance, manifest.tolerance["outputs"])
        else:
            known_as = f"agreement of {name} with the searched network"
            yield from _differs(known_as, 1.0, near.agreement, manifest.tolerance["matches"])


def _constraints(manifest: Manifest, proof: Proof) -> Iterator[str]:
    """What the study demands, with measured numbers where there are some, and promised ones elsewhere."""
    measured = proof.metrics()
    known = {**manifest.promised, **measured}
    for constraint in manifest.limits():
        slack = manifest.tolerance.get(constraint.metric, 0.0) if constraint.metric in proof.scores else 0.0
        tested = known
        if constraint.metric == "latency_ratio":  # a bound within the interval may hold
            tested = known | {"latency_ratio": proof.races[0].ratio.low}
        elif constraint.metric.startswith("latency"):
            slack = manifest.tolerance["latency"] * abs(constraint.bound)
        if constraint.violation(tested) > slack:
            yield f"constraint {constraint} does not hold: {known.get(constraint.metric, 'not measured')}"


def _slower(manifest: Manifest, proof: Proof) -> Iterator[str]:
    """The latency that the search promised, on the machine that wrote the bundle: others have other kernels."""
    promised, found = manifest.promised.get("latency_ratio"), proof.races[0].ratio
    if promised is None or not same_hardware(manifest.facts.get("machine"), proof.machine):
        return
    if found.low > promised * (1 + manifest.tolerance["latency_ratio"]):
        yield (
            f"latency_ratio: slower than promised: {promised:.3g} in the search, now {found.median:.3f} "
            f"({found.low:.3f} to {found.high:.3f})"
        )


def same_hardware(one: Any, other: Any) -> bool:
    """Whether two descriptions (core/machine) are of the same processor."""
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return False
    return all(one.get(name) == other.get(name) for name in _HARDWARE)


def _differs(name: str, promised: float, measured: float, tolerance: float) -> Iterator[str]:
    if not abs(promised - measured) <= tolerance + 1e-12:
        yield f"{name}: promised {promised:.6g}, measured {measured:.6g} (tolerance {tolerance:g})"
