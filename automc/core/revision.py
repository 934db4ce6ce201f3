"""How the revision of a study that is in force reads the trials of those before it.

A trial was measured under the space, the objectives and the constraints of its day. What of it still holds is decided
here and nowhere else: the search, the front and all reports see trials through ``Reading``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from automc.core.order import SITE, Order
from automc.core.policy import Policy, Site, Value
from automc.core.space import Choice, Domain, OperatorInfo, SearchSpace
from automc.core.study import StudySpec
from automc.core.trial import EXCLUDED, Trial, TrialState


class Reading:
    """The trials of all revisions as the last one reads them.

    A trial of an earlier revision with the same space, objectives and constraints is read as it is. Otherwise its
    policy becomes the one of this space that makes the same network, its memo is dropped, and it is excluded where

    - this space has no such policy (``outside this space``);
    - it lacks a metric of an objective or constraint (``without METRIC``);
    - it ended early as hopeless, which other objectives, constraints or rivals might have judged otherwise
      (``ended early``).

    An excluded trial is read as FAILED with the reason EXCLUDED; its message has the rule and, after a colon, the case.

    Args:
        specs: every revision, oldest first. space: makes that of the last one. trials: of the study, any state.
    """

    def __init__(
        self,
        specs: Sequence[StudySpec],
        space: Callable[[], SearchSpace],
        trials: Iterable[Trial],
        operators: Mapping[str, OperatorInfo],
    ) -> None:
        self._specs, self._make, self._operators = tuple(specs), space, operators
        self._spec, self._trials = self._specs[-1], trials

    @cached_property
    def changeless(self) -> bool:
        """Whether every trial is read as it is."""
        return all(_same_space(spec, self._spec) and _same_aims(spec, self._spec) for spec in self._specs)

    @cached_property
    def _space(self) -> SearchSpace:
        return self._make()

    @cached_property
    def _whole(self) -> bool:
        """Whether no measured trial is excluded, so that who was dominated still is."""
        complete = (trial for trial in self._trials if trial.state is TrialState.COMPLETE)
        return all(self(trial).reason != EXCLUDED for trial in complete)

    def __call__(self, trial: Trial) -> Trial:
        """The trial as the revision in force reads it."""
        if self.changeless:
            return trial
        spec = self._of(trial.number)
        same_space, same_aims = _same_space(spec, self._spec), _same_aims(spec, self._spec)
        if same_space and same_aims:
            return trial
        policy: Policy | str = trial.policy
        if not same_space:
            trains = spec.rungs[trial.rung].steps > 0
            policy = Meaning(trial.policy, spec.order, trains, self._operators).within(self._space)
        if isinstance(policy, str):
            return _excluded(trial, f"outside this space: {policy}")
        if trial.hopeless and not (same_aims and self._whole):
            return _excluded(trial, f"ended early: as {trial.reason}, which this revision may judge otherwise")
        found = trial.measurement
        if trial.state is TrialState.COMPLETE and found is not None:
            found = replace(found, metrics={"seconds": found.seconds, **found.metrics})
            lacks = [name for name in aims(self._spec) if math.isnan(found.metrics.get(name, math.nan))]
            if lacks:
                return _excluded(trial, f"without {lacks[0]}: it was not measured then")
        return replace(trial, policy=policy, memo="", measurement=found)

    def _of(self, number: int) -> StudySpec:
        """The revision that a trial belongs to."""
        return next((spec for spec in reversed(self._specs) if spec.first_trial <= number), self._specs[0])


def aims(spec: StudySpec) -> list[str]:
    """The metrics that a study needs of every trial."""
    return list(dict.fromkeys([*(o.metric for o in spec.objectives), *(c.metric for c in spec.constraints)]))


@dataclass(frozen=True)
class Meaning:
    """What a policy does to a network, whatever the space it was made for.

    Where the settings by which an operator acts (those a space has by default: ratios and bits) are all neutral, the
    operator does nothing, and its other settings mean nothing. Without training, settings that need it mean nothing.

    Attributes:
        order: of its space's operators. trains: whether its rung does.
    """

    policy: Policy
    order: Order
    trains: bool
    operators: Mapping[str, OperatorInfo]

    def within(self, space: SearchSpace) -> Policy | str:
        """The policy of a space of the same network that means this, or why there is none."""
        domains = {d.site: d.domain for d in space.decisions} | {s: Choice((v,)) for s, v in space.fixed.items()}
        for site, value in self.policy.items():
            gone = site not in domains and site != SITE
            if gone and value != self._neutral(site) and not self._idle(site):
                return f"{site} = {value!r} is not decided there"
        values: dict[Site, Value] = {}
        for site, domain in domains.items():
            if site == SITE:
                continue
            meant = self.policy.get(site, self._neutral(site))
            if not domain.holds(meant):
                if not self._idle(site):
                    return f"{site} = {meant!r} is not in {domain}"
                meant = domain.decode(0.0)
            values[site] = domain.normal(meant)
        order = self._ordered(domains.get(SITE), space.order)
        if order is None:
            return "its operators were applied in another order"
        if SITE in domains:
            values[SITE] = order
        return space.policy(values)

    def _ordered(self, domain: Domain | None, fixed: Order) -> str | None:
        """The order there that does the same, or None."""
        mine = self._matters(str(self.policy.get(SITE, " ".join(self.order))))
        there = [str(value) for value in domain.options] if isinstance(domain, Choice) else [" ".join(fixed)]
        return next((order for order in there if self._matters(order) == mine), None)

    def _matters(self, order: str) -> list[str]:
        """Of an order, the operators that do something; the repair too, which is last where it has no place."""
        acting = {site.operator for site in self.policy if site != SITE and self._acts(site.operator, site.layer)}
        repair = [name for name, info in self.operators.items() if self.trains and _is_repair(info)]
        names = order.split()
        return [name for name in [*names, *(n for n in repair if n not in names)] if name in acting or name in repair]

    def _acts(self, operator: str, layer: str) -> bool:
        strengths = [name for name, s in self.operators[operator].settings.items() if s.suggested is not None]
        sites = [Site(operator, layer, name) for name in strengths]
        return any(self.policy.get(s, self._neutral(s)) != self._neutral(s) and not self._unheard(s) for s in sites)

    def _idle(self, site: Site) -> bool:
        """Whether no value at the site changes the network."""
        if self._unheard(site):
            return True
        strength = self.operators[site.operator].settings[site.setting].suggested is not None
        return not strength and not self._acts(site.operator, site.layer)

    def _unheard(self, site: Site) -> bool:
        return self.operators[site.operator].settings[site.setting].needs_training and not self.trains

    def _neutral(self, site: Site) -> Value:
        return self.operators[site.operator].settings[site.setting].neutral


def _is_repair(info: OperatorInfo) -> bool:
    return all(setting.needs_training for setting in info.settings.values())


def _excluded(trial: Trial, why: str) -> Trial:
    return replace(trial, memo="", state=TrialState.FAILED, measurement=None, reason=EXCLUDED, message=why, twin=None)


def _same_space(one: StudySpec, other: StudySpec) -> bool:
    return (one.rules, one.order, one.orders) == (other.rules, other.order, other.orders)


def _same_aims(one: StudySpec, other: StudySpec) -> bool:
    return one.objectives == other.objectives and set(one.constraints) == set(other.constraints)
