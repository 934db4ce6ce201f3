"""From a name and settings to a task."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from automc.core.required import no_such_setting
from automc.core.rules import nearest
from automc.core.study import Part
from automc.errors import ModelError, SpecError
from automc.evaluation.factories import call_factory, find_factory
from automc.evaluation.tasks import TASK_METRICS, TASKS
from automc.evaluation.tasks.base import Task


def load_task(part: Part, base: Path | None = None) -> Task:
    """The task that a study names.

    Args:
        base: folder that a relative ``file.py:factory`` is seen from, before the current one.

    Raises:
        SpecError: an unknown name or setting (with the nearest spelling), or a setting out of range.
        ModelError: a factory that cannot be found, raises or returns no task.
    """
    if part.name in TASKS:
        return _built_in(part)
    if ":" not in part.name:
        more = "or package.module:factory or file.py:factory"
        raise SpecError(
            f"task: unknown task {part.name!r}{nearest(part.name, TASKS)} (tasks: {', '.join(TASKS)}; {more})"
        )
    return as_task(call_factory(part.name, find_factory(part.name, base), part.settings), part.name)


def as_task(found: Any, where: str) -> Task:
    """An object as a task.

    Raises:
        ModelError: it is none.
    """
    missing = [name for name in ("measures", "loss", "judge", "summarise") if not callable(getattr(found, name, None))]
    if missing or isinstance(found, type):
        what = "a class; call it" if isinstance(found, type) else f"{type(found).__name__} without {missing[0]}"
        raise ModelError(f"{where}: must be a task (automc.evaluation.tasks.base.Task), not {what}")
    task: Task = found
    return task


def check_metrics(task: Task, wanted: Mapping[str, str], classes: int, labelled: bool) -> None:
    """Metrics of tasks that a study asks for must be those of its own task on its own data.

    Args:
        wanted: by metric, the key path of the study where it stands.

    Raises:
        SpecError: one is not.
    """
    known = task.measures(classes, labelled)
    for name, place in wanted.items():
        if name in TASK_METRICS and name not in known:
            without = "" if labelled or name not in task.measures(classes, True) else "without labels "
            raise SpecError(
                f"{place}: {without}the task measures no {name} on this data (it measures: {', '.join(known)}"
                f"){nearest(name, known)}; use {known[0]}"
            )


def _built_in(part: Part) -> Task:
    entry = TASKS[part.name]
    for key in part.settings:
        if key not in entry.settings:
            raise SpecError(f"task.settings.{key}: {no_such_setting(part.name, key, entry.settings)}")
    module, _, attribute = entry.implementation.partition(":")
    kind = getattr(importlib.import_module(module), attribute)
    for key, value in part.settings.items():
        wanted = type(getattr(kind, key))
        right = (int, float) if wanted is float else wanted
        if isinstance(value, bool) or not isinstance(value, right):
            raise SpecError(f"task.settings.{key}: must be {wanted.__name__}, not {value!r}")
    task: Task = kind(**part.settings)
    return task
