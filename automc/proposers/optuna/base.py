"""What all Optuna samplers share: a study in memory, filled for one proposal with what was told."""

from __future__ import annotations

import warnings
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from automc.core.metrics import Constraint, Objective
from automc.core.ports import Proposal
from automc.core.signature import MOST, Within
from automc.core.space import SearchSpace
from automc.core.trial import Trial
from automc.proposers.optuna.parameters import distribution, parameter, value
from automc.proposers.told import Told
from automc.proposers.uniform import UniformProposer

Anchors = Annotated[int, Within(0, MOST)]


class OptunaProposer:
    """A sampler asked for one proposal at a time; subclasses build the sampler.

    Objectives go to Optuna as losses (all minimised), constraints through its constraint interface. Ordered domains
    become integers, so that neighbours are neighbours. A fresh sampler is seeded for every trial number and shown the
    told rows (Told says which trials teach, and what of several rungs), and nothing is carried from one proposal to the
    next that does not follow from them, so a resumed search asks what an uninterrupted one would have asked.

    Policies that were asked and not told yet are not shown either. Who resumes a study is not told which they were; to
    find them again every earlier proposal would have to be made anew, because each depends on those pending then. So
    TPE's constant liar and the pending points of GP are off, and proposals of one window differ by their seeds.

    Args:
        anchors: how many of a study's first proposals are points of the uniform grid, so that the sampler
            starts from policies that are known to make sense.
        memory: how many told rows the sampler is shown at most, 0 for all.
    """

    name = ""

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        anchors: Anchors = 8,
        memory: int = 0,
    ) -> None:
        self._space, self._objectives, self._constraints = space, tuple(objectives), tuple(constraints)
        self._seed, self._anchors = seed, anchors
        self._uniform = UniformProposer(space, objectives, constraints, seed)
        self._distributions = {str(d.site): distribution(d) for d in space.decisions}
        self._told = Told(space, objectives, constraints, memory)
        self._frozen: dict[int, FrozenTrial] = {}

    def ask(self, numbers: range) -> list[Proposal]:
        return [self._ask(number) for number in numbers]

    def tell(self, trials: Sequence[Trial]) -> None:
        for place in self._told.tell(trials):
            self._frozen.pop(place, None)

    def _sampler(self, seed: int, number: int) -> BaseSampler:
        raise NotImplementedError

    def _shown(self) -> list[int]:
        """The rows that the sampler sees, ascending."""
        return self._told.few()

    def _trial(self, place: int) -> FrozenTrial:
        """A row as Optuna wants it; it is numbered from 1, because the trial being asked is number 0."""
        if place not in self._frozen:
            row = self._told.rows[place]
            found = create_trial(
                values=list(row.losses),
                params={str(d.site): parameter(d, row.policy) for d in self._space.decisions},
                distributions=self._distributions,
                constraints={str(c): x for c, x in zip(self._constraints, row.excess, strict=True)} or None,
            )
            found.number = found._trial_id = place + 1
            self._frozen[place] = found
        return self._frozen[place]

    def _ask(self, number: int) -> Proposal:
        if number < self._anchors:
            return self._uniform.ask(range(number, number + 1))[0]
        with _quietly():
            sampler = self._sampler((self._seed * 1_000_003 + number) % 2**32, number)
            study = in_memory([self._trial(i) for i in self._shown()], len(self._objectives), sampler)
            # What is asked is only a vehicle: what counts is told later, by whoever measured it.
            asked = study.ask(self._distributions).params
        return Proposal(self._space.policy({d.site: value(d, asked[str(d.site)]) for d in self._space.decisions}))


class _Shown(InMemoryStorage):
    """Optuna's storage, with given finished trials beside the one being asked: it would copy and check each anew."""

    def __init__(self, shown: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._shown = list(shown)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[OptunaState] | None = None
    ) -> list[FrozenTrial]:
        own = super().get_all_trials(study_id, deepcopy, states)
        return own + ([] if states is not None and OptunaState.COMPLETE not in states else self._shown)


def in_memory(shown: Sequence[FrozenTrial], objectives: int, sampler: BaseSampler) -> optuna.Study:
    """A study that has these finished trials and minimises."""
    storage = _Shown(shown)
    storage.create_new_study([StudyDirection.MINIMIZE] * objectives, "automc")
    return optuna.load_study(study_name="automc", storage=storage, sampler=sampler)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what Optuna tells its own developers: that a study was made, or that a sampler is experimental."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
