"""What a command writes: trials as a table, JSON, CSV or Parquet, and files of any kind."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automc.app.tables import plain, table, to_json
from automc.errors import SpecError, one_line

if TYPE_CHECKING:
    import pandas as pd


def write(
    frame: pd.DataFrame, form: str, columns: Sequence[str], output: Path | None, empty: str = "no trials"
) -> None:
    """Write the frame in the form ``table`` (then only these columns), ``json``, ``jsonl``, ``csv`` or ``parquet``.

    Args:
        empty: what a table without rows says.

    Raises:
        SpecError: Parquet to a terminal or of values that it cannot hold, or a file that cannot be written.
    """
    if form == "parquet" and output is None and sys.stdout.isatty():
        raise SpecError("--format parquet: not text; add -o FILE or redirect stdout")
    data = encoded(frame, form, columns, empty)
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


def encoded(frame: pd.DataFrame, form: str, columns: Sequence[str], empty: str = "no trials") -> bytes:
    """What ``write`` writes. Raises SpecError for values that Parquet cannot hold."""
    if form == "parquet":
        return _parquet(frame)
    if form == "csv":
        return frame.to_csv(index=False).encode()
    if form == "json":
        return (to_json(frame) + "\n").encode()
    if form == "jsonl":
        return "".join(json.dumps(plain(row), allow_nan=False) + "\n" for row in rows(frame)).encode()
    return (frame_text(frame, columns) if len(frame) else empty).encode() + b"\n"


def _parquet(frame: pd.DataFrame) -> bytes:
    bare = frame.copy(deep=False)
    bare.attrs = {}  # which would be written into the file
    try:
        data: bytes = bare.to_parquet(index=False)
    except (ValueError, TypeError, OverflowError) as error:  # pyarrow's are of these kinds
        raise SpecError(f"format parquet: {one_line(error)}; csv holds any values") from error
    return data


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
