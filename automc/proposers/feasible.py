"""Any proposer, kept within what can be told of a policy before it is evaluated."""

from __future__ import annotations

import json
from collections.abc import Sequence

from automc.core.budget import Budget
from automc.core.ports import Proposal, Proposer, Stateful
from automc.core.space import SearchSpace
from automc.core.trial import Trial
from automc.errors import StoreError


class FeasibleProposer:
    """Moves what its proposer asks into the budget (see Budget.fit); what keeps it already passes untouched.

    The proposer is told the policies that were evaluated, as always, and so learns from what was really done.
    """

    def __init__(self, inner: Proposer, space: SearchSpace, budget: Budget) -> None:
        self.inner = inner
        self._space, self._budget = space, budget

    def ask(self, numbers: range) -> list[Proposal]:
        return [self._kept(proposal) for proposal in self.inner.ask(numbers)]

    def tell(self, trials: Sequence[Trial]) -> None:
        self._budget.learn(trials)
        self.inner.tell(trials)

    @classmethod
    def around(cls, inner: Proposer, space: SearchSpace, budget: Budget) -> FeasibleProposer:
        """The wrapper that is Stateful exactly where its proposer is."""
        return (_Stateful if isinstance(inner, Stateful) else cls)(inner, space, budget)

    def _kept(self, proposal: Proposal) -> Proposal:
        if self._budget.holds(proposal.policy):
            return proposal
        return proposal._replace(policy=self._space.decode(self._budget.fit(self._space.encode(proposal.policy))))


class _Stateful(FeasibleProposer):
    """Its memory is a line of JSON with what the budget learned, and behind it its proposer's."""

    def state(self) -> bytes:
        assert isinstance(self.inner, Stateful)
        return json.dumps({"learned": self._budget.learned}).encode() + b"\n" + self.inner.state()

    def restore(self, state: bytes) -> None:
        assert isinstance(self.inner, Stateful)
        head, _, rest = state.partition(b"\n")
        try:
            learned = json.loads(head)["learned"]
            learned = None if learned is None else float(learned)
        except (ValueError, TypeError, KeyError) as error:
            raise StoreError(f"the memory does not begin with what the budget learned: {error}") from error
        self.inner.restore(rest)
        self._budget.learned = learned
