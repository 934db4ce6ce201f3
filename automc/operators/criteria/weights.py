"""Criteria that look at the weights alone: norms, distances, batch-norm scales, and chance as a baseline."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.rnn import pad_sequence

from automc.errors import CompressionError
from automc.operators.base import Compression
from automc.operators.criteria.channels import equal_say, parameters, per_channel, rows
from automc.operators.groups.slicing import Cut, Plan


def l1(state: Compression, plan: Plan) -> Tensor:
    """Sum of the absolute weights that produce a channel (Li et al. 2017); every producer has an equal say."""
    return equal_say(((cut, _norms(state.teacher, cut, 1)) for cut in plan.producers), plan.channels)


def l2(state: Compression, plan: Plan) -> Tensor:
    """Euclidean norm of the weights that produce a channel; every producer has an equal say."""
    return equal_say(((cut, _norms(state.teacher, cut, 2)) for cut in plan.producers), plan.channels)


def fpgm(state: Compression, plan: Plan) -> Tensor:
    """Sum of the Euclidean distances from a channel's filter to all others of its layer (He et al. 2019).

    The filters nearest to the geometric median go first: the others can stand in for them. Every producer has an
    equal say.
    """
    return equal_say(((cut, _distances(state.teacher, cut)) for cut in plan.producers), plan.channels)


def bn_scale(state: Compression, plan: Plan) -> Tensor:
    """Absolute scale |gamma| of the norms that the channels go through (Liu et al. 2017, Network Slimming).

    Every batch, instance, group and layer norm of the group with a scale has an equal say.

    Raises:
        CompressionError: there is none.
    """
    found = []
    for cut in plan.cuts:
        module = state.teacher.get_submodule(cut.module)
        if cut.role == "each" and isinstance(module, (_NormBase, nn.GroupNorm, nn.LayerNorm)):
            scale = module.weight
            found += [] if scale is None else [(cut, per_channel(scale.detach().abs(), cut))]
    if not found:
        raise CompressionError("the group's channels go through no norm with a scale; choose 'l1' or 'l2'")
    return equal_say(found, plan.channels)


def at_random(state: Compression, plan: Plan) -> Tensor:
    """Random scores that depend on the group's name alone, so that a policy always means the same network."""
    seed = int.from_bytes(hashlib.sha256(plan.name.encode()).digest()[:8], "big") >> 1
    return torch.rand(plan.channels, generator=torch.Generator().manual_seed(seed)).double()


def _norms(model: nn.Module, cut: Cut, order: int) -> Tensor:
    """Norm of all weights that make a channel, its biases aside."""
    return per_channel(_filters(model, cut).abs().pow(order).sum(1), cut).pow(1 / order)


def _distances(model: nn.Module, cut: Cut) -> Tensor:
    weights = _filters(model, cut)
    present = [channel for channel, index in enumerate(cut.index) if index]
    filters = pad_sequence([weights[list(cut.index[c])].flatten() for c in present], batch_first=True)
    # The direct way, because the one by a matrix product loses small distances to rounding.
    sums = torch.cdist(filters, filters, compute_mode="donot_use_mm_for_euclid_dist").sum(1)
    return sums.new_zeros(len(cut.index)).index_copy(0, torch.tensor(present), sums)


def _filters(model: nn.Module, cut: Cut) -> Tensor:
    """The weights of a producer, shape (cut.length, n), float64: all its matrices and filters side by side."""
    found = parameters(model.get_submodule(cut.module), cut)
    return torch.cat([rows(weight, axis).double() for weight, axis in found if weight.dim() > 1], dim=1)
