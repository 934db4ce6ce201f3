"""Five members of the front of five networks, exported: is the file what was searched?

    python experiments/benchmarks/export/members.py [--networks resnet20 lstm] [--trials N]

Each network is searched by random policies of a joint space (channels, bits of weights and inputs), at rung 0. Five of
the front, spread over it, are exported as ``onnx`` and ``packed`` and proved in a fresh process. A row says what the
searched model answers on the test split in torch, what its ONNX file answers in ONNX Runtime, the bytes that the
database has and the file has, and how long the file runs, as a share of the time of the original, both in turn, with
its 95 % interval. Rows go to ``members.csv`` as they come; a run that ended early is taken up again. The table is
written to ``members.md``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import Results, publish, table
from networks import CIFAR, SHARED, weights

from automc.app import runs
from automc.app.config import study_from
from automc.app.delivery import deliver
from automc.app.study import Study
from automc.core.trial import Trial

HERE = Path(__file__).resolve().parent
MEMBERS = 5
BITS = {"weight_bits": [3, 4, 6, 8], "activation_bits": [6, 8]}
CHANNELS = {"operator": "prune", "settings": {"prune_ratio": {"low": 0.0, "high": 0.5, "step": 0.1}}}


def space(pruned: str = "*") -> dict[str, Any]:
    """Channels of the layers ``pruned``, bits of all, 8 of the first and the last."""
    return {
        "order": ["prune", "quantize"],
        "rules": [
            {**CHANNELS, "layers": pruned},
            {"operator": "quantize", "settings": BITS},
            {"operator": "quantize", "index": [0, -1], "settings": {"weight_bits": 8, "activation_bits": 8}},
        ],
    }


def of_digits(name: str, model: Any) -> dict[str, Any]:
    return {"name": name, "model": model, "data": "digits", "space": space()}


def of_cifar(name: str, model: dict[str, Any], pruned: str) -> dict[str, Any]:
    data = {"name": CIFAR.name, "settings": {**CIFAR.settings, "search_limit": 1000}}
    return {"name": name, "model": {"name": name, **model}, "data": data, "space": space(pruned)}


def networks() -> Mapping[str, Any]:
    """By name, a function that gives the study's data; trained weights are made when it is called."""

    def trained(name: str) -> dict[str, Any]:
        return {"name": f"{HERE / 'networks.py'}:{name}", "weights": str(weights(name))}

    resnet20 = {"settings": {"shortcut": "A"}, "weights": str(SHARED / "models" / "cifar10_resnet20.safetensors")}
    return {
        "resnet20": lambda: of_cifar("resnet20", resnet20, "*.conv1"),
        "mobilenet_v2": lambda: of_cifar("mobilenet_v2", {"weights": str(weights("mobilenet_v2"))}, "*"),
        "digits_net": lambda: of_digits("digits_net", "digits_net"),
        "transformer": lambda: of_digits("transformer", trained("transformer")),
        "lstm": lambda: of_digits("lstm", trained("lstm")),
    }


def searched(name: str, trials: int | None, storage: Path) -> Study:
    """The study of a network, run."""
    described = networks()[name]()
    trials = trials or (200 if described["data"] == "digits" else 40)
    run = {"proposer": "random", "budget": {"trials": trials}, "workers": {"count": 0}, "storage": str(storage)}
    objectives = {"objectives": {"top1": "maximize", "size_bytes": "minimize"}}
    file = study_from({**described, **objectives, **run}, name)
    study = runs.start(file)
    study.run()
    return study


def spread(front: list[Trial]) -> list[Trial]:
    """At most MEMBERS, evenly over the front by size."""
    ordered = sorted(front, key=lambda trial: trial.measurement.metrics["size_bytes"])  # type: ignore[union-attr]
    if len(ordered) <= MEMBERS:
        return ordered
    return [ordered[round(i * (len(ordered) - 1) / (MEMBERS - 1))] for i in range(MEMBERS)]


def exported(name: str, study: Study, trial: Trial, folder: Path) -> dict[str, str]:
    """One row: a member exported and proved."""
    written = deliver(study, trial, folder, ("onnx", "packed"))  # below rejected/ where a promise is broken
    proof, manifest = written.proof, json.loads((written.folder / "MANIFEST.json").read_text())
    share = proof.races[0].ratio
    assert trial.measurement is not None
    return {
        "network": name,
        "trial": str(trial.number),
        "torch_top1": f"{manifest['promised']['top1']:.4f}",
        "onnx_top1": f"{proof.scores['top1']:.4f}",
        "original_top1": f"{proof.baseline_scores['top1']:.4f}",
        "metric_bytes": f"{trial.measurement.metrics['size_bytes']:.0f}",
        "file_bytes": str((written.folder / "model.safetensors").stat().st_size),
        "latency_ratio": f"{share.median:.3f}",
        "latency_low": f"{share.low:.3f}",
        "latency_high": f"{share.high:.3f}",
        "passed": str(proof.passed),
        "reasons": "; ".join(proof.reasons),
    }


def rows(names: list[str], trials: int | None, results: Results) -> Iterator[dict[str, str]]:
    for name in names:
        with tempfile.TemporaryDirectory() as place:
            study = searched(name, trials, Path(place) / "study.db")
            for trial in spread(study.front()):
                if not results.has(network=name, trial=trial.number):
                    yield exported(name, study, trial, Path(place) / str(trial.number))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=list(networks()))
    parser.add_argument(
        "--trials", type=int, help="of each network; 40, or 200 of one for digits: five are on a front then"
    )
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results = Results(HERE / "members.csv", ("network", "trial"))
    for row in rows(given.networks, given.trials, results):
        print(row, flush=True)
        results.add(row)
    head = ["network", "trial", "top1 in torch", "in ONNX Runtime", "bytes searched", "of the file", "time of original"]
    shown = [
        [
            row["network"],
            row["trial"],
            row["torch_top1"],
            row["onnx_top1"],
            f"{int(row['metric_bytes']):,}",
            f"{int(row['file_bytes']):,}",
            f"{row['latency_ratio']} ({row['latency_low']} to {row['latency_high']})",
        ]
        for row in sorted(results.rows, key=lambda row: list(networks()).index(row["network"]))
    ]
    publish(HERE / "members.md", table(head, shown))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
