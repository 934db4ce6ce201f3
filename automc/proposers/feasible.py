"""Any proposer, kept within what can be told of a policy before it is evaluated."""

from __future__ import annotations

from collections.abc import Sequence

from automc.core.budget import Budget
from automc.core.ports import Proposal, Proposer
from automc.core.space import SearchSpace
from automc.core.trial import Trial


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

    def _kept(self, proposal: Proposal) -> Proposal:
        if self._budget.holds(proposal.policy):
            return proposal
        return proposal._replace(policy=self._space.decode(self._budget.fit(self._space.encode(proposal.policy))))
