"""Folders that mean harm: a small part of experiments/benchmarks/export/hostile.py."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

torch.set_num_threads(1)

BENCHMARKS = Path(__file__).parents[2] / "experiments" / "benchmarks" / "export"


@pytest.fixture(scope="module")
def hostile() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(BENCHMARKS), str(BENCHMARKS.parent), *sys.path])
        return importlib.import_module("hostile")


@pytest.fixture(scope="module")
def whole(hostile: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(hostile.made(tmp_path_factory.mktemp("hostile") / "whole"))


def test_mutations_of_a_manifest_are_refused_in_a_line_or_are_read(hostile: ModuleType, whole: Path) -> None:
    found = hostile.mutations(whole, 400, seed=1)
    assert found["refused"] > 200
    assert found["read"] > 20
    assert [what for what in found if what.startswith("ESCAPED")] == []
    assert hostile.proved(whole).passed


SOME = (
    "test.npz: an entry named ../../outside/x",
    "test.npz: an array of objects",
    "test.npz: an array of a thousand terabytes",
    "test.npz: 128 MB of zeros in 130 kB",
    "test.npz: a link to a file outside",
    "policy.json: a pipe",
    "model.onnx: external data outside, of a initializer",
    "model.onnx: external data through a link, of a branch",
    "manifest: lists '../outside/secret.bin'",
)


def test_hostile_folders_are_refused_and_nothing_outside_is_touched(
    hostile: ModuleType, whole: Path, tmp_path: Path
) -> None:
    cases = hostile.cases()
    assert len(cases) >= 100
    found = list(hostile.harmed(whole, tmp_path, {name: cases[name] for name in SOME}))
    assert [name for name, _, _ in found] == list(SOME)
    assert [(name, said) for name, said, _ in found if not said.startswith("refused: ")] == []
    assert [name for name, _, touched in found if touched] == []


def test_the_watch_sees_what_is_opened(hostile: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    watched = hostile.Watched(tmp_path)
    assert not watched.events()
    assert (tmp_path / "file").read_bytes() == b"x"
    assert watched.events()
