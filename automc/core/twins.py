"""Trials that measure the same thing: what one of them found is the answer to the others."""

from __future__ import annotations

from collections.abc import Sequence

from automc.core.policy import Policy
from automc.core.space import SearchSpace
from automc.core.study import Rung
from automc.core.trial import Trial, TrialState


class Twins:
    """The trials of a study by what of their policy changes the measurement, and by rung."""

    def __init__(self, space: SearchSpace, rungs: Sequence[Rung]) -> None:
        self._space, self._rungs = space, rungs
        self._alike: dict[tuple[str, int], list[int]] = {}

    def add(self, trial: Trial) -> None:
        """Know a trial; each once, in order of number, as the revision in force reads it."""
        self._alike.setdefault(self._key(trial.policy, trial.rung), []).append(trial.number)

    def of(self, policy: Policy, rung: int, trials: Sequence[Trial], before: int) -> Trial | None:
        """The first trial below number ``before`` that has measured (or found hopeless), or is about to, what this
        policy asks on this rung.

        Args:
            trials: of the study, by number, as they are now.
        """
        for number in self._alike.get(self._key(policy, rung), ()):
            earlier = trials[number]
            if number >= before:
                break
            if earlier.state is TrialState.COMPLETE or earlier.hopeless or not earlier.state.finished:
                return earlier
        return None

    def _key(self, policy: Policy, rung: int) -> tuple[str, int]:
        return self._space.effective(policy, trains=self._rungs[rung].steps > 0).fingerprint, rung
