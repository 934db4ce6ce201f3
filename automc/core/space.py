"""The search space: which decisions there are, and the way between the unit cube and a policy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from automc.core.layers import LayerTable
from automc.core.policy import Policy, Site, Value
from automc.errors import OutOfSpace, SpecError


@dataclass(frozen=True)
class Real:
    """Numbers from ``low`` to ``high``, both included; every ``step`` from low where a step is given.

    ``log`` spreads the unit interval evenly over the logarithm (low must then be above 0).
    """

    low: float
    high: float
    step: float | None = None
    log: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise SpecError(f"a range needs finite low <= high, not low {self.low}, high {self.high}")
        if self.log and self.low <= 0:
            raise SpecError(f"a logarithmic range needs low > 0, not {self.low}")
        if self.log and self.step is not None:
            raise SpecError("a range has a step or is logarithmic, not both")
        if self.step is not None and not 0 < self.step <= max(self.high - self.low, 1e-12):
            raise SpecError(
                f"a step must be above 0 and at most high - low = {self.high - self.low:g}, not {self.step}"
            )

    @property
    def size(self) -> float:
        """How many values there are; infinite without a step."""
        if self.low == self.high:
            return 1
        return math.inf if self.step is None else math.floor((self.high - self.low) / self.step + 1e-9) + 1

    def decode(self, u: float) -> Value:
        if self.step is not None:
            # Rounded so that 0.1 + 2 * 0.1 is written 0.3 and fingerprints do not depend on summation order.
            return round(self.low + _bin(u, int(self.size)) * self.step, 10)
        if self.log:
            return min(max(self.low * math.pow(self.high / self.low, u), self.low), self.high)
        return min(max(self.low + u * (self.high - self.low), self.low), self.high)

    def encode(self, value: Value) -> float:
        number = float(value)
        if self.low == self.high:
            return 0.5
        if self.step is not None:
            return (round((number - self.low) / self.step) + 0.5) / self.size
        if self.log:
            return math.log(number / self.low) / math.log(self.high / self.low)
        return (number - self.low) / (self.high - self.low)

    def holds(self, value: Value) -> bool:
        if isinstance(value, (bool, str)) or not self.low - 1e-9 <= value <= self.high + 1e-9:
            return False
        if self.step is None:
            return True
        position = (value - self.low) / self.step
        return abs(position - round(position)) < 1e-6

    def normal(self, value: Value) -> Value:
        return round(float(value), 10) if self.step is not None else float(value)

    def values(self, levels: int) -> list[Value]:
        count = levels if math.isinf(self.size) else int(self.size)
        return [self.decode((i + 0.5) / count if self.step else i / max(count - 1, 1)) for i in range(count)]

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}" + (f" step {self.step:g}" if self.step else " log" if self.log else "")


@dataclass(frozen=True)
class Choice:
    """One of the listed values. Numbers are kept in ascending order, so that neighbours in the unit cube are alike."""

    options: tuple[Value, ...]

    def __post_init__(self) -> None:
        if not self.options:
            raise SpecError("a choice needs at least one value")
        if len(set(self.options)) < len(self.options):
            raise SpecError(f"a choice lists each value once, not {list(self.options)}")
        if self.ordered:
            object.__setattr__(self, "options", tuple(sorted(self.options)))

    @cached_property
    def _known(self) -> frozenset[tuple[bool, Value]]:
        """True is no 1."""
        return frozenset((isinstance(option, bool), option) for option in self.options)

    @property
    def ordered(self) -> bool:
        """True when all values are numbers."""
        return all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in self.options)

    @property
    def size(self) -> float:
        return len(self.options)

    def decode(self, u: float) -> Value:
        return self.options[_bin(u, len(self.options))]

    def encode(self, value: Value) -> float:
        return (self.options.index(value) + 0.5) / len(self.options)

    def holds(self, value: Value) -> bool:
        return (isinstance(value, bool), value) in self._known

    def normal(self, value: Value) -> Value:
        return self.options[self.options.index(value)]

    def values(self, levels: int) -> list[Value]:
        return list(self.options)

    def __str__(self) -> str:
        return "{" + ", ".join(written(v) for v in self.options) + "}"


Domain = Real | Choice


def written(value: Value) -> str:
    """A value as a space is written: true and false as YAML has them."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _bin(u: float, count: int) -> int:
    return min(max(int(u * count), 0), count - 1)


