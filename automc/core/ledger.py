"""The costs of a policy that is being written, one decision after another."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from automc.core.analytic import COSTS, Analytic
from automc.core.policy import Site, Value
from automc.core.space import SearchSpace


class Ledger:
    """Costs of a policy of a space; after a change only the layers it touches are counted anew.

    A decision that was not written yet counts as neutral: it leaves the network as it is.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.analytic = Analytic(space.layers)
        self._touched = {d.site: self.analytic.touched(d.site) for d in space.decisions}
        self._settings: dict[str, dict[str, dict[str, Value]]] = {}
        for site, value in space.fixed.items():
            self._write(site, value)
        self._places = {layer.name: place for place, layer in enumerate(space.layers.layers)}
        self._rows = np.array([self.analytic.layer(name, self._settings) for name in self._places], dtype=np.float64)

    def put(self, values: Mapping[Site, Value]) -> None:
        """Write these values down; those of other sites stay."""
        changed = [site for site, value in values.items() if self._write(site, value)]
        for name in {name: None for site in changed for name in self._touched.get(site, ())}:
            self._rows[self._places[name]] = self.analytic.layer(name, self._settings)

    def costs(self) -> dict[str, float]:
        """The costs of analytic.COSTS and their ratios to the original's."""
        return self.analytic.with_ratios(dict(zip(COSTS, self._rows.sum(axis=0).tolist(), strict=True)))

    def touches(self, site: Site) -> bool:
        """Whether any cost can depend on this decision."""
        return bool(self._touched.get(site))

    def _write(self, site: Site, value: Value) -> bool:
        """Whether the value is another than before."""
        settings = self._settings.setdefault(site.operator, {}).setdefault(site.layer, {})
        changed = settings.get(site.setting) != value
        settings[site.setting] = value
        return changed
