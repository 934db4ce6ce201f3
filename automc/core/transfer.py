"""What the trials of one study say about another: policies carried from network to network, layer by layer.

A layer of the new network takes the part of the old one's layer of the same name, or else of the layer of its kind that
lies nearest in relative depth: in a network of the same family it does the same work there. What a value means (a share
of the channels, a number of bits) does not depend on the network, so values are carried as they are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from automc.core.layers import LayerTable
from automc.core.metrics import METRICS, Measurement
from automc.core.policy import Policy, Site, Value
from automc.core.probing import probes_of
from automc.core.sensitivity import Probe, Sensitivity
from automc.core.space import Choice, Domain, OperatorInfo, SearchSpace
from automc.core.study import Rung
from automc.core.trial import Trial, TrialState

FAR = 0.05
"""How far a policy may be moved into the new space, as the mean over its settings of the way over the range. Beyond,
what was measured says little of it.
"""


@dataclass(frozen=True)
class Setup:
    """Of a study, what decides how its trials are read. ``baseline``: the original network's metrics."""

    space: SearchSpace
    baseline: Mapping[str, float]
    rungs: tuple[Rung, ...]


@dataclass(frozen=True)
class Carried:
    """Trials as the new study may be told them, numbered from -len to -1, and why others were left out, counted."""

    trials: tuple[Trial, ...]
    excluded: Mapping[str, int]


def carried(
    trials: Sequence[Trial], old: Setup, new: Setup, metrics: Sequence[str], operators: Mapping[str, OperatorInfo]
) -> Carried:
    """The trials of an old study that say something about the space of a new one.

    Task metrics and ratios are kept. Costs (bytes, MACs, milliseconds, ...) are multiplied by what the new original has
    over what the old original has.

    Args:
        trials: of the old study, any. metrics: those that a trial must have.
    """
    way = _Way(old.space, new.space, operators)
    results = [_carried(trial, old, new, metrics, way) for trial in trials]
    found = [result for result in results if isinstance(result, Trial)]
    numbered = (replace(trial, number=i - len(found)) for i, trial in enumerate(found))
    return Carried(tuple(numbered), Counter(reason for reason in results if isinstance(reason, str)))


def _carried(trial: Trial, old: Setup, new: Setup, metrics: Sequence[str], way: _Way) -> Trial | str:
    """The trial as the new study is told it, or why it is not."""
    measured = _rescaled(trial, old.baseline, new.baseline)
    if measured is None:
        return "not measured to the end"
    absent = [name for name in metrics if math.isnan(measured.metrics.get(name, math.nan))]
    if absent:
        return f"without {absent[0]}"
    rung = _rung(old.rungs[trial.rung], new.rungs)
    if rung is None:
        return "trained, as on no rung here" if old.rungs[trial.rung].steps else "not trained, as on every rung here"
    policy = way.policy(trial.policy)
    if isinstance(policy, Site):
        return f"outside this space, first at {policy}"
    return Trial(trial.number, policy, "", TrialState.COMPLETE, rung, measured)


def carried_sensitivity(
    known: Sensitivity, old: LayerTable, new: SearchSpace, operators: Mapping[str, OperatorInfo]
) -> Sensitivity:
    """A guess at the new space's table from another network's; empty where a site has no counterpart."""
    roles = Roles(old, new.layers, (probe.site for probe in known.probes), operators)
    probes: list[Probe] = []
    for site, value, _ in probes_of(new):
        role = roles.of(site)
        if role is None:
            return Sensitivity()
        probes.append(Probe(site, value, {m: known.damage(role, value, m) for m in known.measures}))
    return Sensitivity(tuple(probes))


def same_network(old: LayerTable, new: LayerTable, baselines: Sequence[Mapping[str, float]]) -> bool:
    """Whether two tables are of one network: the same layers, and the same task metrics of the original.

    Args:
        baselines: of the two. Measured times are not compared.
    """
    first, second = ({k: v for k, v in b.items() if k in METRICS and METRICS[k].sampled} for b in baselines)
    bare = [(t.layers, t.groups, t.blocks, t.input_shape) for t in (old, new)]
    return bare[0] == bare[1] and first == second


class Roles:
    """Which site of an old space stands for a site of a new one.

    Args:
        old, new: layer tables. sites: of the old space.
    """

    def __init__(
        self, old: LayerTable, new: LayerTable, sites: Iterable[Site], operators: Mapping[str, OperatorInfo]
    ) -> None:
        self._operators = operators
        self._old, self._new = _places(old), _places(new)
        self._group = {name: group.name for group in old.groups for name in group.producers}
        self._sites = set(sites)
        self._alike: dict[tuple[str, str, str], list[tuple[float, Site]]] = {}
        for site in sorted(self._sites):
            if site.layer in self._old:
                kind, depth = self._old[site.layer]
                self._alike.setdefault((site.operator, site.setting, kind), []).append((depth, site))

    def of(self, site: Site) -> Site | None:
        """The old site, or None: the old policies left untouched what is decided here."""
        if site in self._sites:
            return site
        kind, depth = self._new.get(site.layer, ("", 0.0))
        if self._old.get(site.layer, ("?",))[0] == kind:
            # The same layer is there. Its channels may be decided under another name; otherwise nothing was.
            grouped = site.operator in self._operators and self._operators[site.operator].scope == "group"
            home = site._replace(layer=self._group.get(site.layer, site.layer) if grouped else site.layer)
            return home if home in self._sites else None
        near = self._alike.get((site.operator, site.setting, kind), [])
        return min(near, key=lambda one: (abs(one[0] - depth), one), default=(0.0, None))[1]


