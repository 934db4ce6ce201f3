"""What a command writes: trials as a table, JSON, CSV or Parquet, and files of any kind."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automc.app.tables import table, to_json
from automc.errors import SpecError

if TYPE_CHECKING:
    import pandas as pd


def write(frame: pd.DataFrame, form: str, columns: Sequence[str], output: Path | None) -> None:
    """Write the frame in the form ``table`` (then only these columns), ``json``, ``csv`` or ``parquet``.

    Raises:
        SpecError: Parquet to a terminal, or a file that cannot be written.
    """
    if form == "parquet" and output is None and sys.stdout.isatty():
        raise SpecError("--format parquet: not text; add -o FILE or redirect stdout")
    data = _bytes(frame, form, columns)
    if output is not None:
        save(output, data)
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(data)


def save(path: Path, data: bytes, fresh: bool = False) -> None:
    """Write a file; ``fresh`` refuses to replace one.

    Raises:
        SpecError: the file exists already, or cannot be written.
    """
    try:
        with path.open("xb" if fresh else "wb") as file:
            file.write(data)
    except FileExistsError as error:
        raise SpecError(f"{path}: exists already; choose another name with -o FILE") from error
    except OSError as error:
        raise SpecError(f"{path}: cannot be written: {error.strerror or error}") from error


def _bytes(frame: pd.DataFrame, form: str, columns: Sequence[str]) -> bytes:
    if form == "parquet":
        data: bytes = frame.to_parquet(index=False)
        return data
    if form == "csv":
        return frame.to_csv(index=False).encode()
    if form == "json":
        return (to_json(frame) + "\n").encode()
    return (frame_text(frame, columns) if len(frame) else "no trials").encode() + b"\n"


def frame_text(frame: pd.DataFrame, columns: Sequence[str]) -> str:
    """These columns of the frame for people: short fingerprints, and no reasons where nothing failed."""
    found = rows(frame[list(columns)])
    for row in found:
        if "fingerprint" in row:
            row["fingerprint"] = str(row["fingerprint"])[:12]
    return table(found, [name for name in columns if name != "reason" or any(row[name] for row in found)])


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The frame as one mapping a row."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
