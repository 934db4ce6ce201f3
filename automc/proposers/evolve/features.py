"""What a predictor sees of a policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from automc.core.analytic import RATIOS
from automc.core.batch import BatchCosts
from automc.core.decoded import Array
from automc.core.sensitivity import MEASURES, Sensitivity
from automc.core.space import Choice, Decision, SearchSpace

_GRID = 65


@dataclass(frozen=True)
class Described:
    """n policies.

    Attributes:
        plain: shape (n, features). damages: what every probed decision does alone, shape (n, sites); no columns without
            a sensitivity table. costs: of analytic.COSTS and the ratios, each of shape (n,).
    """

    plain: Array
    damages: Array
    costs: dict[str, Array]

    @property
    def damage(self) -> Array:
        """In total, shape (n,)."""
        total: Array = self.damages.sum(axis=1)
        return total

    def __getitem__(self, rows: NDArray[np.int64]) -> Described:
        return Described(self.plain[rows], self.damages[rows], {k: v[rows] for k, v in self.costs.items()})


class Features:
    """Describes policies by

    - their point of the unit cube, where a choice without order has a column an option;
    - of every layer the logarithms of the share of MACs that is kept, and of the bits of weights and inputs;
    - the logarithms of the costs of the whole network;
    - where there is a sensitivity table, the logarithm of the damage by kind of decision, and of the total.
    """

    def __init__(self, space: SearchSpace, costs: BatchCosts) -> None:
        self.costs = costs
        domains = [decision.domain for decision in space.decisions]
        self._words = [i for i, d in enumerate(domains) if isinstance(d, Choice) and not d.ordered]
        self._options = [int(domains[i].size) for i in self._words]
        self._numeric = [i for i in range(len(domains)) if i not in set(self._words)]
        self.damages = Damages(space)

    def of(self, cubes: Array) -> Described:
        """Args: cubes: shape (n, decisions)."""
        kept = self.costs.kept(cubes)
        costs = self.costs.total(kept)
        damages = self.damages.of(cubes)
        shares = np.maximum(kept.share * kept.weights, 1e-3)
        layers = [np.log(part) for part in (shares, kept.weight_bits, kept.activation_bits)]
        totals = [np.log(np.maximum(costs[name], 1e-6)) for name in RATIOS.values()]
        harms = [np.log1p(part.sum(axis=1) / self.damages.unit) for part in (damages, *self.damages.by_kind(damages))]
        parts = [cubes[:, self._numeric], *self._one_hot(cubes), *layers, np.column_stack([*totals, *harms])]
        return Described(np.hstack(parts), damages, costs)

    def _one_hot(self, cubes: Array) -> list[Array]:
        levels = self.costs.numbers.levels(cubes)
        return [
            np.asarray(levels[:, i, None] == np.arange(count), dtype=np.float64)
            for i, count in zip(self._words, self._options, strict=True)
        ]


class Damages:
    """The damages of the sensitivity table, looked up for many policies.

    Attributes:
        sites: places of the probed decisions in the space. unit: a middling damage, above 0.
    """

    def __init__(self, space: SearchSpace) -> None:
        table = space.layers.sensitivity
        measure = next((m for m in MEASURES if m in table.measures), "")
        probed = {probe.site for probe in table.probes} if measure else set()
        self.sites = [i for i, d in enumerate(space.decisions) if d.site in probed]
        decisions = [space.decisions[i] for i in self.sites]
        self._columns = np.array([_column(d, table, measure) for d in decisions]).reshape(len(decisions), _GRID)
        finite = self._columns[np.isfinite(self._columns)]
        # What broke the network is worse than all that did not, by a factor that keeps sums readable.
        self._columns = np.where(np.isfinite(self._columns), self._columns, 2 * finite.max(initial=1.0))
        positive = self._columns[self._columns > 0]
        self.unit = float(np.median(positive)) if len(positive) else 1.0
        kinds = [space.decisions[i].site[::2] for i in self.sites]
        self._kinds = [np.array([k == kind for k in kinds]) for kind in dict.fromkeys(kinds)]

    def of(self, cubes: Array) -> Array:
        """Shape (n, decisions) to (n, sites)."""
        place = cubes[:, self.sites] * (_GRID - 1)
        low = np.minimum(place.astype(np.int64), _GRID - 2)
        rows = np.arange(len(self.sites))
        share = place - low
        found: Array = (1 - share) * self._columns[rows, low] + share * self._columns[rows, low + 1]
        return found

    def by_kind(self, damages: Array) -> Sequence[Array]:
        """The columns of one operator's setting after another's."""
        return [damages[:, kind] for kind in self._kinds]


def _column(decision: Decision, table: Sensitivity, measure: str) -> list[float]:
    """Along the unit interval."""
    values = [decision.domain.decode(u) for u in np.linspace(0.0, 1.0, _GRID)]
    return [max(table.damage(decision.site, value, measure), 0.0) for value in values]
