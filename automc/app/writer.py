"""A StudySpec back to the text of a study file, so that every report can say how to repeat its run."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from automc.app.paths import DATA_PATHS
from automc.app.yaml_places import core_scalar
from automc.core.rules import Rule
from automc.core.space import Choice, Domain
from automc.core.study import ModelSpec, Part, Rung, StudySpec

_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_./+-]*")


def to_yaml(spec: StudySpec, storage: str = "", folder: Path = Path()) -> str:
    """The text of a study file that ``read_study`` turns into this spec again.

    A study file describes a study from its first trial: of an extended study the revision in force is
    written, without its number.

    Args:
        storage: written where it is not empty. folder: where the file will lie; the paths in it are seen from there.
    """
    sections = document(spec, storage, folder)
    return "".join(_section(key, value) for key, value in sections.items() if value is not None)


def document(spec: StudySpec, storage: str = "", folder: Path = Path()) -> dict[str, Any]:
    """The same as plain data, by key of a study file; None for a key that is left out."""
    return {
        "name": spec.name,
        "model": _model(spec.model, folder),
        "data": _data(spec.data, folder),
        "task": _part(Part(_factory(spec.task.name, folder), spec.task.settings)),
        "space": {"order": spec.orders or spec.order, "rules": [_rule(rule) for rule in spec.rules]}
        | ({"runtime": spec.runtime} if spec.runtime else {}),
        "objectives": {objective.metric: objective.direction for objective in spec.objectives},
        "constraints": [str(constraint) for constraint in spec.constraints],
        "proposer": _part(spec.proposer),
        "stopper": _part(spec.stopper),
        "evaluator": _part(spec.evaluator),
        "rungs": [_rung(rung) for rung in spec.rungs],
        "budget": vars(spec.budget),
        "workers": vars(spec.workers),
        "storage": storage or None,
        "seed": spec.seed,
    }


def _section(key: str, value: Any) -> str:
    if key == "space":
        rules = "".join(f"    - {flow(rule)}\n" for rule in value["rules"])
        runtime = f"  runtime: {value['runtime']}\n" if "runtime" in value else ""
        return f"space:\n  order: {flow(value['order'])}\n{runtime}  rules:\n{rules}"
    return f"{key}: {flow(value)}\n"


def _model(model: ModelSpec, folder: Path) -> Any:
    part = _part(Part(_factory(model.name, folder), model.settings))
    if model.weights is None:
        return part
    whole = part if isinstance(part, dict) else {"name": part}
    return {**whole, "weights": _seen_from(folder, model.weights)}


def _data(data: Part, folder: Path) -> Any:
    settings = dict(data.settings)
    for key in DATA_PATHS if ":" not in data.name else ():
        if isinstance(settings.get(key), str):
            settings[key] = _seen_from(folder, settings[key])
    return _part(Part(_factory(data.name, folder), settings))


def _part(part: Part) -> Any:
    return {"name": part.name, "settings": dict(part.settings)} if part.settings else part.name


def _factory(name: str, folder: Path) -> str:
    source, _, factory = name.rpartition(":")
    return f"{_seen_from(folder, source)}:{factory}" if source.endswith(".py") else name


def _seen_from(folder: Path, path: str) -> str:
    return path if os.path.isabs(path) else os.path.relpath(path, folder)


def _rule(rule: Rule) -> dict[str, Any]:
    selectors = {
        "layers": rule.layers if rule.layers != ("*",) else (),
        "except": rule.exclude,
        "kind": rule.kinds,
        "index": rule.indices,
    }
    chosen = {key: list(values) for key, values in selectors.items() if values}
    return {"operator": rule.operator, **chosen, "settings": {k: _domain(v) for k, v in rule.settings.items()}}


def _domain(domain: Domain) -> Any:
    if isinstance(domain, Choice):
        return domain.options[0] if len(domain.options) == 1 else list(domain.options)
    step = {"step": domain.step} if domain.step is not None else {}
    return {"low": domain.low, "high": domain.high, **step, **({"log": True} if domain.log else {})}


def _rung(rung: Rung) -> dict[str, Any]:
    """Without what is as ever, so that a study file stays short."""
    plain = Rung()
    needs = {"cpus": rung.cpus, "gpus": rung.gpus, "resources": dict(rung.resources)}
    changed = {key: value for key, value in needs.items() if value != getattr(plain, key)}
    return {"steps": rung.steps, "share": rung.share, **changed}


def flow(value: Any) -> str:
    """YAML 1.2 in flow style, on one line; text is quoted where it could be read as something else."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_text(str(key))}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    return repr(value)


def _text(value: str) -> str:
    if _BARE.fullmatch(value) and core_scalar(value) == value:
        return value
    return '"' + "".join(_escaped(character) for character in value) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
