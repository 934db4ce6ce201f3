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

TRIALS = 160

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
    "proposer": "tpe",  # imported ahead below, so that the kills hit the search and not its start
    "evaluator": {
        "name": "synthetic",
        "settings": {
            "layers": 6,
            "sleep_s": 0.02,
            "fail": {"error": 0.1, "nan": 0.05},
            "inputs": 1000,
            "doubt": 0.01,
        },
    },
    "rungs": [{"steps": 0}, {"steps": 10, "share": 0.2}],
    "budget": {"trials": TRIALS},
    "workers": {"count": 0},
}

NURSERY = """
import os, sys
from automc.app import runs
import automc.proposers.optuna, automc.evaluation.synthetic, automc.stores.sql, automc.workers.inline
for line in sys.stdin:  # a driver for each line: the kills meet searches, and thirty of them import nothing anew
    driver = os.fork()
    if not driver:
        study = runs.resume("killed", sys.argv[1])
        print("up", os.getpid(), flush=True)
        print(study.run().value, flush=True)
        os._exit(0)
    print("ended", os.waitpid(driver, 0)[1], flush=True)
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


def finished_in(storage: str) -> int:
    return len(open_store(storage, create=False).trials("killed", [s for s in TrialState if s.finished]))


def await_finished(storage: str, count: int) -> None:
    end = time.monotonic() + 30
    while finished_in(storage) < count:
        assert time.monotonic() < end, "the driver does nothing"
        time.sleep(0.02)


@pytest.mark.slow
def test_thirty_kills_lose_nothing_and_change_nothing(tmp_path):
    """Thirty lives of a few trials each, hence slow."""
    whole, killed = str(tmp_path / "whole.db"), str(tmp_path / "killed.db")
    assert runs.start(study_from({**STUDY, "storage": whole}, "test")).run() is Ending.DONE
    runs.start(study_from({**STUDY, "storage": killed}, "test")).close()
    draw, finished = random.Random(0), 0
    with subprocess.Popen(
        [sys.executable, "-c", NURSERY, killed], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as nursery:
        for kill in range(KILLS + 1):
            print(file=nursery.stdin, flush=True)
            word, pid = nursery.stdout.readline().split()
            assert word == "up"
            if kill == KILLS:  # the last one lives
                break
            time.sleep(draw.uniform(0.0, 0.5) * (1 - finished / TRIALS))  # on any machine trials are left for the last
            os.kill(int(pid), signal.SIGKILL)
            assert nursery.stdout.readline() == f"ended {signal.SIGKILL.value}\n"
            done = len(open_store(killed, create=False).trials("killed", [s for s in TrialState if s.finished]))
            assert done >= finished, "an acknowledged result is gone"
            finished = done
        assert nursery.stdout.readline() == "done\n"
        assert nursery.stdout.readline() == "ended 0\n"
        nursery.stdin.close()
    assert 20 < finished < TRIALS, "the kills came too early or too late to prove anything"
    assert told(killed) == told(whole)
    assert any(reason == "dominated" for _, _, _, _, _, reason, _, _ in told(whole)), "nobody was stopped as hopeless"
