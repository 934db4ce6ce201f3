"""Exact allocation over measured sensitivities: the damage of a policy is a sum, its costs follow from it, and the best
policy under bounds is solved for, as HAWQ-V3 does for bits alone (Yao et al. 2021); trials then correct the sum.
"""

from automc.proposers.allocate.model import DamageModel
from automc.proposers.allocate.proposer import AllocateProposer, allocate
from automc.proposers.allocate.solve import Solution, solve
from automc.proposers.allocate.tables import Tables

__all__ = ["AllocateProposer", "DamageModel", "Solution", "Tables", "allocate", "solve"]
