"""Bundles for the tests: a fitted digits network, compressed to few bits, and its promise."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from export_nets import MEAN, SCALE, STD, compressed, digits, fitted, normalise
from torch import nn

from automc.core.policy import Policy, Site
from automc.export.bundle.normalisation import Normalisation
from automc.export.bundle.writing import TestSplit, write_bundle
from automc.export.packed import dumps
from automc.export.proof.proving import verify

EXAMPLE = torch.zeros(1, 1, 8, 8)


@functools.cache
def networks() -> tuple[nn.Module, nn.Module]:
    """The compressed and the original network; not to be changed."""
    return compressed(fitted(16)), fitted(16)


@functools.cache
def split() -> TestSplit:
    raw, targets = digits()
    with torch.no_grad():
        answered = networks()[0](normalise(raw[1200:])).numpy()
    return TestSplit(raw[1200:], targets[1200:], Normalisation(SCALE, MEAN, STD), {"output": answered})


@functools.cache
def promised() -> dict[str, float]:
    """Metrics of the compressed network on the test split, in torch; the costs are made up."""
    model, original = networks()
    with torch.no_grad():
        ours, theirs = (net(normalise(split().inputs)).argmax(1).numpy() for net in (model, original))
    size = float(len(dumps(model, EXAMPLE)))
    return {
        "top1": float((ours == split().targets).mean()),
        "agreement": float((ours == theirs).mean()),
        "size_bytes": size,
        "size_ratio": size / len(dumps(original, EXAMPLE)),
        "macs": 400.0,
        "macs_ratio": 0.4,
    }


@functools.cache
def baseline() -> dict[str, float]:
    with torch.no_grad():
        theirs = networks()[1](normalise(split().inputs)).argmax(1).numpy()
    return {"top1": float((theirs == split().targets).mean()), "macs": 1000.0}


def write(folder: Path, facts: dict[str, Any] | None = None, **changes: Any) -> Path:
    model, original = networks()
    known = {
        "metrics": promised(),
        "baseline": baseline(),
        "constraints": ["macs_ratio <= 0.5", "top1 >= 0.85", "size_ratio <= 0.4"],
        "realized": {"conv1": {"weight_bits": 4}},
        "rows": [{"layer": "conv1", "kind": "conv", "weight_bits": 4, "share": 0.25}],
        "study": "digits",
        "trial": 7,
    }
    arguments = {
        "model": model,
        "baseline_model": original,
        "example": EXAMPLE,
        "test": split(),
        "policy": Policy({Site("quantize", "conv1", "weight_bits"): 4}),
        "facts": {**known, **(facts or {})},
        "batches": (1, 8),
        "prove": functools.partial(verify, rounds=1, apart=False),
    }
    return write_bundle(folder, **{**arguments, **changes}).folder
