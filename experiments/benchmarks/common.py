"""What the benchmarks share: the study they measure on, tables, and where they ran."""

from __future__ import annotations

import csv
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from automc.app.config import StudyFile, read_study
from automc.core.study import StudySpec

HERE = Path(__file__).resolve().parent
STUDY = HERE.parent / "cifar10_resnet20" / "study.yaml"


def cifar(*changes: str) -> StudySpec:
    """The ResNet-20 study with everything in its space, changed as ``--set`` would; needs the shared data."""
    return cifar_file("space=everything", *changes).spec


def cifar_file(*changes: str) -> StudyFile:
    """The ResNet-20 study, changed as ``--set`` would."""
    return read_study(STUDY, list(changes))


def machine() -> str:
    """Where this ran."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("automc", "torch", "numpy", "onnxruntime"))
    return f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, {versions}; one thread."


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def publish(path: Path, *paragraphs: str) -> None:
    """Print what was found, and write it with machine and versions."""
    text = "\n\n".join([*paragraphs, machine()]) + "\n"
    print(f"\n{text}")
    path.write_text(text, encoding="utf-8")


class Results:
    """Rows of a CSV file, each written as soon as it is known, so that a run can be ended and taken up again."""

    def __init__(self, path: Path, key: Sequence[str]) -> None:
        self._path, self._key = path, tuple(key)
        self.rows: list[dict[str, str]] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                self.rows = list(csv.DictReader(file))

    def has(self, **key: Any) -> bool:
        return any(all(row[name] == str(key[name]) for name in self._key) for row in self.rows)

    def add(self, row: Mapping[str, Any]) -> None:
        new = not self.rows
        self.rows.append({name: str(value) for name, value in row.items()})
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)
