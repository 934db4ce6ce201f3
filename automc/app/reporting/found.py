"""What a report is made of, read from the database once. No model is loaded."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from automc.app import listing, warm
from automc.app.importance import Importance, mattered
from automc.app.reporting.growth import Step, growth
from automc.app.writer import to_yaml
from automc.core.layers import LayerTable
from automc.core.metrics import Measurement
from automc.core.study import StudySpec
from automc.core.tally import Count
from automc.core.trial import Trial, TrialState
from automc.errors import SpecError

if TYPE_CHECKING:
    from automc.app.study import Study

MOST = 150
"""So many trials are looked at one by one; of more an even choice, and all that were once on the front."""

PACKAGES = ("automc", "torch", "numpy", "optuna", "ray", "scikit-learn", "onnxruntime", "sqlalchemy")


@dataclass(frozen=True)
class Found:
    """A study as its database has it.

    Attributes:
        revisions: oldest first. storage: without its password.
        counts: of all trials. trials: all, or of more than MOST an even choice. counted: these, and those that were
            once on the front, as the revision in force reads them. ended: the last trial of each state and reason.
        growth: of the front. front: best first objective first.
        pick: the rule of ``picked``; ``picked`` is None while the front is empty.
        started: from which other studies, a line each. mattered: which decisions did, or why nobody can tell.
        written: when (UTC). versions: of the machine that writes the report.
        study_file: what ``automc search`` takes to do the same again.
    """

    revisions: Sequence[StudySpec]
    storage: str
    baseline: Mapping[str, float]
    layers: LayerTable
    counts: Sequence[Count]
    trials: Sequence[Trial]
    counted: Sequence[Trial]
    ended: Sequence[Trial]
    growth: Sequence[Step]
    front: Sequence[Trial]
    pick: str
    picked: Trial | None
    started: Sequence[str]
    mattered: Importance | str
    written: str
    versions: Mapping[str, str]
    study_file: str

    @property
    def spec(self) -> StudySpec:
        """The revision in force."""
        return self.revisions[-1]

    @property
    def name(self) -> str:
        return self.spec.name


def find(study: Study, pick: str) -> Found:
    """Read a study.

    Raises:
        SpecError: no such rule to pick by. UnknownTrial: the front has a member, but none that the rule holds for.
    """
    revisions, counts = study.store.revisions(study.name), study.store.tally(study.name)
    trials = listing.some(study, sum(count.number for count in counts), MOST)
    named = {change.number for change in study.store.front_changes(study.name)}.difference(t.number for t in trials)
    seen = sorted([*trials, *study.store.trials(study.name, numbers=named)], key=lambda trial: trial.number)
    members = study.front()
    return Found(
        revisions,
        without_password(study.storage),
        study.baseline,
        study.layers,
        counts,
        trials,
        list(map(study.reading(), seen)),
        _ended(study, counts),
        growth(study, counts, seen),
        members,
        pick,
        study.picked(pick, members) if members else None,
        warm.lines(warm.summary(study.facts)),
        _mattered(study),
        datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        versions(),
        to_yaml(revisions[0]),
    )


def _ended(study: Study, counts: Sequence[Count]) -> list[Trial]:
    kinds = sorted({(count.state.value, count.reason) for count in counts if count.reason})
    wheres = [f"state == {state} and reason == {reason}" for state, reason in kinds]
    return [study.store.query(study.name, where, ["-number"], 1)[0] for where in wheres]


def work(counts: Sequence[Count]) -> float:
    """Seconds of evaluation, all workers together; answers from the store took none."""
    return sum(count.seconds for count in counts if not count.answered)


def _mattered(study: Study) -> Importance | str:
    try:
        return mattered(study, study.spec.objectives[0].metric)
    except SpecError as error:
        return str(error)


@cache
def versions() -> Mapping[str, str]:
    """Of Python and of the packages that a measurement goes through; nothing is imported."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def without_password(storage: str) -> str:
    """The address of a database as it may be shown."""
    scheme, mark, rest = storage.partition("://")
    user, at, place = rest.rpartition("@")
    if not mark or not at:
        return storage
    return f"{scheme}://{user.partition(':')[0]}{':***' if ':' in user else ''}@{place}"


def metrics_of(trial: Trial) -> dict[str, float]:
    """A trial's metrics with its seconds; empty where it was not measured."""
    found = trial.measurement
    return {"seconds": found.seconds, **found.metrics} if found else {}


def measured(trial: Trial) -> Measurement:
    """What was measured of a trial, or nothing."""
    return trial.measurement or Measurement({})


def complete(trials: Sequence[Trial]) -> list[Trial]:
    """Those that were measured in full."""
    return [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.measurement]
