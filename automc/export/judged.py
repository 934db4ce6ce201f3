"""The task's metrics of an exported file on its test split, or its outputs beside those of torch. Loads no torch."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from automc.core.judges import Array, Judge
from automc.errors import AutomcError, ProofError, one_line
from automc.export.manifest import Manifest
from automc.export.runtime import BATCH, Runner

OUTPUT = "outputs."
"""Before the name of an output whose values are stored beside inputs and targets."""


@dataclass(frozen=True)
class StoredSplit:
    """A bundle's test split: raw inputs (n, ...), targets (n, ...), and what torch answered, where it is stored."""

    inputs: Array
    targets: Array
    outputs: Mapping[str, Array]


def read_test(path: Path) -> StoredSplit:
    """Raises ProofError: the file is unreadable, or its arrays are not equally long."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
            inputs, targets = found["inputs"], found["targets"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ProofError(f"{path}: not a test split: {one_line(error)}") from error
    outputs = {name.removeprefix(OUTPUT): each for name, each in found.items() if name.startswith(OUTPUT)}
    for each in (targets, *outputs.values()):
        if not len(inputs) or each.shape[:1] != inputs.shape[:1]:
            raise ProofError(f"{path}: needs one label for each input, not {each.shape} for {inputs.shape}")
    return StoredSplit(inputs, targets, outputs)


def measured_scores(
    judge: Judge, model: Runner, baseline: Runner, test: StoredSplit, manifest: Manifest
) -> tuple[dict[str, float], dict[str, float]]:
    """The task's metrics of both networks, the one that says most first.

    Raises:
        ProofError: an output is not finite or does not fit the targets.
    """
    ours: dict[str, list[Array]] = {}
    theirs: dict[str, list[Array]] = {}
    runs = (runner.batches(test.inputs, manifest.normalisation) for runner in (model, baseline))
    try:
        for number, (own, original) in enumerate(zip(*runs, strict=True)):
            targets, wanted = test.targets[number * BATCH : (number + 1) * BATCH], judge.answer(_form(original))
            for outputs, judged in ((own, ours), (original, theirs)):
                for name, each in judge.judge(_form(outputs), wanted, targets).items():
                    judged.setdefault(name, []).append(each)
        return _summary(judge, ours), _summary(judge, theirs)
    except AutomcError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise ProofError(f"{model.path}: its outputs do not fit the task: {one_line(error)}") from error


def distance(model: Runner, test: StoredSplit, manifest: Manifest) -> float:
    """Size of the differences from the stored outputs over the size of these.

    Raises:
        ProofError: an output is not finite, or there are others than those stored.
    """
    wrong = size = 0.0
    for number, found in enumerate(model.batches(test.inputs, manifest.normalisation)):
        rows = slice(number * BATCH, (number + 1) * BATCH)
        wanted = {name: each[rows] for name, each in test.outputs.items()}
        if {name: each.shape for name, each in found.items()} != {name: each.shape for name, each in wanted.items()}:
            raise ProofError(f"{model.path}: gives {', '.join(found)}; stored are {', '.join(wanted) or 'no outputs'}")
        for name, each in wanted.items():
            wrong += float(np.square(found[name].astype(np.float64) - each).sum())
            size += float(np.square(each.astype(np.float64)).sum())
    return float(np.sqrt(wrong / size)) if size else float(wrong > 0)


def _form(outputs: Mapping[str, Array]) -> Any:
    """As the network returns them: one tensor, or several by name."""
    return dict(outputs) if len(outputs) > 1 else next(iter(outputs.values()))


def _summary(judge: Judge, judged: Mapping[str, list[Array]]) -> dict[str, float]:
    found = judge.summarise({name: np.concatenate(each) for name, each in judged.items()})
    order = [name for name in judge.metrics if name in found]
    return {name: found[name].value for name in order}
