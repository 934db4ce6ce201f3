"""Which channels matter: criteria for pruning, each a function from a group to one score a channel."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from automc.operators.slicing import Cut, Plan

Criterion = Callable[[nn.Module, Plan], Tensor]
"""Scores of shape (channels,), higher is kept first. The model is the one to prune, not yet pruned in this group."""


def l1(model: nn.Module, plan: Plan) -> Tensor:
    """Sum of the absolute weights that produce a channel (Li et al. 2017)."""
    return _norms(model, plan, 1)


def l2(model: nn.Module, plan: Plan) -> Tensor:
    """Euclidean norm of the weights that produce a channel."""
    return _norms(model, plan, 2)


def at_random(model: nn.Module, plan: Plan) -> Tensor:
    """Random scores that depend on the group's name alone, so that a policy always means the same network."""
    seed = int.from_bytes(hashlib.sha256(plan.name.encode()).digest()[:8], "big") >> 1
    return torch.rand(plan.channels, generator=torch.Generator().manual_seed(seed))


CRITERIA: Mapping[str, Criterion] = {"l1": l1, "l2": l2, "random": at_random}


def _norms(model: nn.Module, plan: Plan, order: int) -> Tensor:
    """Sum over the group's producers of the filter norm, each divided by its mean: every producer has an equal say."""
    return torch.stack([_filter_norms(model, cut, order) for cut in plan.producers]).sum(dim=0)


def _filter_norms(model: nn.Module, cut: Cut, order: int) -> Tensor:
    weight = model.get_submodule(cut.module).get_parameter("weight").detach()
    norms = torch.linalg.vector_norm(weight.flatten(1), ord=order, dim=1).cpu()
    scores = torch.stack([norms[list(index)].sum() for index in cut.index])
    return scores / scores.mean().clamp_min(torch.finfo(scores.dtype).tiny)
