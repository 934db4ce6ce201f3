"""Structured pruning: output channels of coupled layers go, with the matching inputs of their consumers."""

from __future__ import annotations

import math
from dataclasses import replace

from torch import Tensor

from automc.core.policy import Value
from automc.operators.base import Compression, Settings
from automc.operators.importance import CRITERIA
from automc.operators.slicing import Plan, remove_channels


def prune(state: Compression, settings: Settings) -> Compression:
    """Remove ``floor(prune_ratio * channels)`` channels of each group, the least important ones.

    At least one channel stays, and those that stay keep their order. Where a grouped convolution or a group norm
    is involved, its groups must lose equally many, so fewer channels may go than asked; ``realized`` then says
    ``multiple_of``, the number that the kept channels are a multiple of. All scores are taken before anything is
    removed, so a group's channels do not depend on what happens to other groups.

    Settings: see OPERATORS. Realized per group: ``prune_ratio`` (removed / channels), ``channels`` (kept).

    Raises:
        CompressionError: the network is not the traced one.
    """
    removed: dict[str, list[int]] = {}
    facts: dict[str, dict[str, Value]] = {}
    for name, chosen in settings.items():
        plan = state.trace.plans[name]
        count = how_many(plan, float(chosen["prune_ratio"]))
        if count:
            removed[name] = least(CRITERIA[str(chosen["criterion"])](state.model, plan), plan, count)
        facts[name] = {"prune_ratio": count / plan.channels, "channels": plan.channels - count}
        if plan.multiple > 1:
            facts[name]["multiple_of"] = plan.multiple
    remove_channels(state.model, state.trace.plans, removed)
    return replace(state.with_realized(facts), stale=state.stale or bool(removed))


def how_many(plan: Plan, ratio: float) -> int:
    """How many of a group's channels go at this prune ratio, in [0, 1)."""
    wanted = math.floor(ratio * plan.channels + 1e-9)  # so that 0.3 of 10 is 3
    cell = plan.channels // plan.multiple
    return min(wanted // plan.multiple, cell - 1) * plan.multiple


def least(scores: Tensor, plan: Plan, count: int) -> list[int]:
    """The ``count`` channels with the lowest scores, equally many of each cell; among equals the last go first.

    Args:
        scores: shape (channels,).
    """
    values = scores.tolist()
    each = count // plan.multiple
    return sorted(c for cell in plan.members() for c in sorted(cell, key=lambda c: (values[c], -c))[:each])
