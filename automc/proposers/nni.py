"""NNI's tuners, driven through their plain interface: no manager process, no server, no files.

Of those in nni 3.0, ``tpe``, ``evolution``, ``gp``, ``random`` and ``gridsearch`` work here. The others do not:

- Anneal and Hyperopt's TPE want hyperopt 0.1.2, which fails on NumPy 2 (it takes arrays of one element for numbers).
- SMAC wants smac4nni of 2020, which does not build; DNGO wants pybnn, which is not to be had.
- Metis draws from the global generators in four threads at once, so no proposal of it can be repeated.
- BOHB, Hyperband and PBT steer running trials from step to step: they are no ask and tell.
- PPO, RegularizedEvolution and NetworkMorphism build networks, not policies.
- Batch takes a written list of policies, which ``uniform`` already gives.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any

import numpy as np

from automc.core.metrics import Constraint, Objective
from automc.core.policy import Policy
from automc.core.ports import Proposal
from automc.core.signature import OneOf, Within
from automc.core.space import SearchSpace
from automc.core.trial import Trial
from automc.errors import SpecError
from automc.proposers.coordinates import Coordinates, seeded
from automc.proposers.told import Told

Tuner = Any
"""nni.tuner.Tuner."""

Space = dict[str, dict[str, Any]]
"""A search space in NNI's words: ``{name: {"_type": "uniform" or "choice", "_value": [...]}}``."""

Records = list[dict[str, Any]]
"""What a tuner learns from, as ``import_data`` has it: ``{"parameter": {name: value}, "value": loss}``."""

STARTUP = 20
"""Told rows before ``tpe`` and ``evolution`` look at them; random until then."""


class NNIProposer:
    """One of NNI's tuners, built anew for every proposal from what was told.

    Tuners keep hidden state and some draw from the global generators, so each is given the rows that are worth
    remembering (see Told), seeded by the trial's number, asked once, and dropped. A tuner sees one number, to be
    minimised: the loss, and for policies that break a constraint one behind all that keep them (Told.scalars).
    Ordered decisions are coordinates of the unit interval, the others choices.

    - ``tpe``: Parzen estimators, decision by decision (Bergstra et al. 2011).
    - ``evolution``: of two rows drawn at random, the better one with one decision drawn anew (Real et al. 2017).
    - ``gp``: the best expected improvement of 1,000 random points; random until 10 rows are told. (The tuner's own
      gradient search fails on today's SciPy.)
    - ``random``: uniform draws.
    - ``gridsearch``: every combination, the last decision turning fastest, continuous ones in the middle first and then
      finer; the trial's number is the place in the grid. For spaces of a few decisions.

    Args:
        tuner: one of these.
        memory: how many rows a tuner is shown at most, at least 20: the best half of all, and the last.

    Raises:
        SpecError: nni is not installed, an unknown tuner, or several objectives.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        tuner: Annotated[str, OneOf(("tpe", "evolution", "gp", "random", "gridsearch"))] = "tpe",
        memory: Annotated[int, Within(STARTUP, 100_000)] = 100,
    ) -> None:
        if len(objectives) > 1:
            names = ", ".join(o.metric for o in objectives)
            raise SpecError(
                f"proposer nni: its tuners have one objective, the study has {len(objectives)} ({names}); "
                "make all but one a constraint, or use nsga2"
            )
        _load("random_tuner")
        self._space, self._seed, self._tuner = space, seed, tuner
        self._told = Told(space, objectives, constraints, memory)
        self._coordinates = Coordinates(space, tuner == "gridsearch")
        self._named = {name: _searched(options) for name, options in self._coordinates.options.items()}
        self._records: Records | None = None
        self._walked: tuple[Tuner, list[Policy]] = (None, [])

    def ask(self, numbers: range) -> list[Proposal]:
        return [Proposal(self._ask(number)) for number in numbers]

    def tell(self, trials: Sequence[Trial]) -> None:
        if self._told.tell(trials):
            self._records = None

    def _ask(self, number: int) -> Policy:
        if self._tuner == "gridsearch":
            return self._place(number)
        if self._records is None:
            few = self._told.few()
            values = self._told.scalars(few).tolist()
            points = [self._coordinates.point(self._told.rows[i].policy) for i in few]
            self._records = [{"parameter": p, "value": v} for p, v in zip(points, values, strict=True)]
        seed = (self._seed * 1_000_003 + number) % 2**32
        with seeded(seed):
            return self._coordinates.policy(
                TUNERS[self._tuner](seed, self._named, self._records).generate_parameters(0)
            )

    def _place(self, number: int) -> Policy:
        """The policy at a place of the grid; after the last comes the first."""
        tuner, found = self._walked
        if tuner is None:
            tuner = TUNERS["gridsearch"](0, self._named, [])
            self._walked = tuner, found
        while len(found) <= number:
            try:
                found.append(self._coordinates.policy(tuner.generate_parameters()))
            except _load("gridsearch_tuner").nni.NoMoreTrialError:
                break
        return found[number % len(found)]


def _searched(options: int) -> dict[str, Any]:
    """A coordinate in NNI's words."""
    return (
        {"_type": "choice", "_value": list(range(options))} if options else {"_type": "uniform", "_value": [0.0, 1.0]}
    )


