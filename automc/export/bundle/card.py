"""README.md of a bundle: what is in it, how it compares, how to run it, how to check it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from automc.core.metrics import METRICS
from automc.export.bundle.manifest import BASELINE, NAME, POLICY, REASON, TEST, Manifest
from automc.export.bundle.normalisation import Normalisation
from automc.export.formats import FORMATS, MODEL, PACKED
from automc.export.onnx.writing import INPUT
from automc.export.proof.proving import Proof

_FILES = {
    **{file: text for each in FORMATS.values() for file, text in each.files.items()},
    BASELINE: "the original network",
    POLICY: "what was done to which layer",
    TEST: "the test split: raw `inputs`, `targets`, and what the searched network answered (`outputs.*`)",
    REASON: "why the proof did not pass",
    NAME: "SHA-256 of the files, what is promised, what was measured, how it was made",
}

_STEP = 100
"""Inputs that the card's program runs at a time."""


_LAYERS = (
    "`stored`: how the ONNX file holds the weights. `runs`: `int8` where ONNX Runtime multiplies integers; elsewhere a",
    "layer is only stored small. `share`: of the packed file, about.",
)


def card(manifest: Manifest, proof: Proof) -> str:
    """The model card as Markdown."""
    source = " ".join(f"{word} {manifest.facts[word]}" for word in ("study", "trial") if word in manifest.facts)
    refused = ["**Rejected**: " + "; ".join(proof.reasons), ""] if proof.reasons else []
    sums = [f"Sums of layers run in {manifest.facts['sums']}."] if manifest.facts.get("sums") else []
    layers = ["## Layers", "", *_LAYERS, *sums, "", *_table(_layers(manifest.layers)), ""] if manifest.layers else []
    return "\n".join(
        [
            f"# Compressed model{f' ({source})' if source else ''}",
            "",
            *refused,
            "| | original | compressed | ratio |",
            "|---|---|---|---|",
            *_rows(manifest, proof),
            "",
            _measured(proof),
            "",
            "## Latency",
            "",
            "One run on one CPU thread in ONNX Runtime, both networks in turn: median (quartiles) in ms; the median of",
            "the paired ratios with its 95% interval.",
            "",
            *_table(_latencies(proof)),
            "",
            "## Files",
            "",
            *(f"- `{name}` ({_bytes(manifest, name)}): {_FILES[name]}" for name in _FILES if _there(manifest, name)),
            "",
            *_table(_networks(proof)),
            "",
            *layers,
            *_use(manifest, proof),
        ]
    )


def _use(manifest: Manifest, proof: Proof) -> list[str]:
    opset = f" (`{MODEL}` is of ONNX opset {manifest.facts['opset']})" if "opset" in manifest.facts else ""
    return [
        "## Run it",
        "",
        f"With `pip install numpy onnxruntime`, in this folder{opset}:",
        "",
        "```python",
        *_snippet(manifest, _last_line(manifest, proof)),
        "```",
        "",
        "## Check it",
        "",
        "`automc verify FOLDER` (or `python -m automc.export.proof FOLDER`) compares every SHA-256, measures metrics,",
        "outputs, bytes, latency, load time and memory again in fresh processes, compares the weights of the files,",
        "and ends with status 7 when a promise is not kept.",
        "",
    ]


def _there(manifest: Manifest, name: str) -> bool:
    return name == NAME or name in manifest.files


def _rows(manifest: Manifest, proof: Proof) -> Iterator[str]:
    for metric, value in proof.scores.items():
        error = f" ± {proof.errors[metric]:.4f}" if metric in proof.errors else ""
        yield _row(f"{metric} (test)", proof.baseline_scores[metric], value, "{:.4f}", error)
    for metric in manifest.promised.keys() & manifest.original.keys() if not proof.scores else ():
        if METRICS[metric].sampled:
            original, promised = manifest.original[metric], manifest.promised[metric]
            yield _row(f"{metric} (test, in torch)", original, promised, "{:.4f}")
    if proof.size_bytes is not None:
        yield _row("stored bytes", proof.baseline_bytes, proof.size_bytes, "{:,.0f}")
    for metric, name in (("macs", "MACs"), ("params", "parameters"), ("bops", "BOPs")):
        if metric in manifest.promised and metric in manifest.original:
            yield _row(name, manifest.original[metric], manifest.promised[metric], "{:,.0f}")
    yield _row("latency, ms (median)", proof.baseline_latency.median, proof.latency.median, "{:.3f}")


def _row(name: str, original: float, compressed: float, form: str, error: str = "") -> str:
    ratio = f"{compressed / original:.3f}" if original else ""
    return f"| {name} | {form.format(original)} | {form.format(compressed)}{error} | {ratio} |"


