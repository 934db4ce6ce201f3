"""The arguments and options of the commands, and how their texts are read."""

from __future__ import annotations

import json
import os
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from automc.errors import SpecError


class Format(str, Enum):
    """How ``automc trials`` writes its rows."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


def _text(metavar: str, about: str, *names: str) -> Any:
    return typer.Option(*names, metavar=metavar, help=about)


Name = Annotated[str, typer.Argument(metavar="NAME", help="name of a study")]
Ref = Annotated[str, typer.Argument(metavar="NAME/NUMBER", help="a trial, such as digits/17")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="study file (YAML)")]
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="what automc export wrote")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="zoo name, package.module:factory or file.py:factory")]

Json = Annotated[bool, typer.Option("--json", help="print one JSON document")]
_WHERE = "trial database: a URL or a SQLite file  [default: $AUTOMC_STORAGE or automc.db]"
Storage = Annotated[str | None, _text("URL", _WHERE)]
Workers = Annotated[int | None, typer.Option(min=0, help="worker processes; 0 evaluates in this process")]
Set = Annotated[list[str] | None, _text("KEY=VALUE", "change one key; may be repeated", "--set")]
Arguments = Annotated[list[str] | None, _text("KEY=VALUE", "argument of the factory; may be repeated", "--set")]

StudyName = Annotated[str | None, typer.Option(help="name of the study")]
Trials = Annotated[int | None, typer.Option(min=1, help="trials to evaluate")]
MoreTrials = Annotated[int, typer.Option(metavar="+N", help="how many more trials")]
Seed = Annotated[int | None, typer.Option(help="seed of every random choice")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="check only; write nothing")]
Proposer = Annotated[str | None, _text("NAME", "who proposes from now on; it is told all trials so far")]

From = Annotated[list[str] | None, _text("NAME[@URL]", "reuse the trials of another study; may be repeated", "--from")]
SetProposer = Annotated[list[str] | None, _text("KEY=VALUE", "change proposer.settings.KEY; may be repeated", "--set")]

Where = Annotated[str | None, _text("FILTER", 'such as "top1 >= 0.95 and size_ratio < 0.2"')]
Sort = Annotated[str, _text("KEYS", "columns, - for descending: -top1,size_bytes")]
Limit = Annotated[int | None, typer.Option(min=1, help="at most so many rows")]
Form = Annotated[Format, typer.Option("--format", help="how to write the rows")]
Output = Annotated[Path | None, _text("FILE", "instead of stdout", "--output", "-o")]
NewFile = Annotated[Path, _text("FILE", "file to write", "--output", "-o")]
NewFolder = Annotated[Path, _text("FOLDER", "folder to write", "--output", "-o")]
Formats = Annotated[str, _text("LIST", "onnx, safetensors", "--format")]

X = Annotated[str | None, _text("METRIC", "horizontal axis of the picture", "--x")]
Y = Annotated[str | None, _text("METRIC", "vertical axis of the picture", "--y")]
Pick = Annotated[str | None, _text("RULE", 'one of the front: knee, max:top1, min:size_bytes, "size_ratio <= 0.1"')]
Plot = Annotated[Path | None, _text("FILE.png", "also draw a PNG picture")]
Shape = Annotated[str, _text("C,H,W", "shape of one input", "--input")]
Weights = Annotated[Path | None, _text("FILE", ".safetensors, .pt or .th")]


def storage_of(given: str | None) -> str:
    """The trial database: as given, else that of the environment, else the default file."""
    from automc.app.study_schema import DEFAULT_STORAGE

    return given or os.environ.get("AUTOMC_STORAGE") or DEFAULT_STORAGE


def overrides(more: list[str] | None, **named: Any) -> list[str]:
    """``key=value`` texts for a study file: those of ``--set``, then the options that were given.

    An underscore in a name stands for a dot; values are written as JSON, which is YAML: quoted, a study may be
    called 17.
    """
    chosen = {key.replace("_", "."): value for key, value in named.items() if value is not None}
    return [*(more or ()), *(f"{key}={json.dumps(value)}" for key, value in chosen.items())]


def split_ref(ref: str) -> tuple[str, int]:
    """Study and number of ``NAME/NUMBER``. Raises SpecError."""
    name, slash, number = ref.rpartition("/")
    if not slash or not name or not number.isdecimal():
        raise SpecError(f"a trial is written NAME/NUMBER, such as digits/17, not {ref!r}")
    return name, int(number)


def shape(text: str) -> tuple[int, ...] | None:
    """``3,32,32`` or ``3x32x32``; None when empty. Raises SpecError."""
    parts = [part for part in text.replace("x", ",").split(",") if part]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise SpecError(f"--input {text}: sizes above 0 with commas between them, such as 3,32,32")
    return tuple(int(part) for part in parts) or None


def settings(texts: list[str] | None) -> dict[str, Any]:
    """``KEY=VALUE`` texts as keyword arguments: numbers, true, false and lists as in JSON, the rest as text.

    Raises:
        SpecError: another form.
    """
    found: dict[str, Any] = {}
    for text in texts or ():
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise SpecError(f"--set {text!r}: must read KEY=VALUE")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found
