"""Several proposers on one study: who improves the front gets more of the trials."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from automc.core.metrics import Constraint, Objective, feasible, losses
from automc.core.pareto import hypervolume, undominated
from automc.core.policy import Policy
from automc.core.ports import Proposal, Proposer
from automc.core.rules import nearest
from automc.core.signature import MOST, Within
from automc.core.space import SearchSpace
from automc.core.trial import Trial, TrialState
from automc.errors import SpecError
from automc.proposers.members import PROPOSERS, member
from automc.proposers.scale import compared

MEMBERS = ("allocate", "evolve", "ddpg")
FORGET = 0.95
"""A gain counts so much less with every later trial: who was right at the start need not be right now."""

_REFERENCE = 1.05
"""Where the box ends, in units of the told range: the ends of a front count a little too."""

_FIXED_WORK = 0.25
"""Of an evaluation of the original, the work that does not shrink with the network."""


class Names:
    """The rule for names of proposers: a list of them, or one text with spaces or commas between them."""

    def wrong(self, value: Any) -> str:
        names = _listed(value) if isinstance(value, (str, list, tuple)) else []
        others = [name for name in PROPOSERS if name != "portfolio"]
        for name in names:
            if name not in others:
                known = f"(allowed: {', '.join(others)})"
                return f"must name other proposers, not {name!r}{nearest(str(name), others)} {known}"
        return "" if names else f"must name proposers, as in [allocate, evolve] or 'allocate evolve', not {value!r}"


class PortfolioProposer:
    """The default: allocation over measured sensitivities begins, then a bandit divides the trials among the members.

    All members are told all trials, whoever proposed them, so a good policy of one is a parent or a lesson for the
    others. A member's gains are the hypervolumes that its trials added to the front (of the first rung, costs by their
    logarithm, in units of the told range of each objective; their square roots, for the first few are larger by orders
    of magnitude than those that refine a front), per unit of work; work is what the trial's network has to compute, not
    measured seconds, so that a seed gives the same search on any machine. The next member is drawn by Thompson sampling
    (Thompson 1933) from discounted gains (Kocsis & Szepesvari 2006). A proposal that was measured already is passed
    over for another member's.

    Args:
        members: names of proposers, as a list or one text; those that cannot work with the study are left out.
        first: so many first trials are the first member's.

    Raises:
        SpecError: no member can work with this study.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        members: Annotated[str | Sequence[str], Names()] = MEMBERS,
        first: Annotated[int, Within(0, MOST)] = 12,
    ) -> None:
        self._members: dict[str, Proposer] = {}
        refusals: dict[str, str] = {}
        for name in _listed(members):
            try:
                self._members[name] = member(name, space, objectives, constraints, seed)
            except SpecError as error:
                refusals[name] = str(error).removeprefix(f"proposer {name}: ")
        if not self._members:
            raise SpecError(f"proposer portfolio: no member can work with this study: {_said(refusals)}")
        out = f"; left out: {_said(refusals)}" if refusals else ""
        own = [remark for one in self._members.values() for remark in getattr(one, "remarks", ())]
        self.remarks = (f"portfolio: members are {', '.join(self._members)}{out}", *dict.fromkeys(own))
        self.measures = tuple(dict.fromkeys(m for one in self._members.values() for m in getattr(one, "measures", ())))
        self._seed, self._first = seed, first
        self._gains = {name: _Record() for name in self._members}
        self._ledger = _Front(tuple(objectives), tuple(constraints))
        self._known: set[Policy] = set()

    def ask(self, numbers: range) -> list[Proposal]:
        return [self._ask(number) for number in numbers]

    def tell(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            if trial.number < 0:
                continue  # of another study: nothing was measured or gained here
            self._known.add(trial.policy)
            by, _ = _read(trial.memo)
            if trial.rung > 0 or trial.measurement is None or not trial.state.finished:
                continue
            gain = self._ledger.gain(trial)
            for record in self._gains.values():
                record.age()
            if by in self._gains:
                work = _FIXED_WORK + (1 - _FIXED_WORK) * trial.measurement.metrics.get("macs_ratio", 1.0)
                self._gains[by].add(math.sqrt(gain) / work)
        for name, one in self._members.items():
            one.tell([_as_told_to(name, trial) for trial in trials])

    def _ask(self, number: int) -> Proposal:
        found: Proposal | None = None
        for name in self._turns(number):
            proposal = self._members[name].ask(range(number, number + 1))[0]
            own = proposal._replace(memo=_written(name, proposal.memo))
            if own.policy not in self._known:
                return own
            found = found or own
        assert found is not None  # there is a member
        return found

    def _turns(self, number: int) -> list[str]:
        """The members, the one whose turn it is first."""
        names = list(self._members)
        if number < self._first:
            return names
        draw = np.random.default_rng([self._seed, number]).standard_normal(len(names))
        spread = _spread(list(self._gains.values()))
        drawn = {
            name: record.mean + spread * float(z) / math.sqrt(record.weight + 1)
            for (name, record), z in zip(self._gains.items(), draw, strict=True)
        }
        return sorted(names, key=lambda name: -drawn[name])


@dataclass
class _Record:
    """A member's discounted gains: their weight, sum and sum of squares."""

    weight: float = 0.0
    total: float = 0.0
    squares: float = 0.0

    def age(self) -> None:
        self.weight, self.total, self.squares = (FORGET * x for x in (self.weight, self.total, self.squares))

    def add(self, gain: float) -> None:
        self.weight, self.total, self.squares = self.weight + 1, self.total + gain, self.squares + gain * gain

    @property
    def mean(self) -> float:
        """Shrunk as if there had been one more trial without a gain."""
        return self.total / (self.weight + 1)


def _spread(records: Sequence[_Record]) -> float:
    """Standard deviation of all gains; 1 while nobody has gained, so that the draw is an even one."""
    weight, total, squares = (
        sum(getattr(record, name) for record in records) for name in ("weight", "total", "squares")
    )
    if weight == 0 or squares == 0:
        return 1.0
    return math.sqrt(max(squares / weight - (total / weight) ** 2, 1e-12 * squares / weight))


class _Front:
    """The front so far, and what a trial adds to it."""

    def __init__(self, objectives: tuple[Objective, ...], constraints: tuple[Constraint, ...]) -> None:
        self._objectives, self._constraints = objectives, constraints
        self._points: NDArray[np.float64] = np.empty((0, len(objectives)))
        self._low = np.full(len(objectives), np.inf)
        self._high = np.full(len(objectives), -np.inf)

    def gain(self, trial: Trial) -> float:
        """The share of the told range's box that this trial newly dominates."""
        metrics = trial.measurement.metrics if trial.measurement else {}
        point = compared(self._objectives, np.array(losses(self._objectives, metrics)))
        if not np.isfinite(point).all():
            return 0.0
        self._low, self._high = np.minimum(self._low, point), np.maximum(self._high, point)
        if trial.state is not TrialState.COMPLETE or not feasible(self._constraints, metrics):
            return 0.0
        if (self._points <= point).all(axis=1).any():
            return 0.0
        span = np.where(self._high > self._low, self._high - self._low, 1.0)
        bound = np.full(len(span), _REFERENCE)
        own, others = (point - self._low) / span, (self._points - self._low) / span
        # Of the point's own box, what the others leave: they count in it as far as they reach into it.
        gained = float(np.prod(bound - own)) - hypervolume(np.maximum(others, own), bound)
        joined = np.vstack([self._points, point])
        self._points = joined[undominated(joined)]
        return max(gained, 0.0)


def _said(refusals: Mapping[str, str]) -> str:
    return "; ".join(f"{name} ({reason})" for name, reason in refusals.items())


def _listed(names: str | Sequence[str]) -> list[str]:
    """Each once, in order."""
    return list(dict.fromkeys(names.replace(",", " ").split() if isinstance(names, str) else names))


def _as_told_to(name: str, trial: Trial) -> Trial:
    """The trial with the memo that this member gave it; none for those of others."""
    by, memo = _read(trial.memo)
    return replace(trial, memo=memo if by == name else "")


def _written(name: str, memo: str) -> str:
    return json.dumps({"by": name, "memo": memo})


def _read(memo: str) -> tuple[str, str]:
    """Who proposed it, and that proposer's own memo."""
    try:
        data = json.loads(memo or "{}")
    except ValueError:
        return "", ""
    if not isinstance(data, dict):
        return "", ""
    return str(data.get("by", "")), str(data.get("memo", ""))
