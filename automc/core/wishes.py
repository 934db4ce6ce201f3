"""Policies that people asked to be evaluated: they go before what the proposer has in mind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from automc.core.policy import Policy
from automc.core.trial import Trial


@dataclass(frozen=True)
class Wish:
    """A policy that waits to become a trial of a rung. ``id`` grows with every wish of a database."""

    id: int
    policy: Policy
    rung: int


class WishStore(Protocol):
    """The wishes of studies. Every call raises UnknownStudy."""

    def wish(self, study: str, policy: Policy, rung: int) -> int:
        """Add one, from any process; its id. Needs no lease: whoever drives the study takes it up."""
        ...

    def wishes(self, study: str) -> Sequence[Wish]:
        """Those that are no trials yet, oldest first."""
        ...

    def grant(self, study: str, wish: Wish) -> Trial:
        """Make the next trial of it, WAITING, in one transaction; needs the lease, as ``add`` does.

        Raises:
            IllegalTransition: there is no such wish, or it is a trial already.
        """
        ...
