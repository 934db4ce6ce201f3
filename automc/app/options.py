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
    """How ``automc trials`` and ``automc query`` write their rows."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


class ReportFormat(str, Enum):
    """How ``automc report`` writes."""

    HTML = "html"
    MARKDOWN = "md"


def _text(metavar: str, about: str, *names: str) -> Any:
    return typer.Option(*names, metavar=metavar, help=about)


def _workers(text: str) -> int | str:
    """A number of workers, or ``auto``."""
    if text != "auto" and not text.isdecimal():
        raise typer.BadParameter(f"{text!r} is neither a whole number of at least 0 nor auto")
    return text if text == "auto" else int(text)


Name = Annotated[str, typer.Argument(metavar="NAME", help="name of a study")]
Ref = Annotated[str, typer.Argument(metavar="NAME/NUMBER", help="a trial, such as digits/17")]
Chosen = Annotated[
    str, typer.Argument(metavar="NAME/NUMBER", help="a trial; or NAME alone with --pick, --min, --max or --front")
]
OtherRef = Annotated[str, typer.Argument(metavar="NAME/NUMBER", help="another trial, also of another study")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="study file (YAML)")]
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="what automc export wrote")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="zoo name, package.module:factory or file.py:factory")]

Json = Annotated[bool, typer.Option("--json", help="print one JSON document")]
_WHERE = "trial database: a URL or a SQLite file  [default: $AUTOMC_STORAGE or automc.db]"
Storage = Annotated[str | None, _text("URL", _WHERE)]
Server = Annotated[str | None, _text("URL", "ask a service in the place of a database; token: $AUTOMC_TOKEN")]
_COUNT = "worker processes; 0: in this process; auto: all there is room for"
Workers = Annotated[str | None, typer.Option(metavar="N", parser=_workers, help=_COUNT)]
Address = Annotated[str | None, _text("HOST:PORT", "of the Ray cluster; local starts one")]
Set = Annotated[list[str] | None, _text("KEY=VALUE", "change one key; may be repeated", "--set")]
Arguments = Annotated[list[str] | None, _text("KEY=VALUE", "argument of the factory; may be repeated", "--set")]

StudyName = Annotated[str | None, typer.Option(help="name of the study")]
Trials = Annotated[int | None, typer.Option(min=1, help="trials to evaluate")]
MoreTrials = Annotated[int | None, typer.Option("--trials", metavar="+N", help="how many more trials")]
Seconds = Annotated[float | None, typer.Option(metavar="S", help="how long to search from now on, at most")]
Backfill = Annotated[bool, typer.Option("--backfill", help="measure the front again for metrics that it lacks")]
Seed = Annotated[int | None, typer.Option(help="seed of every random choice")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="check only; write nothing")]
Proposer = Annotated[str | None, _text("NAME", "who proposes from now on; it is told all trials so far")]

From = Annotated[list[str] | None, _text("NAME[@URL]", "reuse the trials of another study; may be repeated", "--from")]

Where = Annotated[str | None, _text("FILTER", 'such as "top1 >= 0.95 and size_ratio < 0.2"')]
Sort = Annotated[str, _text("KEYS", "columns, - for descending: -top1,size_bytes")]
Columns = Annotated[str, _text("LIST", "which columns: number,top1,size_bytes")]
After = Annotated[str, _text("CURSOR", "go on behind the page that ended with this cursor")]
Sql = Annotated[str, typer.Argument(metavar="SQL", help='such as "SELECT trial, top1 FROM front"')]
Rows = Annotated[int, typer.Option(min=1, help="at most so many rows")]
Within = Annotated[float, typer.Option("--seconds", min=0.001, max=600, help="ends a statement that takes longer")]
At = Annotated[int | None, typer.Option(min=0, metavar="N", help="the front when N trials had finished")]
Limit = Annotated[int | None, typer.Option(min=1, help="at most so many rows")]
Form = Annotated[Format, typer.Option("--format", help="how to write the rows")]
Output = Annotated[Path | None, _text("FILE", "instead of stdout", "--output", "-o")]
NewFile = Annotated[Path, _text("FILE", "file to write", "--output", "-o")]
NewFolder = Annotated[Path, _text("FOLDER", "folder to write", "--output", "-o")]
Formats = Annotated[str, _text("LIST", "which files: onnx, packed", "--format")]

X = Annotated[str | None, _text("METRIC", "horizontal axis of the picture", "--x")]
Y = Annotated[str | None, _text("METRIC", "vertical axis of the picture", "--y")]
Pick = Annotated[str | None, _text("RULE", 'one of the front: knee, max:top1, min:size_bytes, "size_ratio <= 0.1"')]
Least = Annotated[str | None, _text("METRIC", "of the front, or what --pick holds for, the least", "--min")]
Most = Annotated[str | None, _text("METRIC", "of the front, or what --pick holds for, the most", "--max")]
Front = Annotated[bool, typer.Option("--front", help="all of the front, a folder each, and FRONT.md")]
Batches = Annotated[str, _text("LIST", "inputs of one timed run, beside the study's own  [default: 1]", "--batches")]
Below = Annotated[list[str] | None, _text("METRIC=AMOUNT", "at most, such as size_bytes=60kB", "--max")]
Above = Annotated[list[str] | None, _text("METRIC=AMOUNT", "at least, such as top1=0.9", "--min")]
ReportForm = Annotated[ReportFormat | None, typer.Option("--format", help="[default: by the file's name, else html]")]
All = Annotated[bool, typer.Option("--all", help="also what is the same")]
Metric = Annotated[str | None, _text("METRIC", "what the decisions mattered for  [default: the first objective]")]
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
    return [*(more or ()), *(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in chosen.items())]


def split_ref(ref: str) -> tuple[str, int]:
    """Study and number of ``NAME/NUMBER``. Raises SpecError."""
    name, slash, number = ref.rpartition("/")
    if not slash or not name or not number.isdecimal():
        raise SpecError(f"a trial is written NAME/NUMBER, such as digits/17, not {ref!r}")
    return name, int(number)


def listed(text: str) -> list[str]:
    """``a, b`` as its parts."""
    return [part.strip() for part in text.split(",") if part.strip()]


def batch_sizes(text: str) -> list[int]:
    """``1,8`` as numbers. Raises SpecError."""
    parts = listed(text)
    if not all(part.isdecimal() and 1 <= int(part) <= 65536 for part in parts):
        raise SpecError(f"--batches {text}: whole numbers from 1 to 65536 with commas between them, such as 1,8")
    return [int(part) for part in parts]


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
