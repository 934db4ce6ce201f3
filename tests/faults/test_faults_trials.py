"""A study whose trials fail in every way, on real workers: each has its reason, and the study goes on to its end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from automc.app import runs
from automc.app.config import study_from
from automc.core.trial import TrialState
from automc.workers.outcomes import MESSAGE_CHARACTERS

HERE = Path(__file__).resolve().parent
TIMEOUT, MEMORY, TRIALS = 20.0, 2000, 14
REASONS = {
    "nan": "nan",
    "inf": "nan",
    "minus-inf": "nan",
    "huge": "error",
    "unspeakable": "error",
    "memory": "oom",
    "eat": "oom",
    "hang": "timeout",
}
"""What becomes of a trial that meets this mood; "kill" and "exit" are tried again, and then nothing is wrong."""
SAID = (
    *("became nan", "became inf", "became -inf", "KeyError: 'xxx", "Unspeakable: its message cannot be shown"),
    *("out of memory", f"the limit is memory_mb = {MEMORY}", f"the limit is timeout_s = {TIMEOUT:g}"),
)


@pytest.mark.slow
def test_every_way_to_fail_has_its_reason_and_the_study_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray, two workers with torch and a hang of twenty seconds (a slow machine needs them for the others): slow."""
    moods = tmp_path / "moods"
    moods.mkdir()
    monkeypatch.setenv("MOODS", str(moods))
    study = {
        "name": "moody",
        "model": "digits_net",
        "data": "digits",
        "task": f"{HERE}/moody.py:Moody",
        "space": {"rules": [{"operator": "prune", "settings": {"prune_ratio": {"low": 0.0, "high": 0.7}}}]},
        "objectives": {"top1": "maximize", "size_bytes": "minimize"},
        "proposer": "random",
        "budget": {"trials": TRIALS},
        "workers": {"count": 2, "timeout_s": TIMEOUT, "memory_mb": MEMORY, "retries": 2},
        "storage": str(tmp_path / "s.db"),
    }
    runs.start(study_from(study, "test")).close()
    for number, name in enumerate([*REASONS, "kill", "exit"]):
        (moods / f"{number:02d}-{name}").touch()
    command = [sys.executable, "-m", "automc.cli", "resume", "moody", "--storage", str(tmp_path / "s.db"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | {"COLUMNS": "80"})
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert max(map(len, done.stderr.splitlines())) < MESSAGE_CHARACTERS + 500
    summary = json.loads(done.stdout)
    assert summary["counts"] == {"complete": TRIALS - len(REASONS), "failed": len(REASONS)} | dict.fromkeys(
        summary["counts"].keys() - {"complete", "failed"}, 0
    )
    assert Counter(summary["failures"]) == Counter(REASONS.values())
    with closing(runs.open_study("moody", str(tmp_path / "s.db"))) as found:
        messages = {trial.message for trial in found.records() if trial.state is TrialState.FAILED}
        attempts = found.store.attempts("moody")
    for said in SAID:
        assert any(said in message for message in messages), said
    assert Counter(a.reason for a in attempts if a.state is TrialState.WAITING) == {"signal": 1, "lost": 1}
    [hang] = [a for a in attempts if a.reason == "timeout"]
    assert hang.seconds is not None
    assert hang.seconds >= TIMEOUT
    # when its process was ended; the attempt's seconds hold the ways to the worker and back, too, and what else the
    # driver did meanwhile on a machine whose two cores are both at work
    ended = re.fullmatch(r"ended after ([\d.]+) s; the limit is timeout_s = 20", hang.message)
    assert ended, hang.message
    assert TIMEOUT <= float(ended[1]) < TIMEOUT + 2.0
