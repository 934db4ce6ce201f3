"""One network of an export in a process of its own: how long it loads, what memory it takes, what it answers.

``python -m automc.export.proof.alone FOLDER NAME`` prints that as JSON, for a format or the ``baseline``. Only the
runtime of that format is loaded.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from automc.core.machine import peak_bytes
from automc.errors import AutomcError, ProofError
from automc.export.bundle.manifest import BASELINE, TEST, Manifest
from automc.export.formats import FORMATS, MODEL, Format, Network
from automc.export.proof.fresh import fresh
from automc.export.proof.judged import Likeness, likeness, read_test

ORIGINAL = "baseline"


@dataclass(frozen=True)
class Alone:
    """What a process found that loaded and ran one network only.

    Attributes:
        load_ms: from the file to a network that can run.
        idle_bytes: the most memory that the process had held before, its runtime being imported. peak_bytes: and after
            runs of each stated batch.
        likeness: to the searched network; None for the original one, or where no outputs are stored.
        missing: what is not installed here, so that nothing was measured; "" where all is.
    """

    load_ms: float = 0.0
    idle_bytes: int = 0
    peak_bytes: int = 0
    likeness: Likeness | None = None
    missing: str = ""

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Alone:
        """What ``asdict`` made of one."""
        near = Likeness(**data["likeness"]) if data["likeness"] is not None else None
        return cls(**{**data, "likeness": near})


def alone(folder: Path, name: str) -> Alone:
    """Measure one network in a new process.

    Raises:
        ProofError: it cannot be loaded or run there.
    """
    if name != ORIGINAL and (absent := FORMATS[name].missing()):
        return Alone(missing=absent)
    try:
        return Alone.from_data(fresh("automc.export.proof.alone", folder, name))
    except (KeyError, TypeError) as error:
        raise ProofError(f"{folder}: {name}: its process gave another answer: {error!r}") from error


def measured(folder: Path, manifest: Manifest, name: str) -> Alone:
    """The same in this process."""
    original = name == ORIGINAL
    each = FORMATS["onnx" if original else name]
    for needed in (each.runner.partition(":")[0], *each.needs):
        import_module(needed)
    idle, start = peak_bytes(), time.perf_counter()
    network = _opened(folder, each, original)
    load_ms = (time.perf_counter() - start) * 1e3
    for batch in manifest.batches:
        shape = (batch, *manifest.input_shape)
        network.outputs(np.zeros(shape, int if manifest.whole else np.float32))
    peak = peak_bytes()
    near = None
    if not original:
        near = likeness(network, read_test(folder / TEST), manifest, folder / next(iter(each.files)))
    return Alone(load_ms, idle, peak, near)


def _opened(folder: Path, each: Format, original: bool) -> Network:
    if not original:
        return each.opened(folder)
    from automc.export.onnx.runtime import Runner

    return Runner(folder / BASELINE)


def main(arguments: list[str]) -> int:
    """The command: 0 when all was measured, else the error's exit code."""
    if len(arguments) != 2 or arguments[1] not in (ORIGINAL, *FORMATS):
        print(f"usage: python -m automc.export.proof.alone FOLDER NAME (of {MODEL}'s folder)", file=sys.stderr)
        return 2
    try:
        folder = Path(arguments[0])
        print(json.dumps(asdict(measured(folder, Manifest.read(folder), arguments[1]))))
    except AutomcError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
