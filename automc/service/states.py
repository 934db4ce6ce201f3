"""What state a study is in, seen from its lease and from what is wanted of it, and what may be asked of it then.

    idle ------> starting --> running <--> paused
     ^  ^            |           |            |
     |  |            |           v            v
     |  `------------'        stopping --> cancelling
     `---------------------------'             |
    done, failed (its driver ended and was not asked to): as idle

A deleted study is in no state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from automc.core.trial import TrialState
from automc.service.problems import Problem
from automc.stores.sql_care import Care, Standing

if TYPE_CHECKING:
    from automc.stores.service import ServiceStore

VERBS: Mapping[str, tuple[str, ...]] = {
    "idle": ("resume", "extend", "delete"),
    "done": ("extend", "delete"),
    "failed": ("resume", "extend", "delete"),
    "starting": ("stop", "cancel"),
    "running": ("pause", "stop", "cancel"),
    "paused": ("resume", "stop", "cancel"),
    "stopping": ("cancel",),
    "cancelling": (),
}
"""What may be asked of a study by its state."""

_ASKED = {"go": "running", "pause": "paused", "stop": "stopping", "cancel": "cancelling"}


@dataclass(frozen=True)
class State:
    """``name`` is a key of VERBS; ``said``: why it failed."""

    name: str
    said: str = ""

    @property
    def verbs(self) -> tuple[str, ...]:
        return VERBS[self.name]


def state(standing: Standing, care: Care, spent: bool) -> State:
    """The state of a study. ``spent``: nothing is left to evaluate."""
    if standing.alive:
        return State(_ASKED[standing.control])
    if care.wanted:
        return State("starting")
    if care.said:
        return State("failed", care.said)
    return State("done" if spent else "idle")


def state_of(store: ServiceStore, study: str, counts: Mapping[TrialState, int], budget: int) -> State:
    """The state of a study of a store. Raises UnknownStudy."""
    finished = sum(count for each, count in counts.items() if each.finished)
    spent = finished >= budget and finished == sum(counts.values()) and not store.wishes(study)
    return state(store.standing(study), store.care(study), spent)


def check_legal(study: str, verb: str, now: State) -> None:
    """Raises Problem for a verb that means nothing in this state."""
    if verb not in now.verbs:
        legal = ", ".join(now.verbs) or "none: wait"
        detail = f"study {study!r} is {now.name}: {verb} means nothing now (legal: {legal})"
        more = {"state": now.name, "legal": list(now.verbs)}
        raise Problem(409, "illegal-verb", detail, place=study, hint=f"legal now: {legal}", more=more)
