"""Image parquet in the Hugging Face convention: a column of {bytes, path} structs and a column of labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from automc.core.required import DATA_SET, show
from automc.core.rules import nearest
from automc.errors import DataError, SpecError, one_line
from automc.evaluation.factories import resolve_path
from automc.evaluation.readers.images import Pixels, decode, image_size, stack
from automc.evaluation.splits import Facts, Split

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "labels", "fine_label", "target")
SEARCH_SHARE = 0.1


@dataclass(frozen=True)
class ParquetReader:
    """``search`` holds the rows [low, high) of the train file; ``train`` is every other row of it."""

    train: Path
    test: Path | None
    image: str
    label: str
    rows: int
    search: tuple[int, int]
    size: tuple[int, int] | None

    def read(self, split: str, limit: int | None) -> Split:
        if split == "search":
            return self._rows(self.train, [self.search], limit)
        if split == "train":
            low, high = self.search
            return self._rows(self.train, [(0, low), (high, self.rows)], limit)
        if self.test is None:
            raise DataError("data parquet: there is no test file (settings: test: path)")
        with _open(self.test) as file:
            for column in (self.image, self.label):
                _column(self.test, file, column, ())
            rows = file.metadata.num_rows
        return self._rows(self.test, [(0, rows)], limit)

    def _rows(self, path: Path, ranges: list[tuple[int, int]], limit: int | None) -> Split:
        parts = [table for span in ranges if (table := _read(path, [self.image, self.label], span)).num_rows]
        table = pa.concat_tables(parts).slice(0, limit) if parts else None
        if table is None or not table.num_rows:
            raise DataError(f"{path}: rows {ranges} are empty")
        cells, labels = table.column(self.image), table.column(self.label)
        if labels.null_count:
            raise DataError(f"{path}: column {self.label!r} has {labels.null_count} empty labels")

        def load(row: int) -> Pixels:
            cell = cells[row].as_py()
            content = cell.get("bytes") if isinstance(cell, dict) else cell
            if not isinstance(content, bytes):
                raise DataError(f"{path}: column {self.image!r}, row {row} of the split holds no image bytes")
            return decode(content, f"{path}: row {row} of the split", self.size)

        inputs = stack(table.num_rows, load, lambda row: f"{path}: row {row} of the split")
        return Split(inputs, torch.from_numpy(labels.to_numpy().astype(np.int64)))


def open_parquet(settings: Mapping[str, Any], base: Path | None) -> tuple[Facts, ParquetReader]:
    """Reads the train file's footer and label column; touches no image and not the test file.

    Raises:
        SpecError: the setting train is missing, a column's name is no text, a search range is outside the rows, or a
            size is none.
        DataError: train is no parquet file, or has no such column.
    """
    if not settings.get("train"):
        raise SpecError(f"{DATA_SET}: train is missing: path of a parquet file")
    for key in ("image_column", "label_column"):
        if not isinstance(settings.get(key) or "", str):
            raise SpecError(f"{DATA_SET}.{key}: must be the name of a column, not {show(settings[key])}")
    train = resolve_path(settings["train"], base)
    test = resolve_path(settings["test"], base) if settings.get("test") else None
    with _open(train) as file:
        image = _column(train, file, settings.get("image_column"), IMAGE_COLUMNS)
        label = _column(train, file, settings.get("label_column"), LABEL_COLUMNS)
        rows = int(file.metadata.num_rows)
    search = _range(settings.get("search"), rows)
    labels = _read(train, [label], (0, rows)).column(label)
    if not pa.types.is_integer(labels.type) or not rows:
        raise DataError(f"{train}: column {label!r} must hold whole numbers, not {labels.type} ({rows} rows)")
    classes = int(np.nanmax(labels.to_numpy())) + 1
    return Facts(classes), ParquetReader(train, test, image, label, rows, search, image_size(settings.get("size")))


def _open(path: Path) -> pq.ParquetFile:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as raised:
        raise DataError(f"{path}: unreadable or truncated parquet file ({one_line(raised)})") from raised


def _column(path: Path, file: pq.ParquetFile, wanted: str | None, guesses: tuple[str, ...]) -> str:
    names = file.schema_arrow.names
    found = next((name for name in ([wanted] if wanted else guesses) if name in names), None)
    if found is None:
        what = f"no column {wanted!r}{nearest(wanted, names)}" if wanted else f"no column {' or '.join(guesses)}"
        raise DataError(f"{path}: {what} (it has: {', '.join(names)})")
    return found


def _range(value: Any, rows: int) -> tuple[int, int]:
    if value is None:
        return rows - max(int(SEARCH_SHARE * rows), 1), rows
    whole = isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(n, int) for n in value)
    if not whole or not 0 <= value[0] < value[1] <= rows:
        raise SpecError(f"{DATA_SET}.search: must be a row range [low, high] within 0..{rows}, not {show(value)}")
    return int(value[0]), int(value[1])


def _read(path: Path, columns: list[str], span: tuple[int, int]) -> pa.Table:
    """Rows [low, high) of some columns; reads only the row groups that hold them."""
    low, high = span
    with _open(path) as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
        groups = [i for i in range(len(sizes)) if starts[i] < high and starts[i + 1] > low]
        try:
            table = file.read_row_groups(groups, columns=columns)
        except (pa.ArrowException, OSError) as raised:
            raise DataError(f"{path}: unreadable or truncated parquet file ({one_line(raised)})") from raised
    offset = int(starts[groups[0]]) if groups else 0
    return table.slice(max(low - offset, 0), high - low)
