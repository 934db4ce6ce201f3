"""What a study takes over pays: warm starts find more with the same trials, and no kill costs what was remembered."""

import importlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from automc.app import catalog, runs
from automc.app.config import study_from
from automc.core.search import Ending
from automc.stores import open_store

SPACE = {
    "rules": [
        {"operator": "prune", "settings": {"prune_ratio": {"low": 0.0, "high": 0.8, "step": 0.1}}},
        {"operator": "quantize", "settings": {"weight_bits": [2, 4, 8], "activation_bits": 8}},
    ]
}
STUDY = {
    "model": "digits_net",
    "data": "digits",
    "space": SPACE,
    "objectives": {"top1": "maximize"},
    "constraints": ["size_ratio <= 0.12"],
    "workers": {"count": 0},
    "storage": "memory:",
}


def best(name, layers, trials, warm_start=(), seed=0):
    """A study by TPE, and the best top1 it found within the budget."""
    synthetic = {"name": "synthetic", "settings": {"layers": layers}}
    said = {**STUDY, "name": name, "evaluator": synthetic, "budget": {"trials": trials}, "seed": seed}
    study = runs.start(study_from(said | {"proposer": "tpe"}, "test"), warm_start)
    assert study.run() is Ending.DONE
    return study, study.picked("max:top1").measurement.metrics["top1"]


def test_a_warm_start_finds_more_with_the_same_trials():
    """From the same network and from a smaller one. Cold, TPE has hardly begun after 24 trials; with what 60 others
    found on the same network it is where these ended, or beyond.
    """
    old, reached = best("old", 6, 60, seed=100)
    for layers in (6, 9):
        _, cold = best(f"cold{layers}", layers, 24)
        _, warm = best(f"warm{layers}", layers, 24, [old])
        assert warm > cold + 0.02, layers
        assert warm > reached - 0.02 or layers == 9, layers


KILLS = 6


def told(storage):
    trials = open_store(storage, create=False).trials("killed")
    return [(t.number, t.policy, t.state, t.measurement and dict(t.measurement.metrics)) for t in trials]


def until(word, nursery):
    """The first line that begins so, its words."""
    return next(line.split() for line in nursery.stdout if line.startswith(word))


@pytest.mark.slow
def test_kills_cost_a_remembering_proposer_nothing(tmp_path, monkeypatch):
    """Warm-started, killed six times between two keepings of its memory, and in the end as if it had never been.

    Two searches of 75 durable trials, hence slow.
    """
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    children = importlib.import_module("remembering_children")
    monkeypatch.setitem(catalog.PROPOSERS, "diary", "remembering_children:Diary")
    old, _ = best("old", 6, 10)
    synthetic = {"name": "synthetic", "settings": {"layers": 6, "fail": {"error": 0.1}}}
    study = {**STUDY, "name": "killed", "evaluator": synthetic, "proposer": "diary", "budget": {"trials": 75}}
    whole, killed = str(tmp_path / "whole.db"), str(tmp_path / "killed.db")
    for storage in (whole, killed):
        made = runs.start(study_from({**study, "storage": storage}, "test"), [old])
        if storage == whole:
            assert made.run() is Ending.DONE
        made.close()
    draw, script = random.Random(0), str(Path(children.__file__))
    with subprocess.Popen(
        [sys.executable, script, killed], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as nursery:
        for _ in range(KILLS):
            print(file=nursery.stdin, flush=True)
            _, pid = nursery.stdout.readline().split()
            for _ in range(draw.randrange(1, 12)):
                assert nursery.stdout.readline().startswith("finished ")
            time.sleep(draw.uniform(0.0, 0.02))
            os.kill(int(pid), signal.SIGKILL)
            assert until("ended", nursery) == ["ended", str(signal.SIGKILL.value)]
        done = len(told(killed))
        print(file=nursery.stdin, flush=True)
        recalled = int(until("recalled", nursery)[1])
        assert nursery.stdout.readline() == "done\n"
        assert nursery.stdout.readline() == "ended 0\n"
        nursery.stdin.close()
    assert 20 < done < 75
    assert 5 <= recalled < done
    assert told(killed) == told(whole)
