"""Laws of reading and writing studies: whatever is given, a spec or a SpecError; what is written reads back."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from automc.app.config import read_study
from automc.app.places import STUDY, Mistakes, Node, Place
from automc.app.readers import plain
from automc.app.writer import flow, to_yaml
from automc.app.yaml_places import core_scalar, parse
from automc.core.metrics import METRICS, Constraint, Objective
from automc.core.order import fault
from automc.core.rules import Rule
from automc.core.space import Choice, Domain, Real
from automc.core.study import Budget, ModelSpec, Part, Rung, StudySpec, Workers
from automc.errors import SpecError
from automc.evaluation.tasks import TASK_METRICS, TASKS
from automc.operators import OPERATORS, ORDER

VALID: dict[str, Any] = {
    "name": "valid",
    "model": {"name": "digits_net", "settings": {"width": 8}},
    "data": "digits",
    "space": {
        "order": ["prune", "quantize", "distill"],
        "rules": [
            {"operator": "prune", "settings": {"prune_ratio": {"low": 0.0, "high": 0.5, "step": 0.1}}},
            {"operator": "quantize", "layers": ["a*"], "except": "b", "settings": {"weight_bits": [2, 4]}},
            {"operator": "quantize", "kind": "conv", "index": [0, -1], "settings": {"activation_bits": 8}},
            {"operator": "distill", "settings": {"kd_temperature": {"low": 1, "high": 9, "log": True}}},
        ],
    },
    "objectives": {"top1": "maximize", "size_bytes": "minimize"},
    "constraints": ["macs_ratio <= 0.5"],
    "proposer": {"name": "portfolio", "settings": {}},
    "stopper": "never",
    "evaluator": "network",
    "rungs": [{"steps": 0}, {"steps": 10, "share": 0.5, "cpus": 2, "gpus": 0.5, "resources": {"device:pi4": 1}}],
    "budget": {"trials": 5, "seconds": 10.5},
    "workers": {"count": 2, "address": None, "window": 4, "timeout_s": 60, "memory_mb": 900, "retries": 2},
    "storage": "automc.db",
    "seed": 1,
}

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["prune", "tpe", "net.py:", "a:b", "*", "macs_ratio <= 2e999", "joint", "/", "..", "~", "\ud7ff"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
QUICK = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in the document."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield (*path, key)
        yield from places(value[key], (*path, key))


PLACES = list(places(VALID))


def parent(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        document = document[key]
    return document


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """The valid study after one to three changes: a value replaced, a key deleted, renamed or added."""
    document = copy.deepcopy(VALID)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(sorted(places(document), key=str)))
        holder, key = parent(document, path), path[-1]
        match draw(st.sampled_from(["replace", "delete", "rename"])):
            case "replace":
                holder[key] = draw(VALUES)
            case "delete":
                del holder[key]
            case _ if isinstance(holder, dict):
                holder[draw(st.text(max_size=6))] = holder.pop(key)
            case _:
                holder.append(draw(VALUES))
        if not document:
            break
    return document


def write(document: dict[str, Any]) -> Path:
    path = Path("study.yaml")
    path.write_text("".join(f"{flow(str(key))}: {flow(value)}\n" for key, value in document.items()), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_unchanged_study_is_valid() -> None:
    spec = read_study(write(VALID)).spec
    assert spec.budget == Budget(5, 10.5)
    assert spec.rules[3].settings["kd_temperature"] == Real(1.0, 9.0, log=True)


def outcome(path: Path, overrides: tuple[str, ...] = ()) -> StudySpec | None:
    """The spec, or None after a SpecError whose every line says where."""
    try:
        return read_study(path, overrides).spec
    except SpecError as error:
        for line in str(error).split("\n"):
            assert line.startswith((f"{path}:", "--set ", "... and ", "/")), line
            assert line.isprintable(), line
        return None


@QUICK
@given(mutated())
def test_a_mutated_study_gives_a_spec_or_lines_that_say_where(document: dict[str, Any]) -> None:
    path = write(document)
    spec = outcome(path)
    if spec is not None:
        path.write_text(to_yaml(spec), encoding="utf-8")
        assert read_study(path).spec == spec


@QUICK
@given(st.sampled_from(PLACES), VALUES)
def test_an_override_does_what_the_edited_file_does(place: tuple[Any, ...], value: Any) -> None:
    dotted = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place).lstrip(".")
    path = write(VALID)
    by_override = outcome(path, (f"{dotted}={flow(value)}",))
    edited = copy.deepcopy(VALID)
    parent(edited, place)[place[-1]] = value
    assert by_override == outcome(write(edited))


@QUICK
@given(st.text(max_size=200) | st.text("[]{}:,-*&!|>'\"#%@? \n\tab1.", max_size=60))
def test_any_text_gives_a_spec_or_an_error_of_our_own(text: str) -> None:
    path = Path("study.yaml")
    path.write_text(text, encoding="utf-8")
    assert outcome(path) is None


@QUICK
@given(st.binary(max_size=100))
def test_any_bytes_give_an_error_of_our_own(data: bytes) -> None:
    path = Path("study.yaml")
    path.write_bytes(data)
    assert outcome(path) is None


@QUICK
@given(st.text(max_size=40), st.text(max_size=20))
def test_any_override_gives_a_spec_or_an_error_of_our_own(key: str, value: str) -> None:
    spec = outcome(write(VALID), (f"{key}={value}", key))
    assert spec is None or "=" in key  # a key alone sets nothing


def parsed(text: str) -> Any:
    mistakes = Mistakes()
    node: Node = parse(text, Place(STUDY, "text", 1), mistakes)
    result = plain(node)
    mistakes.raise_all()
    return result


FINITE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@QUICK
@given(FINITE)
def test_flow_writes_what_we_and_ruamel_read_back(value: Any) -> None:
    text = flow(value)
    assert parsed(text) == value
    assert YAML(typ="safe", pure=True).load(text) == value


@QUICK
@given(st.from_regex(r"\A[-+.0-9eExonaflTtRrUuSs~]{0,8}\Z"))
def test_plain_scalars_are_numbers_only_where_ruamel_agrees(text: str) -> None:
    ours = core_scalar(text)
    if isinstance(ours, str) or ours is None:
        return
    theirs = YAML(typ="safe", pure=True).load(text)
    if isinstance(theirs, str):
        # The core schema of YAML 1.2.2, section 10.3.2, has .5e3; ruamel takes it for text.
        assert re.fullmatch(r"[-+]?\.[0-9]+[eE][-+]?[0-9]+", text)
        theirs = float(text)
    assert theirs == ours or (theirs != theirs and ours != ours), (text, ours, theirs)


NAMES = st.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9._-]{0,12}\Z")
SIMPLE = st.dictionaries(st.text(min_size=1, max_size=6), FINITE, max_size=3)
GLOBS = st.lists(st.text(min_size=1, max_size=8).filter(str.strip), min_size=1, max_size=3).map(tuple)


@st.composite
def domains(draw: st.DrawFn, operator: str, setting: str) -> Domain:
    """A domain inside the legal one."""
    legal = OPERATORS[operator].settings[setting].legal
    if isinstance(legal, Choice):
        return Choice(tuple(draw(st.lists(st.sampled_from(legal.options), min_size=1, unique=True))))
    numbers = st.floats(legal.low, legal.high, allow_subnormal=False)
    if draw(st.booleans()):
        return Choice(tuple(draw(st.lists(numbers, min_size=1, max_size=4, unique=True))))
    low, high = sorted((draw(numbers), draw(numbers)))
    kind = draw(st.sampled_from(["plain", "step", "log"]))
    if kind == "step" and high - low > 1e-6:
        return Real(low, high, (high - low) / draw(st.integers(1, 9)))
    return Real(low, high, log=kind == "log" and low > 0)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    operator = draw(st.sampled_from(ORDER))
    names = draw(st.lists(st.sampled_from(sorted(OPERATORS[operator].settings)), min_size=1, unique=True))
    chosen = {name: draw(domains(operator, name)) for name in names}
    if OPERATORS[operator].scope == "network":
        return Rule(operator, chosen)
    kinds = draw(st.lists(st.sampled_from(["conv", "depthwise", "linear"]), max_size=2, unique=True).map(tuple))
    indices = draw(st.lists(st.integers(-99, 99), max_size=2).map(tuple))
    return Rule(operator, chosen, draw(GLOBS), draw(st.just(()) | GLOBS), kinds, indices)


RULED_ORDERS = st.permutations(ORDER).map(tuple).filter(lambda order: not fault(order, OPERATORS))
FREE = Rule("prune", {"prune_ratio": Real(0.0, 0.5)})
NSGA2 = {"population": st.integers(2, 99), "anchors": st.integers(0, 99)}
TASK_PARTS = [Part("classification"), Part("segmentation", {"ignore_index": 9}), Part("regression")]


def everywhere(operator: str) -> Rule:
    """With all operators in use, two orders are never the same."""
    neutral = {name: Choice((setting.neutral,)) for name, setting in OPERATORS[operator].settings.items()}
    return Rule(operator, neutral)


@st.composite
def specs(draw: st.DrawFn) -> StudySpec:
    task = draw(st.sampled_from(TASK_PARTS))
    known = [name for name in METRICS if name not in TASK_METRICS or name in TASKS[task.name].metrics]
    metrics = draw(st.lists(st.sampled_from(sorted(known)), min_size=1, max_size=4, unique=True))
    steps = sorted(draw(st.lists(st.integers(0, 1000), max_size=2)))
    count = draw(st.integers(0, 9) | st.just("auto"))
    limits = st.none() | st.floats(1e-3, 1e6)
    window = 9 if count == "auto" else max(count, 1) + 1
    address, killed = draw(st.none() | st.just("10.0.0.1:6379")), count != 0
    memory = draw(st.none() | st.integers(1, 9999)) if killed else None
    needs = {"cpus": draw(st.floats(0, 9)), "resources": draw(st.dictionaries(NAMES, st.floats(0.1, 9), max_size=2))}
    orders = tuple(draw(st.lists(RULED_ORDERS, min_size=1, max_size=3, unique=True)))
    return StudySpec(
        name=draw(NAMES),
        model=ModelSpec(
            draw(st.sampled_from(["resnet20", "pack.mod:make", "net.py:make"])), draw(SIMPLE), "w.safetensors"
        ),
        data=draw(st.sampled_from([Part("digits"), Part("npz", {"path": "d.npz"}), Part("a:b", {"path": "gone"})])),
        rules=(*(FREE, *draw(st.lists(rules(), max_size=3))), *map(everywhere, ORDER if len(orders) > 1 else ())),
        order=orders[0],
        orders=orders if len(orders) > 1 else (),
        objectives=tuple(Objective(m, draw(st.sampled_from(["maximize", "minimize"]))) for m in metrics),
        constraints=tuple(Constraint(m, "<=", float(draw(st.integers(0, 100))) / 100) for m in metrics[:2]),
        proposer=Part("nsga2", draw(st.fixed_dictionaries({}, optional=NSGA2))),
        rungs=(*(Rung(n, draw(st.floats(0.01, 1))) for n in steps), Rung(2000, **needs)),
        budget=Budget(draw(st.integers(1, 10**6)), draw(limits)),
        workers=Workers(count, address, window, draw(limits) if killed else None, memory, draw(st.integers(0, 9))),
        seed=draw(st.integers(0, 2**32 - 1)),
        task=task,
    )


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(specs(), st.sampled_from(["", "runs", "a/b"]))
def test_what_to_yaml_writes_is_read_back(spec: StudySpec, folder: str) -> None:
    for name in ("net.py", "w.safetensors", "d.npz"):
        Path(name).touch()
    Path(folder).mkdir(parents=True, exist_ok=True)
    path = Path(folder) / "study.yaml"
    path.write_text(to_yaml(spec, "sqlite:///x.db", Path(folder)), encoding="utf-8")
    study = read_study(path)
    assert study.spec == spec
    assert study.storage == "sqlite:///x.db"
    assert not os.path.isabs(study.spec.model.weights or "")


def test_of_an_extended_study_the_revision_in_force_is_written() -> None:
    Path("study.yaml").write_text(to_yaml(replace(read_study(write(VALID)).spec, revision=2, first_trial=40)))
    again = read_study(Path("study.yaml")).spec
    assert (again.revision, again.first_trial) == (0, 0)
    assert again.rules[0] == Rule("prune", {"prune_ratio": Real(0.0, 0.5, 0.1)})
