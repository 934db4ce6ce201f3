"""The task's metrics of an exported file on its test split, and its outputs beside those of torch. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from automc.core import untrusted
from automc.core.judges import Array, Judge
from automc.core.metrics import METRICS, Estimate
from automc.errors import AutomcError, ProofError, one_line
from automc.export.bundle.manifest import Manifest
from automc.export.bundle.normalisation import Normalisation
from automc.export.formats import Network

BATCH = 100
"""Inputs per run when answers are collected: 50 to 100 is the fastest on a CPU."""

OUTPUT = "outputs."
"""Before the name of an output whose values are stored beside inputs and targets."""


@dataclass(frozen=True)
class StoredSplit:
    """A bundle's test split: raw inputs (n, ...), targets (n, ...), and what torch answered to the first k of them, by
    name of the output, shape (k, ...).
    """

    inputs: Array
    targets: Array
    outputs: Mapping[str, Array]

    @property
    def known(self) -> int:
        """k."""
        return min((len(each) for each in self.outputs.values()), default=0)


@dataclass(frozen=True)
class Likeness:
    """How near a file's outputs are to those that the searched network gave in torch.

    Attributes:
        inputs: on how many inputs, the first of the test split.
        agreement: by the task's own measure, 1 where all is the same (classes: share of equal predictions); None for a
            task that automc has no judge for.
        max_difference, mean_difference: absolute, over all numbers of all outputs.
        distance: root of the sum of squared differences over that of the squared outputs of torch.
    """

    inputs: int
    agreement: float | None
    max_difference: float
    mean_difference: float
    distance: float


@dataclass(frozen=True)
class Judged:
    """Of the compressed network and of the original one the task's metrics, the one that says most first, empty
    without a judge; and how near the compressed one is to torch, where outputs of torch are stored.
    """

    scores: Mapping[str, Estimate]
    baseline: Mapping[str, Estimate]
    likeness: Likeness | None


def read_test(path: Path) -> StoredSplit:
    """Raises ProofError: the file is unreadable, or its arrays are not equally long."""
    try:
        found = dict(untrusted.arrays(path))
        inputs, targets = found["inputs"], found["targets"]
    except (OSError, ValueError, KeyError) as error:
        raise ProofError(f"{path}: not a test split: {one_line(error)}") from error
    outputs = {name.removeprefix(OUTPUT): each for name, each in found.items() if name.startswith(OUTPUT)}
    if not inputs.ndim or not len(inputs) or targets.shape[:1] != inputs.shape[:1]:
        raise ProofError(f"{path}: needs one label for each input, not {targets.shape} for {inputs.shape}")
    if len({each.shape[:1] for each in outputs.values()}) > 1 or any(len(e) > len(inputs) for e in outputs.values()):
        raise ProofError(f"{path}: needs outputs of the first inputs, of each output equally many")
    if any(each.dtype.kind not in "iufb" for each in found.values()):
        raise ProofError(f"{path}: holds something else than numbers")
    return StoredSplit(inputs, targets, outputs)


def answers(network: Network, raw: Array, normalise: Normalisation, where: Path) -> Iterator[dict[str, Array]]:
    """All outputs for raw inputs, BATCH of them at a time.

    Raises:
        ProofError: one is NaN or infinite, or there is not one for each input.
    """
    for start in range(0, len(raw), BATCH):
        inputs = raw[start : start + BATCH]
        outputs = dict(network.outputs(as_network_takes(inputs, normalise)))
        for name, each in outputs.items():
            if each.shape[:1] != inputs.shape[:1] or not np.isfinite(each).all():
                raise ProofError(f"{where}: {name} must be finite, one for each input, not {each.shape}")
        yield outputs


def as_network_takes(raw: Array, normalise: Normalisation) -> Array:
    """Normalised; whole numbers stay as they are, unless there is a mean."""
    return raw if raw.dtype.kind == "i" and not normalise.mean else normalise(raw)


def judged(model: Network, baseline: Network, test: StoredSplit, manifest: Manifest, where: Path) -> Judged:
    """Run both networks on the test split.

    Raises:
        ProofError: an output is not finite, does not fit the targets, or is none of those stored.
    """
    judge, beside = manifest.judge(), Beside(test, manifest, where)
    ours: dict[str, list[Array]] = {}
    theirs: dict[str, list[Array]] = {}
    runs = (answers(each, test.inputs, manifest.normalisation, where) for each in (model, baseline))
    with _fitting(where):
        for number, (own, original) in enumerate(zip(*runs, strict=True)):
            beside.add(own, number * BATCH)
            if judge is None:
                continue
            targets, wanted = test.targets[number * BATCH : (number + 1) * BATCH], judge.answer(_form(original))
            for outputs, into in ((own, ours), (original, theirs)):
                for name, each in judge.judge(_form(outputs), wanted, targets).items():
                    into.setdefault(name, []).append(each)
        scores = [_summary(judge, parts) if judge else {} for parts in (ours, theirs)]
        return Judged(scores[0], scores[1], beside.likeness())


class Beside:
    """Outputs of a file beside those stored with the test split, a batch at a time."""

    def __init__(self, test: StoredSplit, manifest: Manifest, where: Path) -> None:
        self._test, self._judge, self._where = test, manifest.judge(), where
        self._judged: dict[str, list[Array]] = {}
        self._most = self._sum = self._wrong = self._size = 0.0
        self._numbers = 0

    def add(self, found: Mapping[str, Array], start: int) -> None:
        """The outputs from this place of the split on; what nothing is stored of is left out.

        Raises:
            ProofError: there are others than those stored.
        """
        rows = slice(start, min(start + BATCH, self._test.known))
        count = rows.stop - rows.start
        if count <= 0:
            return
        wanted = {name: each[rows] for name, each in self._test.outputs.items()}
        own = {name: each[:count] for name, each in found.items()}
        if {name: each.shape for name, each in own.items()} != {name: each.shape for name, each in wanted.items()}:
            raise ProofError(f"{self._where}: gives {', '.join(found)}; stored are {', '.join(wanted)}")
        for name, each in wanted.items():
            gap = np.abs(own[name].astype(np.float64) - each)
            self._most = max(self._most, float(gap.max(initial=0.0)))
            self._sum, self._numbers = self._sum + float(gap.sum()), self._numbers + gap.size
            self._wrong += float(np.square(gap).sum())
            self._size += float(np.square(each.astype(np.float64)).sum())
        if self._judge is not None:
            nothing_known = np.empty((count, 0))
            found_by = self._judge.judge(_form(own), self._judge.answer(_form(wanted)), nothing_known)
            for name, each in found_by.items():
                self._judged.setdefault(name, []).append(each)

    def likeness(self) -> Likeness | None:
        """Of all that was added; None where nothing is stored."""
        if not self._numbers:
            return None
        scores = _summary(self._judge, self._judged) if self._judge is not None else {}
        agreement = next((each.value for each in scores.values() if np.isfinite(each.value)), None)
        distance = float(np.sqrt(self._wrong / self._size)) if self._size else float(self._wrong > 0)
        return Likeness(self._test.known, agreement, self._most, self._sum / self._numbers, distance)


def likeness(network: Network, test: StoredSplit, manifest: Manifest, where: Path) -> Likeness | None:
    """Run a network on those inputs of which torch's outputs are stored. Raises as ``judged``."""
    beside = Beside(test, manifest, where)
    with _fitting(where):
        for number, found in enumerate(answers(network, test.inputs[: test.known], manifest.normalisation, where)):
            beside.add(found, number * BATCH)
        return beside.likeness()


@contextmanager
def _fitting(where: Path) -> Iterator[None]:
    """Outputs of other shapes make a judge raise whatever numpy raises."""
    try:
        yield
    except AutomcError:
        raise
    except (ArithmeticError, ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise ProofError(f"{where}: its outputs do not fit the task: {one_line(error)}") from error


def _form(outputs: Mapping[str, Array]) -> Any:
    """As the network returns them: one tensor, or several by name."""
    return dict(outputs) if len(outputs) > 1 else next(iter(outputs.values()))


def _summary(judge: Judge, parts: Mapping[str, list[Array]]) -> dict[str, Estimate]:
    found = judge.summarise({name: np.concatenate(each) for name, each in parts.items()})
    return {name: found[name] for name in judge.metrics if name in found and name in METRICS}
