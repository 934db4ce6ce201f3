"""``automc.search``: a study from Python objects, in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from automc.app.config import study_from
from automc.app.runs import start
from automc.app.study import OBJECT, Study
from automc.app.study_schema import DEFAULT_STORAGE
from automc.core.judges import judge_named
from automc.core.metrics import METRICS
from automc.evaluation.tasks import TASKS

if TYPE_CHECKING:
    from torch import nn

    from automc.core.search import Listener
    from automc.evaluation.splits import Data
    from automc.evaluation.tasks.base import Task


def search(
    model: str | Mapping[str, Any] | nn.Module,
    data: str | Mapping[str, Any] | Data,
    *,
    task: str | Mapping[str, Any] | Task = "classification",
    space: str | Mapping[str, Any] = "joint",
    objectives: Mapping[str, str] | None = None,
    constraints: Sequence[str] = (),
    trials: int = 60,
    name: str = "study",
    storage: str = DEFAULT_STORAGE,
    listener: Listener | None = None,
    warm_start: Sequence[str | Study] = (),
    **more: Any,
) -> Study:
    """Search, and return the study when its budget is spent (or Ctrl-C ended it; ``resume`` goes on).

    Args:
        model: a trained network, or what a study file says under ``model``. A network given as an object must be
            given again to ``automc.resume(name, model=...)``, because a database cannot rebuild it.
        data: what a study file says under ``data``; a ``Data`` of automc.evaluation.data; or a mapping
            ``{"train": (inputs, targets), "search": ..., "test": ...}`` of arrays, where a value may also be a
            function that returns the pair (``test`` is then not called before a model is exported). Without labels:
            inputs alone, or ``(inputs, None)``.
        task: what a study file says under ``task``, or a Task of automc.evaluation.tasks.base.
        space: name of a bundled space, a path, or ``{"order": [...], "rules": [...]}``.
        objectives: metric to ``maximize`` or ``minimize``; by default the task's first (top1; agreement for data that
            is given without labels) and size_bytes.
        constraints: such as ``["macs_ratio <= 0.5"]``.
        trials: how many trials to evaluate, on all rungs together.
        listener: hears every event, see core.search.Listener.
        warm_start: studies whose trials and sensitivities are reused, of this or a similar network: ``NAME``,
            ``NAME@STORAGE`` or a Study.
        more: any other key of a study file: proposer, stopper, evaluator, rungs, workers (or just their number), seed.

    Raises:
        SpecError, ModelError, DataError, StudyExists: what is wrong, in one line; nothing was written.
    """
    objects: dict[str, Any] = {}
    said: dict[str, Any] = {"model": model, "data": data}
    if not isinstance(model, (str, Mapping)):
        objects["model"], said["model"] = model, OBJECT
    if not isinstance(data, (str, Mapping)) or (isinstance(data, Mapping) and "name" not in data):
        objects["data"], said["data"] = _data(data), OBJECT
    said["task"] = task
    if not isinstance(task, (str, Mapping)):
        objects["task"], said["task"] = task, OBJECT
    budget = {**more.pop("budget", {}), "trials": trials}
    if isinstance(more.get("workers"), int):
        more["workers"] = {"count": more["workers"]}
    objectives = objectives or {
        metric: METRICS[metric].direction for metric in (_first_metric(task, objects), "size_bytes")
    }
    said |= {"name": name, "space": space, "objectives": dict(objectives), "constraints": list(constraints)}
    study_file = study_from({**said, "budget": budget, "storage": storage, **more}, "automc.search()")
    study = start(study_file, warm_start, **objects)
    study.run(listener)
    return study


def _first_metric(task: Any, objects: Mapping[str, Any]) -> str:
    """The one that says most of a task on such data; of an unknown name any, for what is wrong is said elsewhere."""
    labelled = "data" not in objects or objects["data"].split("search").labelled
    if not isinstance(task, (str, Mapping)):
        return str(task.measures(0, labelled)[0]) if callable(getattr(task, "measures", None)) else "score"
    name = task if isinstance(task, str) else task.get("name", "classification")
    return judge_named(name, {}).measures(0, labelled)[0] if name in TASKS else "score"


def _data(given: Any) -> Data:
    from automc.evaluation.readers.user import as_data
    from automc.evaluation.splits import Data

    return given if isinstance(given, Data) else as_data("data", given)
