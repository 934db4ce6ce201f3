"""The same trials in an Optuna storage, and optuna-dashboard over it."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import filled

NAME = "filled"
_TRIALS = """SELECT p.json,
  max(CASE WHEN m.name = 'top1' THEN m.value END), max(CASE WHEN m.name = 'size_bytes' THEN m.value END)
  FROM automc_trial t JOIN automc_policy p ON p.fingerprint = t.policy
  JOIN automc_metric m ON m.study_id = t.study_id AND m.number = t.number
  WHERE t.study_id = 1 AND t.state = 'complete' AND t.number < ? GROUP BY t.number"""


def fill(source: Path, target: Path, trials: int) -> str:
    """Copy the complete ones of the first trials; through Optuna each would take 0.1 s. The URL of the storage."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = f"sqlite:///{target}"
    optuna.create_study(study_name=NAME, storage=url, directions=["maximize", "minimize"])
    known = {d.site: d.domain.options for d in filled.space().decisions}
    kinds = {s: optuna.distributions.CategoricalDistribution(options) for s, options in known.items()}
    texts = {site: optuna.distributions.distribution_to_json(kind) for site, kind in kinds.items()}
    at = "2026-01-01 00:00:00.000000"
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new, new:
        for place, (policy, top1, size) in enumerate(old.execute(_TRIALS, (trials,)), 1):
            asked = json.loads(policy)
            new.execute("INSERT INTO trials VALUES (?, ?, 1, 'COMPLETE', ?, ?)", (place, place - 1, at, at))
            new.executemany(
                "INSERT INTO trial_values (trial_id, objective, value, value_type) VALUES (?, ?, ?, 'FINITE')",
                [(place, 0, top1), (place, 1, size)],
            )
            new.executemany(
                "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) VALUES (?, ?, ?, ?)",
                [
                    (place, "/".join(s), known[s].index(asked[s.operator][s.layer][s.setting]), text)
                    for s, text in texts.items()
                ],
            )
    return url


@contextmanager
def served(url: str) -> Iterator[str]:
    """optuna-dashboard in a process of its own, and where it is."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    words = [str(Path(sys.executable).with_name("optuna-dashboard")), url, "--port", port, "--quiet"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            base = f"http://127.0.0.1:{port}"
            until = time.monotonic() + 120
            while not _answers(base):
                assert time.monotonic() < until, "optuna-dashboard did not start"
                time.sleep(0.2)
            yield base
        finally:
            process.terminate()


def _answers(base: str) -> bool:
    try:
        with urllib.request.urlopen(f"{base}/api/meta", timeout=20) as answer:
            found: Any = answer.status
            return bool(found == 200)
    except OSError:
        return False
