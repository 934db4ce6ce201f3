"""Running a module of automc in a process that has loaded nothing of this one. Loads no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from automc.errors import ProofError

LIMIT_S = 1800.0
"""Longest time that such a process may take."""


def fresh(module: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """The JSON object that ``python -m MODULE FOLDER ...`` prints; the last line of its stderr is its word for errors.

    Raises:
        ProofError: it printed none, or took longer than LIMIT_S.
    """
    root = str(Path(__file__).resolve().parents[3])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
    }
    command = [sys.executable, "-P", "-m", module, str(folder), *arguments]  # -P: nothing from here
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=LIMIT_S, check=False)
        found = json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise ProofError(f"{folder}: its proof took longer than {LIMIT_S:.0f} s") from error
    except ValueError as error:
        said = done.stderr.strip().splitlines() or [f"{folder}: its proof ended with {done.returncode} and no word"]
        raise ProofError(said[-1]) from error
    if not isinstance(found, dict):
        raise ProofError(f"{folder}: its proof is no JSON object")
    return found