def _measured(proof: Proof) -> str:
    place = ", ".join(str(proof.machine[key]) for key in ("processor", "system") if key in proof.machine)
    said = f"Measured in fresh processes with the files of this folder on its {proof.samples:,} test inputs ({place})"
    near = proof.likeness
    if near is not None:
        same = f"the same predictions on {near.agreement:.2%}, " if near.agreement is not None else ""
        said += (
            f". Beside the searched network in torch ({near.inputs:,} inputs): {same}outputs differ by "
            f"{near.mean_difference:.2g} in the mean, {near.max_difference:.2g} at most"
        )
    return f"{said}. Stored bytes: {PACKED}, and the same kind of file made from the original network."


def _latencies(proof: Proof) -> Iterator[dict[str, str]]:
    for each in proof.races:
        timed = {"original": each.original, "compressed": each.ours}
        yield {
            "inputs": str(each.batch),
            **{name: f"{t.median:.3f} ({t.low:.3f} to {t.high:.3f})" for name, t in timed.items()},
            "ratio": f"{each.ratio.median:.3f} ({each.ratio.low:.3f} to {each.ratio.high:.3f})",
        }


def _networks(proof: Proof) -> Iterator[dict[str, str]]:
    for name, each in proof.networks.items():
        row = {"loaded as": name, "load, ms": "", "memory, MB": "", "of it for the network": "", "outputs of torch": ""}
        if each.missing:
            yield row | {"outputs of torch": f"not measured: {each.missing} is not installed"}
            continue
        row |= {"load, ms": f"{each.load_ms:.1f}", "memory, MB": f"{each.peak_bytes / 1e6:.1f}"}
        row |= {"of it for the network": f"{(each.peak_bytes - each.idle_bytes) / 1e6:.1f}"}
        if (near := each.likeness) is not None:
            same = f"{near.agreement:.2%} the same, " if near.agreement is not None else ""
            row["outputs of torch"] = f"{same}at most {near.max_difference:.2g} off"
        yield row


def _layers(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    """Columns that say nothing of any layer are left out."""
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name != "group"]
    said = {name for name in names if any(_cell(name, row.get(name)) for row in rows)}
    for row in rows:
        yield {name.replace("_", " "): _cell(name, row.get(name)) for name in names if name in said}


def _cell(name: str, value: Any) -> str:
    if value is None or value in ("", "-"):
        return ""
    if name == "share":
        return f"{value:.1%}"
    if isinstance(value, (list, tuple)):
        return " to ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)


def _table(rows: Iterator[dict[str, str]]) -> Iterator[str]:
    for number, row in enumerate(rows):
        if not number:
            yield f"| {' | '.join(row)} |"
            yield "|---" * len(row) + "|"
        yield f"| {' | '.join(each.replace('|', '/') for each in row.values())} |"


def _bytes(manifest: Manifest, name: str) -> str:
    return f"{manifest.files[name]['bytes']:,} bytes" if name in manifest.files and name != NAME else "this list"


def _last_line(manifest: Manifest, proof: Proof) -> str:
    if manifest.task is not None and manifest.task["name"] == "classification" and "top1" in proof.scores:
        return 'print("top1", (outputs.argmax(axis=1) == test["targets"]).mean())'
    return 'print(outputs.shape, "for", test["inputs"].shape)'


def _snippet(manifest: Manifest, last: str) -> Iterator[str]:
    """Python that runs in the bundle's folder with numpy and onnxruntime alone."""
    normalise = manifest.normalisation
    yield "import numpy as np"
    yield "import onnxruntime"
    yield ""
    yield f'test = np.load("{TEST}")'
    yield f'session = onnxruntime.InferenceSession("{MODEL}", providers=["CPUExecutionProvider"])'
    yield "outputs = []"
    yield f'for raw in np.array_split(test["inputs"], -(-len(test["inputs"]) // {_STEP})):'
    yield f"    x = {_normalised(normalise, manifest)}"
    yield f'    outputs.append(session.run(None, {{"{INPUT}": x}})[0])'
    yield "outputs = np.concatenate(outputs)"
    yield last


def _normalised(normalise: Normalisation, manifest: Manifest) -> str:
    if manifest.whole:
        return "raw"
    scaled = f"raw.astype(np.float32) / np.float32({normalise.scale!r})"
    if not normalise.mean:
        return scaled
    ones = ", 1" * (len(manifest.input_shape) - 1)
    mean, std = (f"np.reshape(np.float32({list(each)!r}), (-1{ones}))" for each in (normalise.mean, normalise.std))
    return f"({scaled} - {mean}) / {std}"
