"""How the front grew: its share of the box below the original model, by what had finished and what that took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from automc.core.front import GrowingFront
from automc.core.history import FrontChange
from automc.core.metrics import losses
from automc.core.pareto import share
from automc.core.study import StudySpec
from automc.core.tally import Count
from automc.core.trial import Trial

if TYPE_CHECKING:
    from automc.app.study import Study

MOST = 100
"""At so many changes of the front its share is computed: of more, at an even choice and at the last."""

PARTS = 200
"""Into so many parts, equally long, the trials are cut: of more, the front is looked at where a part ends."""


class Step(NamedTuple):
    """The share in [0, 1] that the front covers when ``done`` trials had finished, and until the next step.

    ``seconds`` of evaluation by then, all workers together; of failed trials and answers from the store none.
    """

    done: int
    seconds: float
    share: float


def growth(study: Study, counts: Sequence[Count], known: Sequence[Trial] = ()) -> list[Step]:
    """The steps of a study's curve, in order of finishing: of a front that is recorded from the record alone.

    Args:
        counts: of all its trials, as the store has them. known: those that were read from it already.
    """
    read = study.reading()
    total = sum(count.number for count in counts if count.state.finished)
    if read.changeless:
        changes = study.store.front_changes(study.name)
        trials = {trial.number: trial for trial in known}
        missing = {change.number for change in changes}.difference(trials)
        trials |= {trial.number: trial for trial in study.store.trials(study.name, numbers=missing)}
    else:
        trials = {trial.number: trial for trial in study.counted()}
        changes = replayed(study.spec, [trials[number] for number in study.store.finishing(study.name)])
    part = part_of(total)
    return grown(study.spec, study.baseline, changes, trials, study.store.spent(study.name, part), total)


def part_of(total: int) -> int:
    """How many trials a part has."""
    return max(-(-total // PARTS), 1)


def replayed(spec: StudySpec, trials: Sequence[Trial]) -> list[FrontChange]:
    """What each of these trials changed on the front, in the order in which they finished."""
    front = GrowingFront(spec.objectives, spec.constraints)
    found = [(place, sorted(front.add(trial).items())) for place, trial in enumerate(trials, 1)]
    return [FrontChange(place, *change) for place, changes in found for change in changes]


def grown(
    spec: StudySpec,
    baseline: Mapping[str, float],
    changes: Sequence[FrontChange],
    trials: Mapping[int, Trial],
    seconds: Sequence[float],
    total: int,
) -> list[Step]:
    """The steps.

    Args:
        changes: of the front, in order of place. trials: by number, who ever was on it at least. seconds: of each part.
        total: so many trials have finished.
    """
    part, fronts, members = part_of(total), dict[int, list[int]](), set[int]()
    for change in changes:
        (members.add if change.entered else members.discard)(change.number)
        fronts[min(-(-change.place // part) * part, total)] = sorted(members)
    if not fronts:
        return []
    ends = list(fronts)
    chosen = [ends[at] for at in np.unique(np.linspace(0, len(ends) - 1, min(MOST, len(ends))).astype(int)).tolist()]
    spent, mine = np.cumsum(seconds), {number for end in chosen for number in fronts[end]}
    points = {n: losses(spec.objectives, found.metrics) for n in mine if (found := trials[n].measurement)}
    shares = [share(np.array([points[n] for n in fronts[end]]), spec.objectives, baseline) for end in chosen]
    return [Step(end, float(spent[-(-end // part) - 1]), box) for end, box in zip(chosen, shares, strict=True)]
