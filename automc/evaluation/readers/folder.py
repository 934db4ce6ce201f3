"""Image folders: ``train/CLASS/*.png``, ``test/CLASS/*.png`` and, if you like, ``search/CLASS/*.png``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from automc.core.required import DATA_SET
from automc.errors import DataError, SpecError
from automc.evaluation.factories import resolve_path
from automc.evaluation.readers.images import decode, image_size, stack
from automc.evaluation.splits import Facts, Split, unlabelled

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
SEARCH_SHARE = 0.1


@dataclass(frozen=True)
class FolderReader:
    """Classes are the sorted names of the sub-folders of ``train``; its files come in one fixed shuffled order.

    Without a folder ``search`` the last tenth of the shuffled train files is the search split. Without sub-folders the
    images have no labels.
    """

    path: Path
    classes: tuple[str, ...]
    size: tuple[int, int] | None

    def read(self, split: str, limit: int | None) -> Split:
        own = split == "test" or (self.path / "search").is_dir()
        files = self._files(split if own else "train")
        if not own:
            cut = len(files) - max(int(SEARCH_SHARE * len(files)), 1)
            files = files[cut:] if split == "search" else files[:cut]
        files = files[:limit]
        if not files:
            raise DataError(f"{self.path}: no images left for the {split} split")
        names = [str(file) for file, _ in files]
        inputs = stack(len(files), lambda i: decode(files[i][0].read_bytes(), names[i], self.size), names)
        if not self.classes:
            return Split(inputs, unlabelled(len(inputs)))
        return Split(inputs, torch.tensor([label for _, label in files], dtype=torch.int64))

    def _files(self, folder: str) -> list[tuple[Path, int]]:
        found: list[tuple[Path, int]] = []
        for label, name in enumerate(self.classes or ("",)):
            where = self.path / folder / name
            files = sorted(images(where)) if where.is_dir() else []
            if not files:
                raise DataError(f"{where}: needs at least one image ({', '.join(SUFFIXES)})")
            found += [(file, label) for file in files]
        # Shuffled, so that every prefix (calibration, search_limit) mixes the classes.
        return [found[i] for i in np.random.RandomState(0).permutation(len(found))]


def images(folder: Path) -> Iterator[Path]:
    """The image files below a folder."""
    return (file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)


def open_folder(settings: Mapping[str, Any], base: Path | None) -> tuple[Facts, FolderReader]:
    """Lists the class folders of ``train``.

    Raises:
        SpecError: the setting path is missing, or a size that is none.
        DataError: no folder, or no class folder in it.
    """
    if not settings.get("path"):
        raise SpecError(f"{DATA_SET}: path is missing: folder that holds train/ and test/")
    path = resolve_path(settings["path"], base)
    train = path / "train"
    classes = tuple(sorted(f.name for f in train.iterdir() if f.is_dir())) if train.is_dir() else ()
    if not classes and not (train.is_dir() and any(images(train))):
        raise DataError(f"{train}: must be a folder with one sub-folder of images per class, or of unlabelled images")
    return Facts(len(classes)), FolderReader(path, classes, image_size(settings.get("size")))
