"""A search seen from outside: what is new in the database becomes the events that the live view knows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TextIO

from automc.app import live
from automc.app.board import Board
from automc.core.layers import LayerTable
from automc.core.search import Listener
from automc.core.store import Control
from automc.core.trial import Trial, TrialState
from automc.stores import TrialDatabase

if TYPE_CHECKING:
    from automc.app.study import Study

POLL_SECONDS = 0.5


class Tail:
    """The events of a study since ``known`` was read, found by asking for trials from the first unfinished one on."""

    def __init__(self, store: TrialDatabase, study: str, known: Sequence[Trial]) -> None:
        self._store, self._study = store, study
        self._next = 0
        self._open: set[int] = set()
        self._noted: dict[int, int] = {}
        self._known = known
        self._paused = False

    def poll(self, listener: Listener) -> None:
        """Tell the listener what is new. The first time, also which of the known trials are not finished."""
        for trial in self._known:
            self._next = trial.number + 1
            if not trial.state.finished:
                self._open.add(trial.number)
                listener.added(trial)
        self._known = ()
        paused = self._store.asked(self._study) is Control.PAUSE
        if paused is not self._paused:
            self._paused = paused
            listener.paused(paused)
        first = min(self._open, default=self._next)
        for trial in self._store.query(self._study, f"number >= {first}"):
            self._meet(trial, listener)

    def _meet(self, trial: Trial, listener: Listener) -> None:
        number = trial.number
        if number >= self._next:
            self._next = number + 1
            self._open.add(number)
            listener.added(trial)
        if number not in self._open:
            return
        if trial.state.finished:
            self._open.discard(number)
            listener.finished(trial)
        elif trial.state is TrialState.RUNNING:
            for step, value in self._store.notes(self._study, number)[-1:]:
                if self._noted.get(number) != step:
                    self._noted[number] = step
                    listener.noted(number, step, value)


def watch(study: Study, stream: TextIO, sleep: Callable[[float], None] = time.sleep) -> Board:
    """Show a search until nobody drives it any more; at once where nobody does. A new revision begins a new view.

    Returns: what is known at the end.
    """
    store, name = study.store, study.name
    while True:
        spec, facts = store.spec(name), store.facts(name)
        driven = store.driver(name) is not None
        known = store.trials(name)
        board = Board(spec, facts["baseline"], map(study.reading(known), known))
        if not driven:
            return board
        tail = Tail(store, name, known)
        with live.watch(board, LayerTable.from_data(facts["layers"]), stream) as listener:
            while driven and store.spec(name).revision == spec.revision:
                # Asked before the trials are read, so that what was written before the end is seen.
                driven = store.driver(name) is not None
                tail.poll(listener)
                if driven:
                    sleep(POLL_SECONDS)
        if not driven:
            return board
