"""Optuna samplers as proposers."""

from automc.proposers.optuna.evolution import NSGA2Proposer, NSGA3Proposer
from automc.proposers.optuna.samplers import GPProposer, QMCProposer, TPEProposer
from automc.proposers.optuna.strategy import CMAESProposer

__all__ = ["CMAESProposer", "GPProposer", "NSGA2Proposer", "NSGA3Proposer", "QMCProposer", "TPEProposer"]
