"""Optuna samplers as proposers. The Optuna study lives in memory and is rebuilt by telling."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.trial import FrozenTrial, create_trial

from automc.core.metrics import Constraint, Objective, losses
from automc.core.policy import Policy, Value
from automc.core.ports import Proposal
from automc.core.space import Choice, Decision, SearchSpace
from automc.core.trial import Trial, TrialState
from automc.errors import SpecError
from automc.proposers.uniform import UniformProposer

GENERATION = "generation"


class OptunaProposer:
    """What all Optuna samplers share; subclasses build the sampler.

    Objectives go to Optuna as losses (all minimised), constraints through its constraint interface.
    Ordered domains become integers, so that neighbours are neighbours. A fresh sampler is seeded for every
    trial number, and nothing but the told trials is carried from one proposal to the next, so a resumed
    search asks what an uninterrupted one would have asked. Failed trials and those
    that a stopper ended are not shown to the sampler: their numbers do not compare. Those that were found hopeless
    are: their costs are exact and the rest are unbiased estimates, still worse than the rival that beat them.

    Args:
        anchors: how many of a study's first proposals are points of the uniform grid, so that the sampler
            starts from policies that are known to make sense.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        anchors: int = 8,
    ) -> None:
        if anchors < 0:
            raise SpecError(f"proposer: anchors must be at least 0, not {anchors}")
        self._space, self._objectives, self._constraints = space, tuple(objectives), tuple(constraints)
        self._seed, self._anchors = seed, anchors
        self._uniform = UniformProposer(space, objectives, constraints, seed)
        self._distributions = {str(d.site): _distribution(d) for d in space.decisions}
        level = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(directions=["minimize"] * len(self._objectives), sampler=self._sampler(0))
        optuna.logging.set_verbosity(level)

    _anchor_memo = ""

    def _sampler(self, seed: int) -> BaseSampler:
        raise SpecError("OptunaProposer is abstract: use TPEProposer or NSGA2Proposer")

    def ask(self, numbers: range) -> list[Proposal]:
        return [self._ask(number) for number in numbers]

    def _ask(self, number: int) -> Proposal:
        if number < self._anchors:
            return self._uniform.ask(range(number, number + 1))[0]._replace(memo=self._anchor_memo)
        self._study.sampler = self._sampler((self._seed * 1_000_003 + number) % 2**32)
        # The asked trial is only a vehicle: what counts is told later, by whoever measured it.
        trial = self._study.tell(self._study.ask(self._distributions), state=optuna.trial.TrialState.FAIL)
        generation = trial.system_attrs.get(GENERATION_KEY)
        policy = self._space.policy({d.site: _value(d, trial.params[str(d.site)]) for d in self._space.decisions})
        return Proposal(policy, "" if generation is None else json.dumps({GENERATION: generation}))

    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            frozen = self._frozen(trial)
            if frozen is not None:
                self._study.add_trial(frozen)

    def _frozen(self, trial: Trial) -> FrozenTrial | None:
        if (trial.state is not TrialState.COMPLETE and not trial.hopeless) or trial.measurement is None:
            return None
        values = losses(self._objectives, trial.measurement.metrics)
        if not all(math.isfinite(value) for value in values):
            return None
        try:
            params = {str(d.site): _parameter(d, trial.policy) for d in self._space.decisions}
        except (KeyError, ValueError):
            return None  # a trial of a wider or different space has nothing to say here
        # Whoever proposed it, a trial without a generation is of the first: nobody's children, everybody's parents.
        attrs = {GENERATION_KEY: _read(trial.memo).get(GENERATION, 0)}
        excess = {str(c): _signed(c, trial.measurement.metrics) for c in self._constraints}
        return create_trial(
            values=list(values),
            params=params,
            distributions=self._distributions,
            system_attrs=attrs,
            constraints=excess or None,
        )


class TPEProposer(OptunaProposer):
    """Tree-structured Parzen estimator, multivariate (Bergstra et al. 2011; Ozaki et al. 2022 for several objectives).

    Args:
        startup: told trials before the estimator is used; random until then.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        anchors: int = 8,
        startup: int = 16,
    ) -> None:
        if startup < 1:
            raise SpecError(f"proposer tpe: startup must be at least 1, not {startup}")
        self._startup = startup
        super().__init__(space, objectives, constraints, seed, anchors)

    def _sampler(self, seed: int) -> BaseSampler:
        return _quietly(
            lambda: TPESampler(seed=seed, multivariate=True, n_startup_trials=self._startup, constant_liar=False)
        )


class NSGA2Proposer(OptunaProposer):
    """NSGA-II (Deb et al. 2002): evolution by non-dominated rank and crowding distance.

    The anchors belong to the first generation, so children mix the uniform policies layer by layer.

    Args:
        population: trials of a generation, at least 2.
    """

    _anchor_memo = json.dumps({GENERATION: 0})

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        anchors: int = 8,
        population: int = 20,
    ) -> None:
        if population < 2:
            raise SpecError(f"proposer nsga2: population must be at least 2, not {population}")
        self._population = population
        super().__init__(space, objectives, constraints, seed, anchors)

    def _sampler(self, seed: int) -> BaseSampler:
        return _quietly(lambda: _Generations(population_size=self._population, seed=seed))


class _Generations(NSGAIISampler):
    """NSGA-II whose parents are a function of the told trials alone.

    Optuna's own takes into a population whatever of a generation is complete when the next one is first
    asked, which depends on timing and cannot be rebuilt; here it is the first ``population_size`` told.
    """

    def get_population(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        return super().get_population(study, generation)[: self.population_size]

    def get_parent_population(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        """In the order they were told: Optuna orders a fresh selection and a cached one differently."""
        return sorted(super().get_parent_population(study, generation), key=lambda trial: trial.number)


GENERATION_KEY = f"{_Generations.__name__}:{GENERATION}"
"""Where Optuna keeps a trial's generation."""


def _distribution(decision: Decision) -> BaseDistribution:
    domain = decision.domain
    if isinstance(domain, Choice):
        return (
            IntDistribution(0, len(domain.options) - 1) if domain.ordered else CategoricalDistribution(domain.options)
        )
    if domain.step is not None:
        return IntDistribution(0, int(domain.size) - 1)
    return FloatDistribution(domain.low, domain.high, log=domain.log)


def _value(decision: Decision, parameter: Any) -> Value:
    distribution = _distribution(decision)
    if isinstance(distribution, IntDistribution):
        return decision.domain.decode((parameter + 0.5) / decision.domain.size)
    value: Value = parameter
    return value


def _parameter(decision: Decision, policy: Policy) -> Any:
    value = policy[decision.site]
    if not decision.domain.holds(value):
        raise ValueError(value)
    if isinstance(_distribution(decision), IntDistribution):
        return int(decision.domain.encode(value) * decision.domain.size)
    return value


def _signed(constraint: Constraint, metrics: Any) -> float:
    """Negative inside the bound, as Optuna wants it; a large number where the metric is absent."""
    value = metrics.get(constraint.metric, math.nan)
    if math.isnan(value):
        return 1e30
    return float(value - constraint.bound if constraint.sign == "<=" else constraint.bound - value)


def _read(memo: str) -> dict[str, Any]:
    try:
        data = json.loads(memo or "{}")
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _quietly(build: Callable[[], BaseSampler]) -> BaseSampler:
    """Multivariate TPE is marked experimental: a warning for Optuna's developers, not for our users."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return build()