@dataclass(frozen=True)
class Setting:
    """A setting that an operator offers to the search.

    Attributes:
        legal: every value the operator takes.
        neutral: the value that leaves the network as it is.
        doc: one line, with unit.
        needs_training: it has no effect on a rung without training.
        suggested: the domain a space gets when it does not say.
        spread: of settings that are true or false: a uniform policy has it true at a share of the sites, evenly
            spread, because true everywhere would leave little of the network.
    """

    legal: Domain
    neutral: Value
    doc: str
    needs_training: bool = False
    suggested: Domain | None = None
    spread: bool = False


@dataclass(frozen=True)
class OperatorInfo:
    """What the search may know of an operator.

    Attributes:
        scope: ``layer``, ``group``, ``block`` or ``network``: what a site of this operator names.
        kinds: layer kinds it can change; empty for all.
        settings: by name.
        implementation: ``module:attribute``, imported when it is used.
        before: operators that must come later in every order.
    """

    name: str
    scope: str
    kinds: tuple[str, ...]
    settings: Mapping[str, Setting]
    implementation: str
    doc: str
    before: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decision:
    """One coordinate of the search; the rest as its setting says (Setting). The order of operators has no neutral."""

    site: Site
    domain: Domain
    needs_training: bool = False
    spread: bool = False
    neutral: Value | None = None


@dataclass(frozen=True)
class SearchSpace:
    """All decisions, the settings held fixed, the order of the operators and the layer table.

    A policy of this space has exactly one value for every decision and every fixed site.
    """

    decisions: tuple[Decision, ...]
    order: tuple[str, ...]
    layers: LayerTable
    fixed: Mapping[Site, Value] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.decisions)

    @property
    def size(self) -> float:
        """Number of policies; infinite when a domain is continuous."""
        return math.prod(decision.domain.size for decision in self.decisions)

    def policy(self, values: Mapping[Site, Value]) -> Policy:
        """The policy with these values at the decisions, and the fixed values beside them.

        Raises:
            OutOfSpace: a decision has no value, a value is outside its domain, or a site is no decision.
        """
        sites = self._domains
        strange = [site for site in values if site not in sites and self.fixed.get(site) != values[site]]
        if strange:
            raise OutOfSpace(f"policy: {strange[0]} is no decision of this space")
        chosen = dict(self.fixed)
        for site, domain in sites.items():
            if site not in values:
                raise OutOfSpace(f"policy: {site} has no value; allowed: {domain}")
            if not domain.holds(values[site]):
                raise OutOfSpace(f"policy: {site} = {values[site]!r} is outside {domain}")
            chosen[site] = domain.normal(values[site])
        return Policy(chosen)

    def decode(self, cube: Sequence[float]) -> Policy:
        """The policy at a point of the unit cube.

        Args:
            cube: shape (len(self),), each in [0, 1], in the order of ``decisions``.

        Raises:
            OutOfSpace: wrong length or a coordinate outside [0, 1] (NaN included).
        """
        if len(cube) != len(self.decisions) or not all(0 <= u <= 1 for u in cube):
            raise OutOfSpace(f"a point of this space has {len(self)} coordinates in [0, 1], not {list(cube)!r}")
        return self.policy({d.site: d.domain.decode(float(u)) for d, u in zip(self.decisions, cube, strict=True)})

    def encode(self, policy: Policy) -> list[float]:
        """A point of the unit cube that decodes to this policy (up to rounding of continuous values)."""
        whole = self.policy(policy)
        return [d.domain.encode(whole[d.site]) for d in self.decisions]

    def effective(self, policy: Policy, trains: bool) -> Policy:
        """The part of the policy that changes the measurement: without training, distillation does nothing."""
        if trains or not self._idle:
            return policy
        return policy.without(self._idle)

    @cached_property
    def _domains(self) -> dict[Site, Domain]:
        return {decision.site: decision.domain for decision in self.decisions}

    @cached_property
    def _idle(self) -> frozenset[Site]:
        """What has no effect without training."""
        return frozenset(decision.site for decision in self.decisions if decision.needs_training)

    def to_data(self) -> dict[str, Any]:
        """Plain data for people and for comparing two spaces; not read back."""
        return {
            "order": list(self.order),
            "decisions": [[*d.site, str(d.domain)] for d in self.decisions],
            "fixed": [[*site, value] for site, value in sorted(self.fixed.items())],
        }
