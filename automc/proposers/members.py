"""Which name stands for which proposer; with it, proposers that are made of others build these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from automc.core.metrics import Constraint, Objective
from automc.core.ports import Proposer
from automc.core.rules import nearest
from automc.core.signature import made
from automc.core.space import SearchSpace
from automc.errors import SpecError

PROPOSERS: Mapping[str, str] = {
    "portfolio": "automc.proposers.portfolio:PortfolioProposer",
    "allocate": "automc.proposers.allocate:AllocateProposer",
    "amc": "automc.proposers.ddpg.amc:AMCProposer",
    "ddpg": "automc.proposers.ddpg.joint:JointProposer",
    "haq": "automc.proposers.ddpg.haq:HAQProposer",
    "evolve": "automc.proposers.evolve.evolve:EvolveProposer",
    "filter": "automc.proposers.evolve.filter:FilterProposer",
    "greedy": "automc.proposers.greedy:GreedyProposer",
    "cluster": "automc.proposers.cluster:ClusterProposer",
    "tpe": "automc.proposers.optuna:TPEProposer",
    "gp": "automc.proposers.optuna:GPProposer",
    "cmaes": "automc.proposers.optuna:CMAESProposer",
    "nsga2": "automc.proposers.optuna:NSGA2Proposer",
    "nsga3": "automc.proposers.optuna:NSGA3Proposer",
    "nni": "automc.proposers.nni:NNIProposer",
    "tune": "automc.proposers.tune:TuneProposer",
    "qmc": "automc.proposers.optuna:QMCProposer",
    "random": "automc.proposers.random:RandomProposer",
    "uniform": "automc.proposers.uniform:UniformProposer",
}


def member(
    name: str,
    space: SearchSpace,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    seed: int,
    **settings: Any,
) -> Proposer:
    """A proposer by its name; its module is imported now and not before.

    Raises:
        SpecError: no such name, or the proposer cannot work with these.
    """
    if name not in PROPOSERS:
        raise SpecError(f"proposer: unknown name {name!r}{nearest(name, PROPOSERS)} (allowed: {', '.join(PROPOSERS)})")
    module, attribute = PROPOSERS[name].split(":")
    make = getattr(import_module(module), attribute)
    found: Proposer = made(make, "proposer", name, settings, space, objectives, constraints, seed)
    return found
