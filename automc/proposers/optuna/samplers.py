"""Samplers that model what was told (TPE, GP), and one that fills the space whatever is told (QMC)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, QMCSampler, TPESampler
from optuna.trial import FrozenTrial

from automc.core.metrics import Constraint, Objective
from automc.core.signature import MOST, OneOf, Within
from automc.core.space import SearchSpace
from automc.errors import SpecError
from automc.proposers.optuna.base import Anchors, OptunaProposer

Memory = Annotated[int, Within(20, 100_000)]


class TPEProposer(OptunaProposer):
    """Tree-structured Parzen estimator (Bergstra et al. 2011; Falkner et al. 2018 multivariate; Ozaki et al. 2022 for
    several objectives; constraints as Watanabe & Hutter 2023, feasible before infeasible).

    Args:
        startup: told rows before the estimator is used; random until then.
        multivariate: model all decisions jointly, which keeps what goes together together; else each on its own.
        group: with ``multivariate``, model the decisions of a layer jointly and the layers independently. (Optuna's own
            groups are of decisions that occur in the same trials: in our spaces that is all of them.)
    """

    name = "tpe"

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        anchors: Anchors = 8,
        startup: Annotated[int, Within(1, MOST)] = 16,
        memory: Memory = 250,
        multivariate: bool = True,
        group: bool = False,
    ) -> None:
        if group and not multivariate:
            raise SpecError("proposer.settings.group: tpe: group = true needs multivariate = true")
        self._startup, self._multivariate = startup, multivariate
        self._groups = _by_layer(space) if group else []
        super().__init__(space, objectives, constraints, seed, anchors, memory)

    def _sampler(self, seed: int, number: int) -> BaseSampler:
        settings = {"n_startup_trials": self._startup, "constant_liar": False, "multivariate": self._multivariate}
        return _Grouped(self._groups, seed=seed, **settings)


class _Grouped(TPESampler):
    """TPE whose decisions are modelled jointly within given groups."""

    def __init__(self, groups: Sequence[Sequence[str]], **settings: Any) -> None:
        super().__init__(**settings)
        self._parts = groups

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if not self._parts:
            return super().sample_relative(study, trial, search_space)
        found: dict[str, Any] = {}
        for part in self._parts:
            found |= super().sample_relative(study, trial, {n: search_space[n] for n in part if n in search_space})
        return found


def _by_layer(space: SearchSpace) -> list[list[str]]:
    found: dict[str, list[str]] = {}
    for decision in space.decisions:
        found.setdefault(decision.site.layer, []).append(str(decision.site))
    return list(found.values())


class GPProposer(OptunaProposer):
    """Gaussian processes, one an objective and a constraint, and the expected improvement (of the hypervolume, where
    there are several objectives; Ament et al. 2023, LogEI) times the probability that the constraints hold.

    Made for studies of at most some hundred trials: one proposal takes seconds, and more with every row it is shown.

    Args:
        startup: told rows before the processes are used; random until then.
        memory: told rows that are shown: the best half of all, and the last.
        searches: starts of the search for the best point, at least 2. Each costs as much; Optuna's own number is 10.
    """

    name = "gp"

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        anchors: Anchors = 8,
        startup: Annotated[int, Within(2, MOST)] = 16,
        memory: Memory = 100,
        searches: Annotated[int, Within(2, 1000)] = 4,
    ) -> None:
        self._startup, self._searches = startup, searches
        super().__init__(space, objectives, constraints, seed, anchors, memory)

    def _sampler(self, seed: int, number: int) -> BaseSampler:
        sampler = GPSampler(seed=seed, n_startup_trials=self._startup)
        sampler._n_local_search = self._searches
        return sampler


class QMCProposer(OptunaProposer):
    """Quasi-Monte Carlo: the points of a low-discrepancy sequence, scrambled by the seed (Owen 1998).

    The n-th trial gets the n-th point whatever was asked or told before; where a promotion takes a trial's number, its
    point is left out.

    Args:
        sequence: ``sobol`` (best where trials are a power of 2) or ``halton``.
    """

    name = "qmc"

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        sequence: Annotated[str, OneOf(("sobol", "halton"))] = "sobol",
    ) -> None:
        self._sequence = sequence
        super().__init__(space, objectives, constraints, seed, anchors=0)

    def _shown(self) -> list[int]:
        return []

    def _sampler(self, seed: int, number: int) -> BaseSampler:
        return _Point(number, self._distributions, qmc_type=self._sequence, scramble=True, seed=self._seed % 2**32)


class _Point(QMCSampler):
    """QMC that gives the point with a certain number; Optuna's gives the next that was not asked."""

    def __init__(self, number: int, space: dict[str, BaseDistribution], **settings: Any) -> None:
        super().__init__(**settings)
        self._number, self._space = number, space

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {name: found for name, found in self._space.items() if not found.single()}

    def _find_sample_id(self, study: optuna.Study, search_space: dict[str, BaseDistribution]) -> int:
        return self._number
