"""Which decisions mattered: permutation importance of a random forest over the complete trials.

The forest (Breiman 2001, "Random Forests") predicts a metric from the decisions. Of every tree, the trials that it was
not grown on are predicted again with one decision shuffled among them; what that adds to their squared error, averaged
over the trees, is the decision's importance (section 10 there):

    importance_d = mean over trees of  mse(d shuffled) - mse,   share_d = max(importance_d, 0) / sum over decisions

Interactions count for every decision that takes part in one; for decisions that were drawn independently and a forest
that predicts well, ``importance_d / (2 variance)`` is the total Sobol index. It is about the trials there are, so where
a proposer dwelt on few values of a decision, little is seen of it (Hutter et al. 2014 weigh the whole space instead).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from automc.app.tables import pairs, table
from automc.core.metrics import METRICS, listed
from automc.core.policy import Policy, Site, Value
from automc.core.rules import nearest
from automc.core.trial import Trial, TrialState
from automc.errors import SpecError

if TYPE_CHECKING:
    from automc.app.study import Study

Array = NDArray[Any]

LEAST = 20
"""Fewer trials are not asked what mattered."""

MOST = 2000
"""So many trials grow the forest; of more, an even choice."""

LOW_R2 = 0.3
"""Below this the forest explains too little for its importances to mean much."""

TREES = 100
WHOLE = "(whole network)"


@dataclass(frozen=True)
class Weight:
    """How much a decision mattered.

    Attributes:
        share: of all importance, in [0, 1].
        trend: rank correlation (Spearman) of its value with the metric, in [-1, 1]; None where its values are words.
    """

    site: Site
    share: float
    trend: float | None


@dataclass(frozen=True)
class Importance:
    """What mattered for a metric.

    Attributes:
        rung: whose trials were looked at. trials: how many grew the forest, of ``known``.
        r2: share of the metric's variance that the forest predicts of trials it was not grown on (out of bag); at
            most 1, and 0 or below where it predicts no better than the mean.
        decisions: those that varied, most important first.
    """

    metric: str
    rung: int
    trials: int
    known: int
    r2: float
    decisions: tuple[Weight, ...]

    @property
    def by_layer(self) -> dict[str, float]:
        """Shares summed over the decisions of a layer, group or block, most important first."""
        return _summed(self.decisions, lambda site: WHOLE if site.layer == "*" else site.layer)

    @property
    def by_setting(self) -> dict[str, float]:
        """Shares summed over the network, by ``operator setting``, most important first."""
        return _summed(self.decisions, lambda site: f"{site.operator} {site.setting}")

    @property
    def note(self) -> str:
        """How far to trust it, in a sentence."""
        forest = f"a random forest of {self.trials:,} trials on rung {self.rung}"
        said = f"predicts {self.r2:.0%} of the variance of {self.metric}"
        said = said if self.r2 > 0 else f"predicts {self.metric} no better than its mean"
        weak = "; that is little, so the shares mean little: more trials would tell" if self.r2 < LOW_R2 else ""
        return f"{forest} {said} (out-of-bag R^2 {self.r2:.2f}){weak}"


def mattered(study: Study, metric: str) -> Importance:
    """``importance`` of a study. Where nothing was revised, only the trials that grow the forest are read."""
    if metric not in METRICS or not study.reading().changeless:
        return importance(study.name, study.counted(), metric)
    known = study.store.numbers(study.name, [metric])
    having = ~known.answered & np.isfinite(known.values[metric])
    rung = Counter(known.rung[having].tolist()).most_common(1)[0][0] if having.any() else 0
    numbers = known.number[having & (known.rung == rung)].tolist()
    if len(numbers) < LEAST:
        return importance(study.name, study.counted(), metric)
    chosen = numbers if len(numbers) <= MOST else [numbers[i] for i in _even(len(numbers))]
    found = study.store.trials(study.name, numbers=chosen)
    return replace(importance(study.name, found, metric), known=len(numbers))


def _even(count: int) -> list[int]:
    return [int(i) for i in np.linspace(0, count - 1, MOST)]


def importance(study: str, trials: Sequence[Trial], metric: str) -> Importance:
    """What mattered for a metric, on the rung that most complete trials ran on; answers from the store count once.

    Raises:
        SpecError: no such metric, fewer than LEAST trials have it, or it or all decisions are the same everywhere.
    """
    rung, found = _sample(study, trials, metric)
    chosen = found if len(found) <= MOST else [found[i] for i in _even(len(found))]
    target = np.array([_value(trial, metric) for trial in chosen])
    sites, columns = _columns([trial.policy for trial in chosen])
    for what, varied in ((metric, np.ptp(target) > 0), ("every decision", bool(sites))):
        if not varied:
            raise SpecError(f"importance: {what} is the same in all {len(chosen)} trials of study {study!r}")
    shares, r2 = forest_importance(columns, target)
    weights = [
        Weight(site, float(share), _trend([trial.policy.get(site) for trial in chosen], column, target))
        for site, share, column in zip(sites, shares, columns.T, strict=True)
    ]
    weights.sort(key=lambda weight: (-weight.share, weight.site))
    return Importance(metric, rung, len(chosen), len(found), r2, tuple(weights))


def forest_importance(columns: Array, target: Array, seed: int = 0) -> tuple[Array, float]:
    """The shares of the formula above, which sum to 1 unless all are 0, and the out-of-bag R^2.

    Args:
        columns: shape (trials, decisions). target: shape (trials,), not constant.
    """
    from sklearn.ensemble import RandomForestRegressor

    # A third of the decisions at every split, as Breiman advises for regression: strong ones then hide others less.
    forest = RandomForestRegressor(TREES, max_features=1 / 3, min_samples_leaf=2, random_state=seed)
    rows = columns.astype(np.float32)
    forest.fit(rows, target)
    draw = np.random.default_rng(seed)
    added, sums, votes = np.zeros(rows.shape[1]), np.zeros(len(rows)), np.zeros(len(rows))
    for tree, grown_on in zip(forest.estimators_, forest.estimators_samples_, strict=True):
        out = np.setdiff1d(np.arange(len(rows)), grown_on)
        used = np.unique(tree.tree_.feature[tree.tree_.feature >= 0])
        if not len(out) or not len(used):
            continue
        copies = np.repeat(rows[None, out], len(used) + 1, axis=0)  # the last one stays as it is
        for copy, decision in zip(copies, used, strict=False):
            copy[:, decision] = draw.permutation(copy[:, decision])
        said = tree.predict(copies.reshape(-1, rows.shape[1]), check_input=False).reshape(len(used) + 1, -1)
        wrong = ((said - target[out]) ** 2).mean(axis=1)
        added[used] += wrong[:-1] - wrong[-1]
        sums[out] += said[-1]
        votes[out] += 1
    seen = votes > 0
    r2 = 1 - float(((sums[seen] / votes[seen] - target[seen]) ** 2).mean() / target[seen].var())
    kept = np.maximum(added, 0)
    return kept / max(kept.sum(), 1e-300), r2


def importance_data(found: Importance) -> dict[str, Any]:
    """As ``--json`` has it."""
    return {
        **{name: getattr(found, name) for name in ("metric", "rung", "trials", "known", "r2", "note")},
        "by_setting": found.by_setting,
        "by_layer": found.by_layer,
        "decisions": [{**w.site._asdict(), "share": w.share, "trend": w.trend} for w in found.decisions],
    }


def importance_of(data: Mapping[str, Any]) -> Importance:
    """What ``importance_data`` made plain."""
    decisions = [
        Weight(Site(each["operator"], each["layer"], each["setting"]), each["share"], each["trend"])
        for each in data["decisions"]
    ]
    told = {name: data[name] for name in ("metric", "rung", "trials", "known", "r2")}
    return Importance(**told, decisions=tuple(decisions))


def importance_text(found: Importance, limit: int) -> str:
    """The note, and the shares by setting, by layer and by decision, at most ``limit`` rows each."""
    parts = [found.note]
    for name, shares in (("setting", found.by_setting), ("layer", found.by_layer)):
        parts.append(table([{name: key, "share": f"{share:.1%}"} for key, share in shares.items()][:limit], (), SHARE))
    rows = [decision_row(weight) for weight in found.decisions]
    parts.append(table(rows[:limit], (), SHARE))
    if len(rows) > limit:
        rest = sum(weight.share for weight in found.decisions[limit:])
        parts.append(pairs({f"{len(rows) - limit} more decisions": f"{rest:.1%}"}))
    return "\n\n".join(parts)


SHARE = ("share", "trend")


def decision_row(weight: Weight) -> dict[str, Any]:
    """A decision as a row of a table."""
    trend = "-" if weight.trend is None else f"{weight.trend:+.2f}"
    return {"decision": str(weight.site), "share": f"{weight.share:.1%}", "trend": trend}


def _sample(study: str, trials: Sequence[Trial], metric: str) -> tuple[int, list[Trial]]:
    """The rung with the most trials, and its trials that have the metric as a finite number."""
    if metric not in METRICS:
        raise SpecError(f"importance: no metric {metric!r}{nearest(metric, METRICS)} (metrics: {listed(METRICS)})")
    complete = [t for t in trials if t.state is TrialState.COMPLETE and t.twin is None]
    having = [t for t in complete if np.isfinite(_value(t, metric))]
    if complete and not having:
        measured = ", ".join(complete[0].measurement.metrics) if complete[0].measurement else "nothing"
        raise SpecError(f"importance: study {study!r} did not measure {metric} (it has: {measured})")
    rung, count = Counter(t.rung for t in having).most_common(1)[0] if having else (0, 0)
    if count < LEAST:
        raise SpecError(
            f"importance: study {study!r} has {count} complete trials on one rung; at least {LEAST} are needed"
        )
    return rung, [t for t in having if t.rung == rung]


def _value(trial: Trial, metric: str) -> float:
    found = trial.measurement
    if found is None:
        return float("nan")
    return found.seconds if metric == "seconds" else found.metrics.get(metric, float("nan"))


def _columns(policies: Sequence[Policy]) -> tuple[list[Site], Array]:
    """The sites that varied, and their values as numbers, shape (policies, sites).

    Words are numbered by their order in the alphabet, which a forest can cut as it likes; a site that a policy lacks
    has a number below all others.
    """
    sites, columns = [], []
    for site in sorted({site for policy in policies for site in policy}):
        values = [policy.get(site) for policy in policies]
        different = set(values)
        if len(different) > 1:
            sites.append(site)
            columns.append(_numbers(values, different - {None}))
    return sites, np.array(columns, dtype=np.float64).T.reshape(len(policies), len(sites))


def _numbers(values: Sequence[Value | None], different: set[Any]) -> list[float]:
    order: Mapping[Any, float] = {
        value: float(place) if isinstance(value, str) else float(value)
        for place, value in enumerate(sorted(different, key=lambda value: (isinstance(value, str), value)))
    }
    lacking = min(order.values()) - 1
    return [order.get(value, lacking) for value in values]


def _trend(values: Sequence[Value | None], column: Array, target: Array) -> float | None:
    from scipy.stats import spearmanr

    if any(value is None or isinstance(value, (str, bool)) for value in values):
        return None
    return float(spearmanr(column, target).statistic)


def _summed(weights: Sequence[Weight], key: Any) -> dict[str, float]:
    sums: dict[str, float] = {}
    for weight in weights:
        sums[key(weight.site)] = sums.get(key(weight.site), 0.0) + weight.share
    return dict(sorted(sums.items(), key=lambda item: -item[1]))
