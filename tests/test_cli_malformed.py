"""Broken study files, all the way: no traceback, and every line points at the file's place that is wrong."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from automc.app import runs
from automc.app.config import read_study
from automc.app.writer import flow
from automc.cli import main
from automc.errors import SpecError

GOOD: dict[str, Any] = {
    "name": "good",
    "model": "digits_net",
    "data": "digits",
    "evaluator": {"name": "synthetic", "settings": {"layers": 4}},
    "space": {
        "rules": [
            {"operator": "prune", "settings": {"prune_ratio": {"low": 0, "high": 0.6, "step": 0.2}}},
            {"operator": "quantize", "layers": ["conv*"], "settings": {"weight_bits": [2, 4, 8], "activation_bits": 8}},
            {"operator": "distill", "settings": {"kd_temperature": {"low": 1, "high": 9, "log": True}}},
        ]
    },
    "objectives": {"top1": "maximize", "size_bytes": "minimize"},
    "constraints": ["macs_ratio <= 0.5"],
    "proposer": {"name": "tpe", "settings": {"startup": 5}},
    "stopper": {"name": "median", "settings": {"peers": 3}},
    "rungs": [{"steps": 0}, {"steps": 10, "share": 0.5}],
    "budget": {"trials": 5, "seconds": 10},
    "workers": {"count": 0, "window": 4},
    "seed": 1,
}
NUMBERS = [-1, 0, 1, 2, 3.5, 1e9, 10**20, 1e308, float("nan"), True, None]
WORDS = ["", "x", "prune", "joint", "cmaes", "amc", "haq", "top1", "latency_ms", "maximize", "conv*", "conv9", "../x"]
WORDS += [
    "net.py:f",
    "a:b",
    "macs_ratio <= 0.5",
    "macs_ratio >= 2",
    "size_bytes <= 1",
    "' OR 1=1 --",
    "ünï",
    "\x1b[31m",
]
WORDS += ["\u2028", "y" * 300]
WHOLES = [[], {}, [1], ["x"], {"x": 1}, {"low": 1, "high": 0}, {"low": 0, "high": 1}, {"name": "tpe"}]
KEYS = ["name", "settings", "layers", "low", "step", "log", "window", "trials", "share", "timeout_s", "startup", "fail"]
KEYS += ["task", "order", "operator", "prune_ratio", "weight_bits", "ünï", ""]
SIGNS = ["\t", "{", "]", ":", "- ", "\n", "'", '"', "&a", "*a", "!x ", "%", "@", "#", "\x00"]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in the document."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield (*path, key)
        yield from places(value[key], (*path, key))


def broken(seed: int) -> str:
    """A study file with one to three values replaced, left out, renamed or added, and sometimes a stray sign."""
    draw = random.Random(seed)
    document = copy.deepcopy(GOOD)
    for _ in range(draw.randrange(1, 4)):
        *way, key = draw.choice(list(places(document)))
        holder: Any = document
        for step in way:
            holder = holder[step]
        value = copy.deepcopy(draw.choice(draw.choice([NUMBERS, WORDS, WHOLES])))
        kind = draw.randrange(4)
        if kind == 0:
            del holder[key]
        elif kind == 1:
            holder[key] = value
        elif isinstance(holder, list):
            holder.append(value)
        else:
            holder[draw.choice(KEYS)] = value if kind == 2 else holder.pop(key)
        if not document:
            break
    text = "".join(f"{flow(str(key))}: {flow(value)}\n" for key, value in document.items())
    if draw.random() < 0.15:
        place = draw.randrange(len(text) + 1)
        text = text[:place] + draw.choice(SIGNS) + text[place:]
    return text


def test_three_hundred_broken_study_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is told line by line, down to one evaluation; nothing is written. It takes 10 s: YAML is read slowly."""
    monkeypatch.chdir(tmp_path)
    file, told = Path("study.yaml"), 0
    for seed in range(1000):
        file.write_text(broken(seed), encoding="utf-8")
        try:
            runs.check(read_study(file))
            continue
        except SpecError as error:
            said, told = str(error).split("\n"), told + 1
        for line in said:
            assert line.startswith(("study.yaml:", "... and ")), (seed, line)
            assert line.isprintable(), (seed, line)
            assert len(line) < 700, (seed, line)
        if told % 15 == 0:  # the whole way takes long
            assert main(["search", "study.yaml", "--dry-run"]) == 2, seed
            assert capsys.readouterr() == ("", "".join(f"automc: {line}\n" for line in said)), seed
        if told == 300:
            break
    assert told == 300
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]


def test_the_good_one_is_good(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("".join(f"{key}: {flow(value)}\n" for key, value in GOOD.items()), encoding="utf-8")
    assert runs.check(read_study(file)).spec.name == "good"
