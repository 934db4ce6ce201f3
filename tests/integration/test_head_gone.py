"""The head of the Ray cluster is killed while a study is searched: a line, an exit code, and nothing lost."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from automc.app import runs
from automc.app.config import study_from
from automc.core.trial import TrialState

ENGINE = Path(__file__).resolve().parents[2] / "experiments" / "benchmarks" / "engine"
STUDY = {
    "name": "s",
    "model": "digits_net",
    "data": "digits",
    "space": {"rules": [{"operator": "prune", "settings": {"prune_ratio": {"low": 0.0, "high": 0.7}}}]},
    "objectives": {"top1": "maximize", "size_bytes": "minimize"},
    "evaluator": {"name": "synthetic", "settings": {"layers": 5, "sleep_s": 0.5}},
    "proposer": "random",
    "budget": {"trials": 200},
}
RESUME = """
import sys
from automc.workers import pulse
pulse.KNOCK_SECONDS, pulse.GONE_SECONDS = 0.5, 2.0
from automc.cli import main
sys.exit(main(["resume", "s", "--storage", sys.argv[1], "--json"]))
"""


@pytest.mark.slow
def test_a_head_that_is_killed_ends_the_search_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head, a node and a driver start, hence slow."""
    monkeypatch.syspath_prepend(str(ENGINE))
    nodes = importlib.import_module("ray_nodes")
    for name, value in nodes.TOKEN.items():
        monkeypatch.setenv(name, value)
    storage, said = str(tmp_path / "s.db"), tmp_path / "said"
    head, address = nodes.head(tmp_path / "head.log")
    node = nodes.worker(tmp_path / "node.log", address)
    try:
        workers = {"count": 2, "address": address}
        runs.start(study_from({**STUDY, "workers": workers, "storage": storage}, "test")).close()
        with said.open("w") as err:
            driver = subprocess.Popen(
                [sys.executable, "-c", RESUME, storage], env=os.environ, stdout=subprocess.PIPE, stderr=err
            )
        try:
            nodes.until(lambda: "[4/200]" in said.read_text(), 120)
            head.kill()
            began = time.monotonic()
            out, _ = driver.communicate(timeout=120)
            assert time.monotonic() - began < 30.0, "Ray itself gives up after a minute"
        finally:
            driver.kill()
            driver.communicate()
    finally:
        node.kill()
        head.kill()
    assert (driver.returncode, out) == (6, b"")
    assert "Traceback" not in said.read_text()
    last = said.read_text().splitlines()[-1]
    assert last.startswith(f"automc: workers: the Ray cluster at {address} is gone: its head does not answer")
    with closing(runs.open_study("s", storage)) as study:
        states = Counter(trial.state for trial in study.records())
        assert states.keys() == {TrialState.COMPLETE, TrialState.WAITING}
        assert states[TrialState.COMPLETE] >= 4
        assert study.store.driver("s") is None
