"""The main job from one end to the other, with the commands a user would type. ``make demo`` runs it.

Searches jointly, runs the uniform grid with the same budget beside it, compares the two fronts, exports the
smallest member of the front that is within one point of the original, and lets a fresh process prove it.
Ends with 1 when a promise of the README does not hold.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

import automc
from automc.cli import main as automc_command
from automc.core.metrics import losses
from automc.core.study import StudySpec
from automc.core.trial import Trial

HERE = Path(__file__).resolve().parent
OUT = Path("runs")
STORAGE = "runs/demo.db"
POINT = 0.01


def command(line: str) -> None:
    print(f"\n$ automc {line}", flush=True)
    status = automc_command(shlex.split(line))
    if status:
        sys.exit(status)


def dominated(uniform: list[Trial], joint: list[Trial], spec: StudySpec) -> int:
    """How many members of the uniform front are dominated, better somewhere and worse nowhere, by the joint one."""

    def beats(ours: Trial, theirs: Trial) -> bool:
        a, b = (losses(spec.objectives, t.measurement.metrics) for t in (ours, theirs) if t.measurement)
        return all(x <= y for x, y in zip(a, b, strict=True)) and a != b

    return sum(any(beats(ours, theirs) for ours in joint) for theirs in uniform)


def main() -> int:
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    study_file = HERE / "study.yaml"
    command(f"check {study_file}")
    command(f"search {study_file}")
    command(f"search {HERE / 'uniform.yaml'}")
    command(f"pareto digits --storage {STORAGE} --plot {OUT / 'front.png'}")
    joint, uniform = (automc.open_study(name, STORAGE) for name in ("digits", "digits-uniform"))
    beaten, of = dominated(uniform.front(), joint.front(), joint.spec), len(uniform.front())
    shares = [study.summary()["covered"] for study in (joint, uniform)]
    print(f"\njoint front against the uniform grid, {joint.spec.budget.trials} trials each:")
    print(f"  covered share of the box   joint {shares[0]:.4f}   uniform {shares[1]:.4f}")
    print(f"  uniform front dominated    {beaten} of {of}")
    rule = f"top1 >= {joint.baseline['top1'] - POINT / 2}"
    command(f"pareto digits --storage {STORAGE} --pick '{rule}'")
    pick = joint.picked(rule).number
    command(f"trial digits/{pick} --storage {STORAGE}")
    command(f"export digits/{pick} -o {OUT / 'digits'} --storage {STORAGE}")
    command(f"verify {OUT / 'digits'}")
    proof = automc.verify(OUT / "digits")
    smaller = proof.baseline_bytes / (proof.size_bytes or proof.baseline_bytes)
    lost = proof.baseline_top1 - proof.top1
    print(
        f"\nexported digits/{pick}: {smaller:.1f} times smaller, test top1 {proof.baseline_top1:.4f} -> {proof.top1:.4f}"
    )
    kept = {
        "the joint front dominates the uniform front": beaten == of and shares[0] > shares[1],
        "at least 4 times smaller": smaller >= 4,
        "within one point of the original on the test split": lost <= POINT,
        "the original reaches 0.97 on the test split": proof.baseline_top1 >= 0.97,
        "verified in a fresh process": proof.passed,
    }
    for promise, holds in kept.items():
        print(f"  {'kept  ' if holds else 'BROKEN'} {promise}")
    return 0 if all(kept.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
