"""Warm starts: what a study takes over from others, and how that is kept among its facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from automc.core.layers import LayerTable
from automc.core.metrics import Measurement
from automc.core.revision import Reading
from automc.core.rules import resolve
from automc.core.sensitivity import Sensitivity
from automc.core.space import SearchSpace
from automc.core.study import StudySpec
from automc.core.transfer import Setup, carried, carried_sensitivity, same_network
from automc.core.trial import EXCLUDED, Trial, TrialState
from automc.errors import SpecError
from automc.operators import OPERATORS
from automc.stores import TrialDatabase, open_store

if TYPE_CHECKING:
    from automc.app.study import Study

KEY = "warm_start"
"""Where the facts of a study keep it: a list with an entry a study that it was started from."""


@dataclass(frozen=True)
class Origin:
    """A study that another is started from. ``name``: as the user gave it."""

    name: str
    setup: Setup
    trials: tuple[Trial, ...]

    @property
    def sensitivity(self) -> Sensitivity:
        return self.setup.space.layers.sensitivity

    def same_network(self, setup: Setup) -> bool:
        return same_network(self.setup.space.layers, setup.space.layers, (self.setup.baseline, setup.baseline))


def origins(given: Sequence[str | Study], storage: str, own: Study | None = None) -> list[Origin]:
    """The studies that a user named, each once: ``NAME`` in this storage, ``NAME@STORAGE`` in another, or open ones.

    Args:
        own: the study that is to learn from them, where it exists.

    Raises:
        UnknownStudy, StoreError: it is not there. SpecError: it is not readable, or ``own`` itself.
    """
    found: list[Origin] = []
    for one in dict.fromkeys(given):
        if own is not None and _is(one, own):
            raise SpecError(f"warm start from {own.name!r}: it is this study, which knows its own trials already")
        if not isinstance(one, str):
            found.append(_origin(f"{one.name}@{one.storage}", one.name, one.store))
            continue
        name, _, elsewhere = one.partition("@")
        store = open_store(elsewhere or storage, create=False)
        try:
            found.append(_origin(one, name, store))
        finally:
            store.close()
    return found


def _is(one: str | Study, own: Study) -> bool:
    name, _, elsewhere = one.partition("@") if isinstance(one, str) else (one.name, "", one.storage)
    return (name, elsewhere or own.storage) == (own.name, own.storage)


def _origin(said: str, name: str, store: TrialDatabase) -> Origin:
    spec, facts = store.spec(name), store.facts(name)
    try:
        table = LayerTable.from_data(facts["layers"])
        space = resolve(spec.rules, spec.order, table, OPERATORS, spec.orders)
    except (KeyError, TypeError, SpecError) as error:
        raise SpecError(
            f"warm start from {said!r}: this automc cannot read what that study searched: {error}"
        ) from error
    trials = store.trials(name)
    read = Reading(store.revisions(name), lambda: space, trials, OPERATORS)
    return Origin(said, Setup(space, facts["baseline"], spec.rungs), tuple(map(read, trials)))


def entries(found: Iterable[Origin], spec: StudySpec, setup: Setup) -> list[dict[str, Any]]:
    """What the facts of a new study keep of its origins, as plain data."""
    metrics = dict.fromkeys([*(o.metric for o in spec.objectives), *(c.metric for c in spec.constraints)])
    kept = []
    for origin in found:
        result = carried(origin.trials, origin.setup, setup, list(metrics), OPERATORS)
        kept.append(
            {
                "study": origin.name,
                "same_network": origin.same_network(setup),
                "excluded": dict(result.excluded),
                "trials": [_to_data(trial, setup.space) for trial in result.trials],
            }
        )
    return kept


def moved(facts: Mapping[str, Any], old: SearchSpace, new: SearchSpace, read: Reading) -> list[dict[str, Any]]:
    """The entries of a study whose space or aims a revision changes.

    Args:
        old, new: its space before and after. read: as the revision reads trials.
    """
    kept = []
    for entry in facts.get(KEY, ()):
        trials = [read(_from_data(-1, row, old)) for row in entry["trials"]]
        gone = Counter(t.message.partition(": ")[0] for t in trials if t.reason == EXCLUDED)
        rows = [_to_data(t, new) for t in trials if t.reason != EXCLUDED]
        kept.append({**entry, "excluded": dict(Counter(entry["excluded"]) + gone), "trials": rows})
    return kept


def told(facts: Mapping[str, Any], space: SearchSpace) -> list[Trial]:
    """The trials to tell before a study's own, numbered from -len to -1."""
    rows = [row for entry in facts.get(KEY, ()) for row in entry["trials"]]
    return [_from_data(i - len(rows), row, space) for i, row in enumerate(rows)]


def summary(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of each origin how many trials are reused, and how many are not and why."""
    return [
        {**{k: v for k, v in entry.items() if k != "trials"}, "reused": len(entry["trials"])}
        for entry in facts.get(KEY, ())
    ]


def lines(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """A summary for people, one line an origin."""
    said = []
    for entry in found:
        why = ", ".join(f"{count} {reason}" for reason, count in entry["excluded"].items())
        network = "the same network" if entry["same_network"] else "another network, layers matched by their part in it"
        left = f"; {sum(entry['excluded'].values())} left out: {why}" if why else ""
        said.append(f"warm start from {entry['study']} ({network}): {entry['reused']} trials reused{left}")
    return said


def known_sensitivity(found: Iterable[Origin], setup: Setup) -> Sensitivity:
    """What was measured of this very network for other studies."""
    return Sensitivity(tuple(probe for o in found if o.same_network(setup) for probe in o.sensitivity.probes))


def guessed_sensitivity(found: Iterable[Origin], setup: Setup) -> Sensitivity:
    """The first table of another network whose layers stand for all that is decided here; else an empty one."""
    tables = (carried_sensitivity(o.sensitivity, o.setup.space.layers, setup.space, OPERATORS) for o in found)
    return next((table for table in tables if table), Sensitivity())


def _to_data(trial: Trial, space: SearchSpace) -> dict[str, Any]:
    assert trial.measurement is not None  # only such are carried
    measured = {k: v for k, v in asdict(trial.measurement).items() if k in ("metrics", "errors", "samples", "seconds")}
    return {"values": [trial.policy[d.site] for d in space.decisions], "rung": trial.rung, **measured}


def _from_data(number: int, row: Mapping[str, Any], space: SearchSpace) -> Trial:
    policy = space.policy({d.site: value for d, value in zip(space.decisions, row["values"], strict=True)})
    measured = Measurement(row["metrics"], seconds=row["seconds"], errors=row["errors"], samples=row["samples"])
    return Trial(number, policy, "", TrialState.COMPLETE, row["rung"], measured)
