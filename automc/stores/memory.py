"""The trial database in memory: for tests, dry runs and studies nobody wants to keep."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from automc.core.policy import Policy
from automc.core.ports import Outcome, Proposal
from automc.core.store import Control, Owner, StudySummary
from automc.core.study import StudySpec
from automc.core.tally import Count, tally
from automc.core.trial import Trial, TrialState
from automc.core.wishes import Wish
from automc.errors import StoreError
from automc.stores import steps
from automc.stores.codec import dumps, loads, now_text, plain, read_spec
from automc.stores.columns import Numbers, of_trials
from automc.stores.decisions import Vocabulary, space_sites
from automc.stores.filters import matches, parse
from automc.stores.memory_base import Kept, MemoryHistory
from automc.stores.owners import still_mine, taken
from automc.stores.paging import (
    Listing,
    Page,
    behind,
    check_limit,
    cut,
    ordered,
    position,
    read_cursor,
    row_of,
    sort_keys,
)
from automc.stores.select import Answer, Caps


class MemoryStore(MemoryHistory):
    """A Store (core/store.py) and its ``query`` (stores/__init__.py). Not for several threads.

    Args:
        other: another store whose studies this one shares, as two processes share a file; each has its own leases.
        clock: seconds since 1970; for tests.
    """

    def __init__(self, other: MemoryStore | None = None, clock: Callable[[], float] = time.time) -> None:
        super().__init__(other, clock)
        self._latencies: dict[str, dict[str, float]] = other._latencies if other else {}
        self._wished: list[int] = other._wished if other else [0]

    def close(self) -> None:
        """Nothing is held."""

    # Studies

    def create(self, spec: StudySpec, facts: Mapping[str, Any]) -> None:
        if spec.name in self._studies:
            raise steps.study_exists(spec.name)
        self._studies[spec.name] = Kept([dumps(spec.to_data())], dumps(facts), now_text())

    def revise(self, spec: StudySpec, facts: Mapping[str, Any] | None = None) -> None:
        study = self._writable(spec.name)
        steps.check_revision(read_spec(spec.name, study.specs[-1]).revision, spec)
        kept = study.facts if facts is None else dumps(facts)
        study.specs.append(dumps(spec.to_data()))
        study.facts = kept

    def spec(self, study: str) -> StudySpec:
        return read_spec(study, self._study(study).specs[-1])

    def revisions(self, study: str) -> Sequence[StudySpec]:
        return [read_spec(study, text) for text in self._study(study).specs]

    def facts(self, study: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = loads(self._study(study).facts)
        return found

    def studies(self) -> Sequence[StudySummary]:
        return [
            StudySummary(
                self.spec(name),
                {state: sum(trial.state is state for trial in study.trials) for state in TrialState},
                study.created,
            )
            for name, study in self._studies.items()
        ]

    # Trials

    def together(self) -> AbstractContextManager[None]:
        return nullcontext()

    def add(self, study: str, proposal: Proposal, rung: int, start: bool = False) -> Trial:
        trials = self._writable(study).trials
        trials.append(Trial(len(trials), proposal.policy, proposal.memo, rung=rung))
        return self.move(study, trials[-1].to(TrialState.RUNNING)) if start else trials[-1]

    def move(
        self, study: str, trial: Trial, outcome: Outcome | None = None, front: Mapping[int, bool] | None = None
    ) -> Trial:
        trials, old = self._writable(study).trials, self._trial(study, trial.number)
        steps.check_step(study, steps.standing(old), trial)
        trials[trial.number] = replace(trial, measurement=plain(trial.measurement))
        self._record(study, old.state, trial, outcome)
        if front:
            self.keep_front(study, front)
        return trials[trial.number]

    def note(self, study: str, number: int, step: int, value: float) -> None:
        notes, trial = self._writable(study).notes, self._trial(study, number)
        if trial.state is TrialState.RUNNING:
            notes.setdefault((number, trial.attempts), {})[step] = float(value)

    def notes(self, study: str, number: int) -> Sequence[tuple[int, float]]:
        attempt = self._trial(study, number).attempts
        return sorted(self._study(study).notes.get((number, attempt), {}).items())

    def trials(
        self, study: str, states: Sequence[TrialState] = (), numbers: Iterable[int] | None = None
    ) -> Sequence[Trial]:
        known = self._study(study).trials
        asked = known if numbers is None else [known[n] for n in sorted(set(numbers)) if 0 <= n < len(known)]
        return [trial for trial in asked if not states or trial.state in states]

    def tally(self, study: str) -> Sequence[Count]:
        return tally(self._study(study).trials)

    def spent(self, study: str, step: int) -> Sequence[float]:
        known = self._study(study)
        ended = [known.trials[number] for number in known.order]
        own = [t.measurement.seconds if t.measurement and t.twin is None else 0.0 for t in ended]
        return [math.fsum(s for s in own[at : at + step] if s == s) for at in range(0, len(own), step)]

    def numbers(self, study: str, metrics: Sequence[str]) -> Numbers:
        known = self._study(study)
        return of_trials(known.trials, {number: place for place, number in enumerate(known.order, 1)}, metrics)

    def query(self, study: str, where: str = "", sort: Sequence[str] = (), limit: int | None = None) -> Sequence[Trial]:
        trials = self._study(study).trials
        return [trials[row["number"]] for row in self.page(study, Listing(where, sort, limit)).rows]

    def page(self, study: str, listing: Listing) -> Page:
        check_limit(listing.limit)
        keys = sort_keys(listing.sort)
        at, found = read_cursor(listing.after, keys), self._study(study).trials
        if listing.where.strip():
            sites = (site for trial in found for site in trial.policy) if found else space_sites(self.facts(study))
            tree = parse(listing.where, Vocabulary(sites))
            found = [trial for trial in found if matches(tree, trial)]
        rows = ordered(list(map(row_of, found)), keys)
        return cut([row for row in rows if at is None or behind(position(row, keys), at, keys)], listing, keys)

    def select(self, text: str, caps: Caps) -> Answer:
        raise StoreError("memory: a store in memory has no SQL; keep the study in a file, such as automc.db")

    # Memories

    def keep_memory(self, study: str, told: int, state: bytes) -> None:
        self._writable(study).memories[self.spec(study).revision] = (told, bytes(state))

    def memory(self, study: str) -> tuple[int, bytes] | None:
        return self._study(study).memories.get(self.spec(study).revision)

    # Wishes

    def wish(self, study: str, policy: Policy, rung: int) -> int:
        self._wished[0] += 1
        self._study(study).wishes[self._wished[0]] = Wish(self._wished[0], policy, rung)
        return self._wished[0]

    def wishes(self, study: str) -> Sequence[Wish]:
        return list(self._study(study).wishes.values())

    def grant(self, study: str, wish: Wish) -> Trial:
        waiting = self._writable(study).wishes
        steps.check_granted(study, wish.id, wish.id in waiting)
        del waiting[wish.id]
        return self.add(study, Proposal(wish.policy), wish.rung)

    # Latencies

    def latencies(self, device: str) -> Mapping[str, float]:
        return dict(sorted(self._latencies.get(device, {}).items()))

    def keep_latencies(self, device: str, rows: Mapping[str, float], rounds: int = 1) -> None:
        steps.check_latencies(device, rows, rounds)
        self._latencies.setdefault(device, {}).update((key, float(value)) for key, value in rows.items())

    # Leases

    def take(self, study: str, owner: Owner) -> None:
        found = self._study(study)
        found.lease = taken(study, found.lease, owner, self._token, self._clock())
        self._fences[study] = found.lease.fence

    def renew(self, study: str) -> None:
        found = self._study(study)
        held = still_mine(study, found.lease, self._fences.get(study))
        found.lease = replace(held, renewed=self._clock())

    def release(self, study: str) -> None:
        fence, found = self._fences.pop(study, None), self._studies.get(study)
        if found is not None and found.lease is not None and found.lease.fence == fence:
            found.lease = replace(found.lease, token=None, control=Control.GO)

    def ask(self, study: str, word: Control) -> Control | None:
        found = self._study(study)
        if found.lease is None or not found.lease.alive(self._clock()):
            return None
        found.lease = found.lease.told(word)
        return found.lease.control

    def asked(self, study: str) -> Control:
        lease = self._study(study).lease
        return Control.GO if lease is None else lease.control

    def driver(self, study: str) -> Owner | None:
        lease = self._study(study).lease
        return lease.owner if lease is not None and lease.alive(self._clock()) else None
