"""Thirty SIGKILLs of the driver at random moments, then resume: the trial set equals the uninterrupted run's."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from automc.app import runs
from automc.app.config import study_from
from automc.core.search import Ending
from automc.core.trial import TrialState
from automc.stores import open_store

STUDY = {
    "name": "killed",
    "model": "digits_net",
    "data": "digits",
    "space": {
        "rules": [
            {"operator": "prune", "settings": {"prune_ratio": {"low": 0.0, "high": 0.8, "step": 0.1}}},
            {"operator": "quantize", "settings": {"weight_bits": [2, 4, 8], "activation_bits": 8}},
        ]
    },
    "objectives": {"top1": "maximize", "size_bytes": "minimize"},
    "evaluator": {"name": "synthetic", "settings": {"layers": 6, "sleep_s": 0.01, "fail": {"error": 0.1, "nan": 0.05}}},
    "rungs": [{"steps": 0}, {"steps": 10, "share": 0.2}],
    "budget": {"trials": 400},
    "workers": {"count": 0},
}

DRIVER = """
import sys
from automc.app import runs
import automc.proposers.optuna  # takes a second; the kills should meet the search and not its imports
study = runs.resume("killed", sys.argv[1])
print("up", flush=True)
print(study.run().value)
"""

KILLS = 30


def told(storage: str):
    return [
        (
            t.number,
            t.policy.fingerprint,
            t.memo,
            t.rung,
            t.state,
            t.reason,
            t.twin,
            t.measurement and dict(t.measurement.metrics),
        )
        for t in open_store(storage, create=False).trials("killed")
    ]


@pytest.mark.slow
def test_thirty_kills_lose_nothing_and_change_nothing(tmp_path):
    """Each life of the driver starts Python and loads Optuna (1.5 s), hence slow."""
    whole, killed = str(tmp_path / "whole.db"), str(tmp_path / "killed.db")
    assert runs.start(study_from({**STUDY, "storage": whole}, "test")).run() is Ending.DONE
    runs.start(study_from({**STUDY, "storage": killed}, "test")).close()
    draw, kills, finished = random.Random(0), 0, 0
    while True:
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, killed], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert driver.stdout.readline() == "up\n"
        time.sleep(draw.uniform(0.0, 0.5) if kills < KILLS else 0)
        if kills < KILLS:
            os.kill(driver.pid, signal.SIGKILL)
            kills += driver.wait() == -signal.SIGKILL
            driver.communicate()
            done = len(open_store(killed, create=False).trials("killed", [s for s in TrialState if s.finished]))
            assert done >= finished, "an acknowledged result is gone"
            finished = done
            continue
        out, err = driver.communicate(timeout=120)
        assert out == "done\n", err
        break
    assert kills == KILLS
    assert 20 < finished < 400, "the kills came too early or too late to prove anything"
    assert told(killed) == told(whole)
