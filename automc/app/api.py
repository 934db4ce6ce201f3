"""``automc.search``: a study from Python objects, in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from automc.app.config import study_from
from automc.app.runs import start
from automc.app.study import OBJECT, Study
from automc.app.study_schema import DEFAULT_STORAGE

if TYPE_CHECKING:
    from torch import nn

    from automc.core.search import Listener
    from automc.evaluation.splits import Data


def search(
    model: str | Mapping[str, Any] | nn.Module,
    data: str | Mapping[str, Any] | Data,
    *,
    space: str | Mapping[str, Any] = "joint",
    objectives: Mapping[str, str] | None = None,
    constraints: Sequence[str] = (),
    trials: int = 60,
    name: str = "study",
    storage: str = DEFAULT_STORAGE,
    listener: Listener | None = None,
    **more: Any,
) -> Study:
    """Search, and return the study when its budget is spent (or Ctrl-C ended it; ``resume`` goes on).

    Args:
        model: a trained network, or what a study file says under ``model``. A network given as an object must be
            given again to ``automc.resume(name, model=...)``, because a database cannot rebuild it.
        data: what a study file says under ``data``; a ``Data`` of automc.evaluation.data; or a mapping
            ``{"train": (inputs, targets), "search": ..., "test": ...}`` of arrays, where a value may also be a
            function that returns the pair (``test`` is then not called before a model is exported).
        space: name of a bundled space, a path, or ``{"order": [...], "rules": [...]}``.
        objectives: metric to ``maximize`` or ``minimize``; top1 and size_bytes by default.
        constraints: such as ``["macs_ratio <= 0.5"]``.
        trials: how many trials to evaluate, on all rungs together.
        listener: hears every event, see core.search.Listener.
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
    budget = {**more.pop("budget", {}), "trials": trials}
    if isinstance(more.get("workers"), int):
        more["workers"] = {"count": more["workers"]}
    objectives = objectives or {"top1": "maximize", "size_bytes": "minimize"}
    said |= {"name": name, "space": space, "objectives": dict(objectives), "constraints": list(constraints)}
    study = start(study_from({**said, "budget": budget, "storage": storage, **more}, "automc.search()"), **objects)
    study.run(listener)
    return study


def _data(given: Any) -> Data:
    from automc.evaluation.readers.user import as_data
    from automc.evaluation.splits import Data

    return given if isinstance(given, Data) else as_data("data", given)
