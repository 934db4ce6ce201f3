"""Shared by all tests: where helpers live, a machine that does not fight itself for two cores, and what is traced."""

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

ROOT = Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT / "conformance")]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole runs of the product begin first, so that none is left to one worker at the end. Line coverage is traced in
    the first case of every test alone: tracing takes half as long again, and further cases run the same lines."""
    items.sort(key=lambda item: "integration" not in item.path.parts)
    traced: set[tuple[Path, str]] = set()
    for item in items:
        test = item.path, getattr(item, "originalname", item.name)
        if test in traced:
            item.add_marker(pytest.mark.no_cover)
        traced.add(test)