def _tpe(seed: int, space: Space, records: Records) -> Tuner:
    tuner = _load("tpe_tuner").TpeTuner("minimize", seed, {"n_startup_jobs": STARTUP, "constant_liar_type": None})
    tuner.update_search_space(space)
    tuner.dedup = _Any()
    tuner.import_data(records)
    return tuner


def _evolution(seed: int, space: Space, records: Records) -> Tuner:
    """Its population is what was told: by itself it knows only what it asked."""
    module = _load("evolution_tuner")
    tuner = module.EvolutionTuner("minimize", population_size=1)
    tuner.update_search_space(space)
    tuner.random_state, tuner.population = np.random.RandomState(seed), []
    if len(records) < STARTUP:
        tuner._random_generate_individual()
        return tuner
    for record in records:
        config = {
            name: {"_index": value, "_value": value} if space[name]["_type"] == "choice" else value
            for name, value in record["parameter"].items()
        }
        tuner.population.append(module.Individual(config, result=-record["value"]))
    return tuner


def _gp(seed: int, space: Space, records: Records) -> Tuner:
    tuner = _load("gp_tuner").GPTuner("minimize", selection_num_warm_up=1000, selection_num_starting_points=0)
    tuner._random_state.seed(seed)
    tuner._gp.n_restarts_optimizer = 2  # of the fit of one length scale; 25 take seconds and find the same
    tuner.update_search_space(space)
    # It says so on stdout when a point comes twice.
    for record in {tuple(r["parameter"].values()): r for r in records}.values():
        tuner.receive_trial_result(0, record["parameter"], record["value"])
    return tuner


def _random(seed: int, space: Space, records: Records) -> Tuner:
    tuner = _load("random_tuner").RandomTuner(seed)
    tuner.update_search_space(space)
    return tuner


def _gridsearch(seed: int, space: Space, records: Records) -> Tuner:
    tuner = _load("gridsearch_tuner").GridSearchTuner()
    tuner.update_search_space(space)
    return tuner


TUNERS: Mapping[str, Callable[[int, Space, Records], Tuner]] = {
    "tpe": _tpe,
    "evolution": _evolution,
    "gp": _gp,
    "random": _random,
    "gridsearch": _gridsearch,
}
"""By name: a tuner that has learnt the records."""


class _Any:
    """In the place of what moves a tuner to another point when it asks one again: the loop answers those for free."""

    def __call__(self, parameters: Any) -> Any:
        return parameters

    def add_history(self, parameters: Any) -> None:
        pass


def _load(module: str) -> Any:
    """A module of nni's tuners, kept from writing to stdout.

    Raises:
        SpecError: nni is not installed.
    """
    try:
        import nni
    except ImportError as error:
        raise SpecError("proposer nni: the package nni is not installed; pip install 'automc[nni]'") from error
    nni.silence_stdout()
    logging.getLogger("nni").setLevel(logging.WARNING)
    return import_module(f"nni.algorithms.hpo.{module}")
