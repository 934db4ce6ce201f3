"""README.md of a bundle: what is in it, how it compares, how to run it, how to check it."""

from __future__ import annotations

from collections.abc import Iterator

from automc.core.metrics import METRICS
from automc.export.manifest import BASELINE, MODEL, NAME, PACKED, POLICY, TEST, Manifest
from automc.export.onnx_file import INPUT
from automc.export.proof import Proof
from automc.export.runtime import Normalisation

_FILES = {
    MODEL: "the compressed network, float graph; low-bit weights hold their rounded values",
    PACKED: "the same numbers, every weight in as many bits as it has (layout: automc/export/README.md)",
    BASELINE: "the original network",
    POLICY: "what was done to which layer",
    TEST: "the test split: raw `inputs`, and `targets`",
    NAME: "SHA-256 of the files, what is promised, how it was made",
}


def card(manifest: Manifest, proof: Proof) -> str:
    """The model card as Markdown."""
    source = " ".join(f"{word} {manifest.facts[word]}" for word in ("study", "trial") if word in manifest.facts)
    return "\n".join(
        [
            f"# Compressed model{f' ({source})' if source else ''}",
            "",
            "| | original | compressed | ratio |",
            "|---|---|---|---|",
            *_rows(manifest, proof),
            "",
            f"{_measured(proof)} measured with the ONNX files of this folder in ONNX Runtime on one CPU thread "
            f"({manifest.facts.get('machine', 'machine not noted')}), on the test split stored here. "
            f"Stored bytes: {PACKED}, and the same kind of file made from the original network.",
            "",
            "## Files",
            "",
            *(f"- `{name}`: {text}" for name, text in _FILES.items() if name != PACKED or PACKED in manifest.files),
            "",
            "## Run it",
            "",
            "```python",
            *_snippet(manifest.normalisation, len(manifest.input_shape), _last_line(manifest, proof)),
            "```",
            "",
            "## Check it",
            "",
            "`automc verify FOLDER` (or `python -m automc.export.proof FOLDER`) compares every SHA-256, measures the",
            "metrics, bytes and latency again in a fresh process, compares the weights of both files bit by bit, and",
            "ends with status 7 when a promise is not kept.",
            "",
        ]
    )


def _rows(manifest: Manifest, proof: Proof) -> Iterator[str]:
    for metric, value in proof.scores.items():
        yield _row(f"{metric} (test)", proof.baseline_scores[metric], value, "{:.4f}")
    for metric in manifest.promised.keys() & manifest.original.keys() if proof.difference is not None else ():
        if METRICS[metric].sampled:
            original, promised = manifest.original[metric], manifest.promised[metric]
            yield _row(f"{metric} (test, in torch)", original, promised, "{:.4f}")
    if proof.size_bytes is not None:
        yield _row("stored bytes", proof.baseline_bytes, proof.size_bytes, "{:,.0f}")
    for metric, name in (("macs", "MACs"), ("params", "parameters"), ("bops", "BOPs")):
        if metric in manifest.promised and metric in manifest.original:
            yield _row(name, manifest.original[metric], manifest.promised[metric], "{:,.0f}")
    yield _row("latency, ms (median)", proof.baseline_latency.median, proof.latency.median, "{:.3f}")


def _row(name: str, original: float, compressed: float, form: str) -> str:
    ratio = f"{compressed / original:.3f}" if original else ""
    return f"| {name} | {form.format(original)} | {form.format(compressed)} | {ratio} |"


def _measured(proof: Proof) -> str:
    if proof.difference is None:
        return "The metrics and latency were"
    return f"Latency and outputs (distance from torch's: {proof.difference:.2g} of their size) were"


def _last_line(manifest: Manifest, proof: Proof) -> str:
    if manifest.task is not None and manifest.task["name"] == "classification" and "top1" in proof.scores:
        return 'print("top1", (outputs[0].argmax(axis=1) == targets).mean())'
    return "print([each.shape for each in outputs])"


def _snippet(normalise: Normalisation, axes: int, last: str) -> Iterator[str]:
    """Python that runs in the bundle's folder with numpy and onnxruntime alone."""
    yield "import numpy as np"
    yield "import onnxruntime"
    yield ""
    yield f'test = np.load("{TEST}")'
    yield 'raw, targets = test["inputs"][:100], test["targets"][:100]'
    yield f"x = raw.astype(np.float32) / np.float32({normalise.scale!r})"
    if not normalise.mean:
        yield 'x = raw if raw.dtype.kind == "i" else x  # tokens stay whole numbers'
    if normalise.mean:
        shape = ", ".join(["-1", *["1"] * (axes - 1)])
        for name, values in (("mean", normalise.mean), ("std", normalise.std)):
            yield f"{name} = np.array({list(values)!r}, np.float32).reshape({shape})"
        yield "x = (x - mean) / std"
    yield f'session = onnxruntime.InferenceSession("{MODEL}", providers=["CPUExecutionProvider"])'
    yield f'outputs = session.run(None, {{"{INPUT}": x}})'
    yield last
