"""Which channels matter: the criteria of channel pruning, each a function from a group to one score a channel.

All look at the ORIGINAL network, so that a group's scores depend neither on what happens to other groups nor on
the order of the operators. A group's scores are computed once for all trials of an evaluator.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from automc.errors import CompressionError
from automc.operators.base import Compression
from automc.operators.criteria.activations import apoz
from automc.operators.criteria.channels import Criterion
from automc.operators.criteria.gradients import fisher, taylor
from automc.operators.criteria.least_squares import obs, wanda
from automc.operators.criteria.peers import nni_fpgm, nni_l1, nni_l2, tp_fpgm, tp_magnitude
from automc.operators.criteria.reconstruction import lasso, thinet
from automc.operators.criteria.weights import at_random, bn_scale, fpgm, l1, l2
from automc.operators.groups.slicing import Plan

CRITERIA: Mapping[str, Criterion] = {
    "l1": l1,
    "l2": l2,
    "fpgm": fpgm,
    "bn_scale": bn_scale,
    "taylor": taylor,
    "fisher": fisher,
    "apoz": apoz,
    "thinet": thinet,
    "lasso": lasso,
    "wanda": wanda,
    "obs": obs,
    "random": at_random,
    "tp_magnitude": tp_magnitude,
    "tp_fpgm": tp_fpgm,
    "nni_l1": nni_l1,
    "nni_l2": nni_l2,
    "nni_fpgm": nni_fpgm,
}
"""By name. Those of ``gradients``, ``activations``, ``reconstruction`` and ``least_squares`` need inputs."""


def scores(state: Compression, plan: Plan, criterion: str) -> Tensor:
    """One score a channel, shape (channels,), finite; the lowest go first.

    Kept in ``state.memory`` under ``("prune", criterion, group)``: they depend on the original network, the
    calibration inputs and their labels alone.

    Raises:
        CompressionError: the criterion cannot judge this group; the message says what it lacks.
    """
    key = ("prune", criterion, plan.name)
    if key not in state.memory:
        try:
            found = CRITERIA[criterion](state, plan)
        except CompressionError as error:
            raise CompressionError(f"prune({plan.name}).criterion = {criterion!r}: {error}") from error
        if not bool(found.isfinite().all()):
            raise CompressionError(f"prune({plan.name}).criterion = {criterion!r}: its scores are NaN or infinite")
        state.memory[key] = found
    held: Tensor = state.memory[key]
    return held
