"""Arrays in .npz files, read without pickle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from automc.core import untrusted
from automc.core.required import DATA_SET
from automc.errors import DataError, SpecError, one_line
from automc.evaluation.factories import resolve_path
from automc.evaluation.splits import Facts, Split, classes_of

PAIRS = (("inputs", "targets"), ("x", "y"), ("images", "labels"))
SEARCH_SHARE = 0.1


@dataclass(frozen=True)
class NpzReader:
    """Arrays ``x_train, y_train, x_test, y_test`` and, if present, ``x_search, y_search``; or one pair per file.

    A pair is ``inputs, targets`` (or ``x, y``, or ``images, labels``). Without a search array it is the last tenth
    of train. uint8 inputs are pixels; floats are taken as they are. Inputs without their targets are unlabelled.
    """

    path: Path
    test: Path | None

    def read(self, split: str, limit: int | None) -> Split:
        path = self.test if split == "test" and self.test else self.path
        x, y = pair(path, split, plain=split != "test" or self.test is not None)
        inputs, labels = array(path, x), array(path, y) if y else None
        cut = len(inputs) - max(int(SEARCH_SHARE * len(inputs)), 1)
        rows = slice(None)
        if split == "search" and not x.endswith("_search"):
            rows = slice(cut, None)
        elif split == "train" and not pair(path, "search")[0].endswith("_search"):
            rows = slice(None, cut)
        return as_split(inputs[rows][:limit], None if labels is None else labels[rows][:limit], str(path))


def open_npz(settings: Mapping[str, Any], base: Path | None) -> tuple[Facts, NpzReader]:
    """Reads the train labels.

    Raises:
        SpecError: the setting path is missing.
        DataError: not an .npz file, or no such arrays.
    """
    if not settings.get("path"):
        raise SpecError(f"{DATA_SET}: path is missing: an .npz file")
    path = resolve_path(settings["path"], base)
    x, y = pair(path, "train")
    classes = classes_of(array(path, y)) if y else 0
    scale = 255.0 if array(path, x).dtype == np.uint8 else 1.0
    test = resolve_path(settings["test"], base) if settings.get("test") else None
    return Facts(classes, scale), NpzReader(path, test)


def pair(path: Path, split: str, plain: bool = True) -> tuple[str, str]:
    """Names of the arrays that hold a split's inputs and labels, "" without; ``plain`` allows names without a split."""
    names = _names(path)
    wanted = [f"{{}}_{split}"] + (["{}_train"] if split == "search" else [])
    known = [(form.format("x"), form.format("y")) for form in wanted] + (list(PAIRS) if plain else [])
    for x, y in known:
        if x in names:
            return x, y if y in names else ""
    other = ", or inputs and targets" if plain else ", or give test: a file of its own"
    raise DataError(f"{path}: needs arrays x_{split} and y_{split}{other} (it has: {', '.join(names)})")


def _names(path: Path) -> list[str]:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        return untrusted.array_names(path.resolve(), strict=False)
    except (ValueError, OSError) as raised:
        raise DataError(f"{path}: unreadable or truncated .npz file ({one_line(raised)})") from raised


def array(path: Path, name: str) -> NDArray[Any]:
    """One array; the file's other arrays are not read."""
    try:
        return untrusted.arrays(path.resolve(), [name], strict=False)[name]
    except (ValueError, OSError, KeyError) as raised:
        raise DataError(f"{path}: array {name!r} is unreadable, truncated or pickled ({one_line(raised)})") from raised


def as_split(inputs: Any, targets: Any, where: str) -> Split:
    """Arrays or tensors as a split: inputs uint8, int64 (whole numbers of any other type) or float32, targets int64
    or float32; None for no targets.

    Raises:
        DataError: inputs or targets that are no numbers.
    """
    x = np.asarray(inputs)
    y = np.empty((len(x) if x.ndim else 0, 0), np.int64) if targets is None else np.asarray(targets)
    if x.dtype.kind not in "iufb" or y.dtype.kind not in "iufb" or x.ndim < 2 or not y.ndim:
        raise DataError(f"{where}: needs numeric inputs (n, ...) and targets (n, ...), not {x.dtype} and {y.dtype}")
    if x.dtype != np.uint8:
        x = x.astype(np.int64 if x.dtype.kind in "iu" else np.float32)
    y = y.astype(np.float32 if y.dtype.kind == "f" else np.int64)
    return Split(torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(np.ascontiguousarray(y)))
