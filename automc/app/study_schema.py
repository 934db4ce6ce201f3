"""Reading a study: one small reader a section, and what the sections must be to each other."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from automc.app import effort_schema
from automc.app.parts_schema import built_part, evaluator, model, part
from automc.app.places import Node
from automc.app.readers import Fields, Reader, integer, text
from automc.app.space_schema import Space, check_training, space
from automc.core.metrics import METRICS, Constraint, Objective, listed
from automc.core.required import show
from automc.core.rules import nearest
from automc.core.study import Budget, ModelSpec, Part, Rung, StudySpec, Workers
from automc.errors import SpecError
from automc.evaluation.tasks import TASK_METRICS, TASKS
from automc.measure.runtimes import runtime

STUDY_KEYS = (
    *("name", "model", "data", "task", "space", "objectives", "constraints", "proposer", "stopper", "evaluator"),
    *("rungs", "budget", "workers", "storage", "seed"),
)
DEFAULT_STORAGE = "sqlite:///automc.db"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_DATABASES = ("sqlite", "postgresql")


def study(root: Node, path: Path) -> tuple[StudySpec, str, Space]:
    """The spec, the storage and the space of a study; its mistakes are recorded and then raised together.

    Args:
        root: the whole document, ``space`` already a mapping. path: the study file, for the default name and for
            files beside it.

    Raises:
        SpecError: one line a mistake.
    """
    for result in root.attempt(lambda node: _sections(Fields(node, STUDY_KEYS), path)):
        if not root.mistakes.found:
            return result
    root.mistakes.raise_all()
    raise AssertionError("a study without a spec has a mistake")


def _sections(fields: Fields, path: Path) -> tuple[StudySpec, str, Space]:
    from automc.app import catalog

    folder = path.parent
    rungs: tuple[Rung, ...] = fields.get("rungs", effort_schema.rungs, (Rung(),))
    task = fields.get("task", part(catalog.TASKS, "task", folder), Part("classification"))
    found = fields.need("space", space, Space(), "joint")
    check_training(found, rungs)
    spec = StudySpec(
        name=fields.get("name", _name, "") or _default_name(fields, path),
        model=fields.need("model", model(catalog.MODELS, folder), ModelSpec(""), "digits_net"),
        data=fields.need("data", part(catalog.DATA_SETS, "data set", folder), Part(""), "digits"),
        task=task,
        rules=found.rules,
        order=found.order,
        orders=found.orders,
        runtime=found.runtime,
        objectives=fields.need("objectives", _objectives(task), (), "{top1: maximize, size_bytes: minimize}"),
        constraints=fields.get("constraints", _constraints(task), ()),
        proposer=fields.get("proposer", built_part(catalog.PROPOSERS, "proposer"), Part("portfolio")),
        stopper=fields.get("stopper", built_part(catalog.STOPPERS, "stopper"), Part("never")),
        evaluator=fields.get("evaluator", evaluator(catalog.EVALUATORS, folder), Part("network")),
        rungs=rungs,
        budget=fields.get("budget", effort_schema.budget, Budget()),
        workers=fields.get("workers", effort_schema.workers, Workers()),
        seed=fields.get("seed", integer(0, 2**32 - 1), 0),
    )
    _check_runtime(spec, fields)
    return spec, fields.get("storage", _storage, DEFAULT_STORAGE), found


def _check_runtime(spec: StudySpec, fields: Fields) -> None:
    """Records latencies that would be measured in another runtime than the space is for."""
    known = runtime(spec.runtime).latencies if spec.runtime else ()
    for key, names in (
        ("objectives", [objective.metric for objective in spec.objectives]),
        ("constraints", [constraint.metric for constraint in spec.constraints]),
    ):
        for name in names if spec.runtime else ():
            if name.startswith("latency_") and name not in known:
                here = f"those measured there: {', '.join(known)}" if known else "automc measures none there"
                fields[key].complain(f"{name} is not measured in {spec.runtime}, the runtime of the space ({here})")


def study_name(name: str) -> str:
    """The name, where a study may have it. Raises SpecError."""
    if not _NAME.fullmatch(name):
        raise SpecError(f"{show(name)} is not allowed (allowed: A-Z a-z 0-9 . _ -, at most 100, the first no . or -)")
    return name


def _name(node: Node) -> str:
    return study_name(text(node))


def _default_name(fields: Fields, path: Path) -> str:
    name = path.stem
    if "name" not in fields and not _NAME.fullmatch(name):
        fields.node.complain(f"name is missing, and the file name {name!r} cannot serve (allowed: A-Z a-z 0-9 . _ -)")
    return name


def _objectives(task: Part) -> Reader[tuple[Objective, ...]]:
    def read(node: Node) -> tuple[Objective, ...]:
        if not isinstance(node.value, dict):
            raise SpecError(f"must be a mapping of metric to maximize or minimize, not {show(node.value)}")
        if not node.value:
            raise SpecError("name at least one metric, as in {top1: maximize}")
        return tuple(o for metric, child in node.value.items() for o in child.attempt(_objective(metric, task)))

    return read


def _of_task(metric: str, task: Part, _: Node | None = None) -> None:
    """A metric of tasks must be one of this task's; what a task of the user's own measures is found out later.

    Raises:
        SpecError: it is not.
    """
    if not _has(task, metric):
        own = TASKS[task.name].metrics
        raise SpecError(f"task {task.name} has no metric {metric} (it has: {', '.join(own)}){nearest(metric, own)}")


def _has(task: Part, metric: str) -> bool:
    return task.name not in TASKS or metric not in TASK_METRICS or metric in TASKS[task.name].metrics


def _objective(metric: str, task: Part) -> Reader[Objective]:
    def read(node: Node) -> Objective:
        if metric not in METRICS:
            names = [name for name in METRICS if _has(task, name)]
            raise SpecError(f"unknown metric {metric!r} (allowed: {listed(names)}){nearest(metric, names)}")
        _of_task(metric, task)
        if node.value is None:
            return Objective(metric)
        direction = node.value
        if not isinstance(direction, str) or direction not in ("maximize", "minimize"):
            hint = nearest(direction, ("maximize", "minimize")) if isinstance(direction, str) else ""
            raise SpecError(f"{show(direction)} is not allowed (allowed: maximize, minimize){hint}")
        return Objective(metric, direction)

    return read


def _constraints(task: Part) -> Reader[tuple[Constraint, ...]]:
    def read(node: Node) -> tuple[Constraint, ...]:
        nodes = node.value if isinstance(node.value, list) else [node]
        found: list[Constraint] = []
        for item in nodes:
            for constraint in item.attempt(_constraint):
                item.attempt(partial(_of_task, constraint.metric, task))
                item.attempt(_fits(constraint, found))
                found.append(constraint)
        return tuple(found)

    return read


_SLOWEST = 10
"""Times as slow as the original: rounding may well make a network slower; a larger bound is a percentage."""


def _constraint(node: Node) -> Constraint:
    if not isinstance(node.value, str):
        raise SpecError(f"{show(node.value)} must be text such as 'macs_ratio <= 0.5'")
    constraint = Constraint.parse(node.value)
    unit, bound = METRICS[constraint.metric].unit, constraint.bound
    most = 1 if METRICS[constraint.metric].direction == "maximize" else 2
    if constraint.metric.startswith("latency_"):
        most = _SLOWEST
    if unit == "ratio" and bound > most:
        raise SpecError(f"constraint {node.value!r}: {constraint.metric} is a ratio, did you mean {bound / 100:g}?")
    if bound < 0 and not METRICS[constraint.metric].signed:
        raise SpecError(f"constraint {node.value!r}: {constraint.metric} is never negative")
    return constraint


def _fits(constraint: Constraint, others: list[Constraint]) -> Callable[[Node], None]:
    """Checks a constraint against those before it."""

    def read(node: Node) -> None:
        for other in others:
            if other.metric != constraint.metric:
                continue
            if other.sign == constraint.sign:
                raise SpecError(f"{constraint.metric} {constraint.sign} is given twice ({other}, {constraint})")
            low, high = sorted((other, constraint), key=lambda c: c.sign == "<=")
            if low.bound > high.bound:
                raise SpecError(f"{low} and {high} cannot both hold")

    return read


def _storage(node: Node) -> str:
    storage = text(node)
    scheme, separator, _ = storage.partition("://")
    if separator and scheme.partition("+")[0] not in _DATABASES:
        raise SpecError(f"unknown database {scheme!r} (allowed: {', '.join(_DATABASES)}){nearest(scheme, _DATABASES)}")
    return storage
