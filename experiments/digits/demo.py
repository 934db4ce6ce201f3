"""The main job from one end to the other, with the commands a user would type. ``make demo`` runs it.

Measures the uniform grid, extends the study with a joint search that is told all of it, compares the two fronts,
exports the smallest model of the front within a point of the original on the search split (an export is repaired as on
the last rung), and lets a fresh process prove it. Ends with 1 when a promise of the README does not hold.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

import automc
from automc.app.study import Study
from automc.cli import main as automc_command
from automc.core.metrics import losses
from automc.core.pareto import covered, front
from automc.errors import AutomcError

HERE = Path(__file__).resolve().parent
OUT = Path("runs/demo")
STORAGE = f"{OUT}/studies.db"
POINT = 0.01
TIMES = 4


def command(line: str) -> None:
    print(f"\n$ automc {line}", flush=True)
    status = automc_command(shlex.split(line))
    if status:
        sys.exit(status)


def compare(study: Study, grid: int) -> dict[str, bool]:
    """Hold the front of the joint search alone against that of the ``grid`` trials before it; print and judge.

    What the search itself repaired of the grid's policies is left out of both.
    """
    spec, trials = study.spec, study.records()
    uniform = {trial.policy for trial in trials[:grid]}
    parts = trials[:grid], [t for t in trials[grid:] if t.policy not in uniform]
    fronts = [front(part, spec.objectives, spec.constraints) for part in parts]
    shares = [covered(some, spec.objectives, spec.constraints, study.baseline) for some in fronts]
    joint = [losses(spec.objectives, t.measurement.metrics) for t in fronts[1] if t.measurement]
    beaten, level, missed = 0, 0, 0
    for member in fronts[0]:
        assert member.measurement is not None
        theirs = losses(spec.objectives, member.measurement.metrics)
        errors = [member.measurement.errors.get(objective.metric, 0.0) for objective in spec.objectives]
        if any(ours != theirs and all(x <= y for x, y in zip(ours, theirs, strict=True)) for ours in joint):
            beaten += 1
        elif any(all(x <= y + error for x, y, error in zip(ours, theirs, errors, strict=True)) for ours in joint):
            level += 1  # by no more than what the search split can tell apart
        else:
            missed += 1
    print(f"\njoint search ({len(parts[1])} trials, by themselves) against the uniform grid ({grid} trials):")
    print(f"  share of the box covered   uniform {shares[0]:.4f}   joint {shares[1]:.4f}")
    print(f"  members of the uniform front {len(fronts[0])}: beaten {beaten}, level within a standard error {level}, "
          f"not reached {missed}")  # fmt: skip
    return {"the joint front dominates the uniform front": not missed and beaten > level and shares[1] > shares[0]}


def main() -> int:
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    study_file = HERE / "study.yaml"
    command(f"search {study_file}")
    grid = len(automc.open_study("digits", STORAGE).records())
    command(f"extend digits --trials +150 --proposer portfolio --storage {STORAGE}")
    command(f"pareto digits --storage {STORAGE} --plot {OUT / 'front.png'}")
    study = automc.open_study("digits", STORAGE)
    kept = compare(study, grid)
    pick = study.picked(f"top1 >= {study.baseline['top1'] - POINT}").number  # the smallest of the accurate ones
    command(f"trial digits/{pick} --storage {STORAGE}")
    command(f"export digits/{pick} -o {OUT / 'digits'} --storage {STORAGE}")
    proof = automc.verify(OUT / "digits")
    top1, original, error = proof.scores["top1"], proof.baseline_scores["top1"], proof.errors["top1"]
    smaller = proof.baseline_bytes / (proof.size_bytes or proof.baseline_bytes)
    print(f"\ndigits/{pick}: {smaller:.1f} times smaller, test top1 {original:.4f} -> {top1:.4f} ± {error:.4f}")
    kept |= {
        f"at least {TIMES} times smaller": smaller >= TIMES,
        "within one point of the original on the test split, and a standard error": original - top1 <= POINT + error,
        "the original reaches 0.97 on the test split": original >= 0.97,
        "verified in a fresh process": proof.passed,
    }
    for promise, holds in kept.items():
        print(f"  {'kept  ' if holds else 'BROKEN'} {promise}")
    return 0 if all(kept.values()) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except AutomcError as error:
        sys.exit(f"demo: {error}")