class _Way:
    """From policies of an old space to those of a new one."""

    def __init__(self, old: SearchSpace, new: SearchSpace, operators: Mapping[str, OperatorInfo]) -> None:
        self._old, self._new, self._operators = old, new, operators
        before, self._domains = _domains(old), _domains(new)
        roles = Roles(old.layers, new.layers, before, operators)
        self._role = {site: roles.of(site) for site in self._domains}
        # What the old policies decide and the new ones leave: a setting that is not there, or a layer by its own name.
        names, settings = _places(new.layers), {(s.operator, s.setting) for s in self._domains}
        taken = set(self._role.values())
        left = [s for s in before if s.layer in names or (s.operator, s.setting) not in settings]
        self._left = [s for s in left if s not in taken]
        self._spans = {s: _span(d, before.get(self._role[s] or s)) for s, d in self._domains.items()}
        self._spans |= {s: _span(before[s], None) for s in self._left}

    def policy(self, old: Policy) -> Policy | Site:
        """The nearest policy of the new space; where it is too far off, the first site that is not as it was."""
        values: dict[Site, Value] = {}
        apart: dict[Site, float] = {}
        for site, domain in self._domains.items():
            role = self._role[site]
            meant = old[role] if role is not None and role in old else self._untouched(site, self._old)
            value = _nearest(domain, meant)
            if value is None:
                return site
            values[site] = value
            apart[site] = self._apart(site, meant, value)
        for site in self._left:
            apart[site] = self._apart(site, old[site], self._untouched(site, self._new)) if site in old else 0.0
        if sum(apart.values()) <= FAR * len(self._domains):
            return self._new.policy(values)
        return next(site for site, way in apart.items() if way)

    def _untouched(self, site: Site, space: SearchSpace) -> Value:
        """What a policy of a space means at a site that it does not speak of."""
        if site.operator in self._operators:
            return self._operators[site.operator].settings[site.setting].neutral
        return " ".join(space.order)  # the one thing to decide that is no operator's

    def _apart(self, site: Site, first: Value, second: Value) -> float:
        if first == second:
            return 0.0
        if isinstance(first, (bool, str)) or isinstance(second, (bool, str)):
            return math.inf
        return abs(first - second) / max(self._spans[site], abs(first - second))


def _domains(space: SearchSpace) -> dict[Site, Domain]:
    """Of every site; what is fixed is a choice of one."""
    return {d.site: d.domain for d in space.decisions} | {s: Choice((v,)) for s, v in space.fixed.items()}


def _span(domain: Domain, other: Domain | None) -> float:
    """From the smallest number to the largest of one or two domains; 0 where they have none."""
    ends = [float(v) for d in (domain, other) if d for v in _ends(d) if not isinstance(v, str)]
    return max(ends) - min(ends) if ends else 0.0


def _ends(domain: Domain) -> Sequence[Value]:
    return domain.options if isinstance(domain, Choice) else (domain.low, domain.high)


def _nearest(domain: Domain, value: Value) -> Value | None:
    """The value of a domain that is nearest to a value of another; None for words that it does not have."""
    if domain.holds(value):
        return domain.normal(value)
    if isinstance(value, (bool, str)) or (isinstance(domain, Choice) and not domain.ordered):
        return None
    if isinstance(domain, Choice):
        return min(domain.options, key=lambda option: (abs(float(option) - value), option))
    inside = min(max(float(value), domain.low), domain.high)
    return domain.normal(domain.decode(min(max(domain.encode(inside), 0.0), 1.0)))


def _places(table: LayerTable) -> dict[str, tuple[str, float]]:
    """Kind and relative depth, in (0, 1), of every layer and block: place among those of its kind."""
    kinds: dict[str, list[str]] = {"block": [block.name for block in table.blocks]}
    for layer in sorted(table.layers, key=lambda layer: layer.index):
        kinds.setdefault(layer.kind, []).append(layer.name)
    return {name: (kind, (i + 0.5) / len(names)) for kind, names in kinds.items() for i, name in enumerate(names)}


def _rung(old: Rung, new: Sequence[Rung]) -> int | None:
    """The rung of the new study that trains about as long; one that does not train is only like another such."""
    alike = [i for i, rung in enumerate(new) if (rung.steps > 0) == (old.steps > 0)]
    return min(alike, key=lambda i: (abs(math.log1p(new[i].steps) - math.log1p(old.steps)), i), default=None)


def _rescaled(trial: Trial, old: Mapping[str, float], new: Mapping[str, float]) -> Measurement | None:
    """What was measured of all inputs, or of as many as it took to see that it is hopeless; None where nothing was."""
    measured = trial.measurement
    if measured is None or not (trial.state is TrialState.COMPLETE or trial.hopeless):
        return None
    scales = {name: _scale(name, old, new) for name in measured.metrics}
    metrics = {name: value * scales[name] for name, value in measured.metrics.items() if scales[name] > 0}
    errors = {name: error * scales[name] for name, error in measured.errors.items() if name in metrics}
    return Measurement(metrics, {}, None, measured.seconds, errors, measured.samples)


def _scale(metric: str, old: Mapping[str, float], new: Mapping[str, float]) -> float:
    """1 for what is relative already; 0 where a cost's baselines are not known."""
    known = METRICS.get(metric)
    if known is None or known.sampled or known.unit == "ratio":
        return 1.0
    before, after = old.get(metric, math.nan), new.get(metric, math.nan)
    return after / before if before > 0 and after > 0 else 0.0
