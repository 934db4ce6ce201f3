from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from automc.core.metrics import Objective
from automc.core.policy import Policy, Site
from automc.core.ports import Proposal
from automc.core.rules import Rule
from automc.core.space import Choice
from automc.core.study import ModelSpec, Part, StudySpec
from automc.stores.sql import SqlStore


@pytest.fixture
def spec() -> StudySpec:
    rule = Rule("prune", {"prune_ratio": Choice((0.0, 0.5))})
    return StudySpec("s", ModelSpec("tiny"), Part("digits"), (rule,), ("prune",), (Objective("top1"),))


@pytest.fixture
def proposal() -> Proposal:
    values = {Site("prune", "conv1", "prune_ratio"): 0.5, Site("quantize", "conv1", "weight_bits"): 4}
    return Proposal(Policy({**values, Site("quantize", "fc", "weight_bits"): 8}), "memo")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trials.db"


@pytest.fixture
def store(path: Path, spec: StudySpec) -> Iterator[SqlStore]:
    """A database in a file, with the study ``s``."""
    found = SqlStore(str(path))
    found.create(spec, {})
    yield found
    found.close()


@pytest.fixture
def children() -> Callable[..., list[str]]:
    """Run store_children.py; the lines its processes wrote."""

    def run(*arguments: object) -> list[str]:
        script = Path(__file__).with_name("store_children.py")
        done = subprocess.run(
            [sys.executable, str(script), *map(str, arguments)], capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout.splitlines()

    return run
