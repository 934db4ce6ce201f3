"""How many trials of a study came to what: a few lines, however many trials there are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from automc.core.trial import HOPELESS, Trial, TrialState


class Count(NamedTuple):
    """So many trials that are alike.

    Attributes:
        answered: from the store, as another trial was measured. samples: inputs their scores were measured on, 0 where
            nothing was. seconds: of evaluation, all of them together; what is not known counts none.
    """

    state: TrialState
    reason: str
    answered: bool
    samples: int
    number: int
    seconds: float

    @property
    def hopeless(self) -> bool:
        """As ``Trial.hopeless``."""
        return self.state is TrialState.STOPPED and self.reason in HOPELESS


def tally(trials: Iterable[Trial]) -> list[Count]:
    """One count for each kind there is, in order."""
    numbers: Counter[tuple[str, str, bool, int]] = Counter()
    seconds: Counter[tuple[str, str, bool, int]] = Counter()
    for trial in trials:
        found = trial.measurement
        kind = (trial.state.value, trial.reason, trial.twin is not None, found.samples if found else 0)
        numbers[kind] += 1
        spent = found.seconds if found else 0.0
        seconds[kind] += 0.0 if math.isnan(spent) else spent  # type: ignore[assignment]
    return [Count(TrialState(kind[0]), *kind[1:], numbers[kind], float(seconds[kind])) for kind in sorted(numbers)]


def failures(counts: Iterable[Count]) -> dict[str, int]:
    """How many trials failed for each reason there is."""
    found: Counter[str] = Counter()
    for count in counts:
        if count.state is TrialState.FAILED:
            found[count.reason] += count.number
    return dict(found)


def by_state(counts: Iterable[Count]) -> dict[TrialState, int]:
    """How many trials are in each state, 0 included."""
    found = dict.fromkeys(TrialState, 0)
    for count in counts:
        found[count.state] += count.number
    return found
