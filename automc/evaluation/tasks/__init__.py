"""The tasks: what a network is for. This table loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from automc.core.judges import JUDGES
from automc.core.metrics import METRICS


@dataclass(frozen=True)
class TaskEntry:
    """A task by name.

    Attributes:
        implementation: ``module:Class``, imported when it is used. doc: one line: outputs and targets.
        metrics: all that it may measure. settings: what it takes.
    """

    implementation: str
    doc: str
    metrics: tuple[str, ...]
    settings: tuple[str, ...]


def _entry(name: str, implementation: str, doc: str) -> TaskEntry:
    judge = JUDGES[name]
    return TaskEntry(f"{__name__}.{implementation}", doc, judge.metrics, tuple(field.name for field in fields(judge)))


TASKS: Mapping[str, TaskEntry] = {
    name: _entry(name, implementation, doc)
    for name, implementation, doc in (
        ("classification", "classification:Classification", "one class an input: scores (n, classes)"),
        ("regression", "regression:Regression", "numbers: (n, outputs) or (n, outputs, ...)"),
        ("segmentation", "segmentation:Segmentation", "one class a pixel: scores (n, classes, height, width)"),
        ("detection", "detection:Detection", "boxes with scores and classes"),
        ("language_modelling", "language:LanguageModelling", "the next token: scores (n, tokens, vocabulary)"),
        ("embeddings", "embeddings:Embeddings", "vectors (n, ..., width), as near the original's as possible"),
    )
}

TASK_METRICS = tuple(name for name, metric in METRICS.items() if metric.sampled)
"""Metrics of which every task has its own; those of costs are for all."""
