"""Running a command line in this process: its exit code, what it printed, and what it said on stderr."""

from collections.abc import Callable
from pathlib import Path

import pytest

from automc.cli import main

Call = Callable[..., tuple[int, str, str]]


def calling(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *first: str) -> Call:
    """Commands in ``folder`` that begin with ``first``, and whose database is the default one there."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("AUTOMC_STORAGE", raising=False)
    capsys.readouterr()

    def run(*words: str) -> tuple[int, str, str]:
        code = main([*first, *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
