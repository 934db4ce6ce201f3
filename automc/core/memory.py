"""A proposer that knows what happened before its process began: trials of other studies, and what it kept itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from automc.core.ports import Proposal, Proposer, Stateful
from automc.core.store import AgentStore
from automc.core.trial import Trial
from automc.errors import StoreError

KEEP_EVERY = 20
"""Told trials between two keepings: what a killed process must have told anew, at most."""


class RememberingProposer:
    """Tells its proposer the warm start first, and spares a Stateful one what it was told in an earlier process.

    What it proposes does not depend on what was kept, which only saves time. So a memory that cannot be read or
    written is talked about and otherwise ignored.

    Args:
        inner: freshly built. store: of the study of this name.
        warm: trials of other studies, with numbers below 0.
        say: takes a line for people.
    """

    def __init__(
        self,
        inner: Proposer,
        store: AgentStore,
        study: str,
        warm: Sequence[Trial] = (),
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.inner = inner
        self._store, self._study, self._warm, self._say = store, study, tuple(warm), say
        self._begun, self._whole = False, True
        self._told = self._kept = 0

    def ask(self, numbers: range) -> Sequence[Proposal]:
        with self._uncut():
            self._begin(0)
            return self.inner.ask(numbers)

    def tell(self, trials: Sequence[Trial]) -> None:
        """The study's own trials, from number 0 on."""
        if not trials:
            return
        end = trials[-1].number + 1
        with self._uncut():
            self._begin(end)
            self.inner.tell([trial for trial in trials if trial.number >= self._told])
        self._told = max(self._told, end)
        if self._told - self._kept >= KEEP_EVERY:
            self.keep()

    def keep(self) -> None:
        """Write down what is remembered, if there is anything new. Nothing after an interrupt that cut a call short."""
        if not (self._whole and self._told > self._kept and isinstance(self.inner, Stateful)):
            return
        try:
            self._store.keep_memory(self._study, self._told, self.inner.state())
            self._kept = self._told
        except StoreError as error:
            self._say(f"study {self._study!r}: what the proposer remembers was not kept: {error}")

    def _begin(self, end: int) -> None:
        """Before the first call: recall what was kept of trials below ``end``, else tell the warm start."""
        if self._begun:
            return
        self._begun = True
        if not self._recalled(end):
            self.inner.tell(self._warm)

    def _recalled(self, end: int) -> bool:
        if not isinstance(self.inner, Stateful):
            return False
        try:
            found = self._store.memory(self._study)
            if found is None or found[0] > end:
                return False
            self.inner.restore(found[1])
        except StoreError as error:
            self._say(f"study {self._study!r}: the proposer is told everything anew, its memory was no help: {error}")
            return False
        self._told = self._kept = found[0]
        return True

    @contextmanager
    def _uncut(self) -> Iterator[None]:
        """A call that an exception leaves half done makes the memory worthless."""
        whole, self._whole = self._whole, False
        yield
        self._whole = whole
