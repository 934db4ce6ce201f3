"""Complete trials as columns: what is made of a hundred thousand of them is made of these."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from automc.core.metrics import Constraint
from automc.core.trial import Trial, TrialState


class Numbers(NamedTuple):
    """Of each complete trial its number, rung, place (how many had finished, itself among them) and whether it was
    answered from the store, shape (trials,), in order of number; by metric its value, NaN where it is no finite number
    or not there."""

    number: NDArray[np.int64]
    rung: NDArray[np.int64]
    place: NDArray[np.int64]
    answered: NDArray[np.bool_]
    values: Mapping[str, NDArray[np.float64]]


def of_trials(trials: Iterable[Trial], places: Mapping[int, int], metrics: Sequence[str]) -> Numbers:
    """The columns of these metrics of trials that are at hand, in order of number; ``places`` by number."""
    complete = [(t, t.measurement) for t in trials if t.state is TrialState.COMPLETE and t.measurement]
    values = {
        name: np.array(
            [found.seconds if name == "seconds" else found.metrics.get(name, math.nan) for _, found in complete]
        )
        for name in metrics
    }
    number, rung, place = (
        np.array([what(t) for t, _ in complete], dtype=np.int64)
        for what in (lambda t: t.number, lambda t: t.rung, lambda t: places[t.number])
    )
    answered = np.array([t.twin is not None for t, _ in complete], dtype=np.bool_)
    finite = {name: np.where(np.isfinite(column), column, np.nan) for name, column in values.items()}
    return Numbers(number, rung, place, answered, finite)


def feasible(known: Numbers, constraints: Sequence[Constraint]) -> NDArray[np.bool_]:
    """Which trials keep all constraints; one whose metric is not known breaks it."""
    held = np.ones(len(known.number), dtype=np.bool_)
    for bound in constraints:
        value = known.values[bound.metric]
        held &= value <= bound.bound if bound.sign == "<=" else value >= bound.bound
    return held
