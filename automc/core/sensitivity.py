"""What single decisions do to a network: the table that allocation, agents and predictors start from."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from automc.core.policy import Site, Value

MEASURES: Mapping[str, str] = {
    "loss": "divergence of the network's answers from the original's, the task's teacher loss, in its unit",
    "error": "squared error of what the changed layers compute, over the square of what the original computes",
    "trace": "mean Hessian trace of that loss times the squared change of the weights (HAWQ-V2, Dong et al. 2020)",
}
"""How damage is measured. All are 0 where nothing changes, and larger where more is lost."""


class Probe(NamedTuple):
    """What one value at one site did, with the rest of the network untouched; ``damage`` by measure, infinite where the
    network could not be built or answered with NaN.
    """

    site: Site
    value: Value
    damage: Mapping[str, float]


@dataclass(frozen=True)
class Sensitivity:
    """Damage of single decisions, by site, value and measure."""

    probes: tuple[Probe, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.probes)

    @property
    def measures(self) -> tuple[str, ...]:
        """Those it has, in the order of MEASURES."""
        return tuple(name for name in MEASURES if self.probes and name in self.probes[0].damage)

    def damage(self, site: Site, value: Value, measure: str = "loss") -> float:
        """The damage of this value at this site alone; 0 at a site that was not probed.

        Between two values that were probed it is on the straight line between them, beyond them as at the nearest.
        """
        known = self._by_site.get(site)
        if known is None:
            return 0.0
        values, damages = known[0], known[1].get(measure)
        if damages is None:
            return 0.0
        number = float(value)
        place = bisect.bisect_left(values, number)
        if place < len(values) and values[place] == number:
            return damages[place]
        if place in (0, len(values)):
            return damages[min(place, len(values) - 1)]
        low, high = values[place - 1], values[place]
        share = (number - low) / (high - low)
        ends = damages[place - 1], damages[place]
        return math.inf if math.inf in ends else ends[0] + share * (ends[1] - ends[0])

    @cached_property
    def _by_site(self) -> dict[Site, tuple[list[float], dict[str, list[float]]]]:
        grouped: dict[Site, list[Probe]] = {}
        for probe in self.probes:
            grouped.setdefault(probe.site, []).append(probe)
        found = {}
        for site, probes in grouped.items():
            probes.sort(key=lambda probe: float(probe.value))
            damages = {name: [probe.damage[name] for probe in probes] for name in probes[0].damage}
            found[site] = ([float(probe.value) for probe in probes], damages)
        return found

    def to_data(self) -> list[Any]:
        """Plain lists, as JSON can carry them: infinity is null."""
        finite = [{m: d if math.isfinite(d) else None for m, d in probe.damage.items()} for probe in self.probes]
        return [[*probe.site, probe.value, damage] for probe, damage in zip(self.probes, finite, strict=True)]

    @classmethod
    def from_data(cls, data: Sequence[Any]) -> Sensitivity:
        """The table that ``to_data`` wrote."""
        return cls(
            tuple(
                Probe(Site(*row[:3]), row[3], {m: math.inf if d is None else float(d) for m, d in row[4].items()})
                for row in data
            )
        )
