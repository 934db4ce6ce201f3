"""What a study says about its evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from automc.core.hopeless import Contest, Rival
from automc.core.metrics import Constraint, Objective
from automc.core.rules import Rule
from automc.core.study import Rung
from automc.evaluation.bookmarks import BookmarkSettings
from automc.evaluation.prefix import Caching
from automc.evaluation.probing import ProbeSettings
from automc.evaluation.restoring import Restoring
from automc.evaluation.timing import LatencySettings
from automc.measure.energy import Energy, Profile, load_profile


@dataclass(frozen=True)
class Plan:
    """What a study says about its evaluations: operator order, rungs, seed, and the metrics it asks for."""

    order: tuple[str, ...]
    rungs: tuple[Rung, ...]
    seed: int
    rules: tuple[Rule, ...] = field(default=(), kw_only=True)
    objectives: tuple[Objective, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    doubt: float = 0.0
    caching: Caching = field(default_factory=Caching)
    clock: LatencySettings = field(default_factory=LatencySettings)
    restoring: Restoring = field(default_factory=Restoring)
    profile: Profile = field(default_factory=lambda: load_profile(Energy().device_profile))
    probing: ProbeSettings = field(default_factory=ProbeSettings)
    bookmarks: BookmarkSettings = field(default_factory=BookmarkSettings)

    @property
    def wanted(self) -> frozenset[str]:
        return frozenset(o.metric for o in self.objectives) | {c.metric for c in self.constraints}

    def contest(self, rung: int, costs: Mapping[str, float], rivals: Sequence[Rival], total: int) -> Contest:
        """What a policy with these costs must reach on ``total`` inputs. Only on the last rung is a breach final."""
        final = self.constraints if rung == len(self.rungs) - 1 else ()
        return Contest(self.objectives, final, costs, tuple(rivals), self.doubt, total)
