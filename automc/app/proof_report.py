"""What the commands print of proofs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from automc.app.tables import cell, table

if TYPE_CHECKING:
    from automc.export.proof.proving import Proof

AGAINST_ORIGINAL = ("agreement", "teacher_r2", "cosine")
"""Metrics that compare a network with the original one."""


def proof_text(proof: Proof) -> str:
    """What an exported model was measured to be, beside the original model, and every promise it does not keep."""
    # What is compared with the original has no original of its own.
    known = {name: None if name in AGAINST_ORIGINAL else value for name, value in proof.baseline_scores.items()}
    scores = [_proved(name, value, known.get(name)) for name, value in proof.scores.items()]
    rows = [
        *scores[:1],
        _proved("size_bytes", proof.size_bytes, proof.baseline_bytes),
        _proved("latency_ms", proof.latency.median, proof.baseline_latency.median),
        *scores[1:],
    ]
    if proof.difference is not None:
        rows.append({"metric": "outputs off by", "exported": f"{proof.difference:.2g}", "original": "-", "ratio": "-"})
    body = table(rows, right=("exported", "original", "ratio"))
    verdict = ["proved: every promise holds"] if proof.passed else [f"NOT KEPT: {reason}" for reason in proof.reasons]
    return "\n".join([body, "", *_details(proof), *verdict])


def _details(proof: Proof) -> Iterator[str]:
    """How sure it is, and what one number cannot say."""
    for name in list(proof.scores)[:1]:
        if name in proof.errors:
            yield f"{name} ± {proof.errors[name]:.4f} on {proof.samples:,} test inputs"
    for each in proof.races:
        own, inputs = each.ours, "1 input" if each.batch == 1 else f"{each.batch} inputs"
        yield (
            f"latency of {inputs}: {own.median:.3f} ms (quartiles {own.low:.3f} to {own.high:.3f}), "
            f"{each.ratio.median:.3f} of the original's (95%: {each.ratio.low:.3f} to {each.ratio.high:.3f})"
        )
    for name, found in proof.networks.items():
        if found.missing:
            yield f"{name}: not run, {found.missing} is not installed"
            continue
        line = f"{name}: loads in {found.load_ms:.0f} ms, {(found.peak_bytes - found.idle_bytes) / 1e6:.1f} MB"
        if (near := found.likeness) is not None:
            same = f"{near.agreement:.2%} of the answers of" if near.agreement is not None else "beside"
            line += f"; {same} the searched network, outputs at most {near.max_difference:.2g} off"
        yield line
    if proof.races or proof.networks:
        yield ""


def _proved(metric: str, ours: float | None, original: float | None) -> dict[str, str]:
    ratio = f"{ours / original:.3f}" if ours is not None and original else "-"
    return {"metric": metric, "exported": cell(metric, ours), "original": cell(metric, original), "ratio": ratio}
