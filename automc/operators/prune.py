"""Structured pruning: output channels of coupled layers go, with the matching inputs of their consumers."""

from __future__ import annotations

import math
from dataclasses import replace

from torch import Tensor

from automc.core.layers import kept_channels
from automc.core.policy import Value
from automc.operators.base import Compression, Settings
from automc.operators.criteria import scores
from automc.operators.groups.slicing import Plan, remove_channels


def prune(state: Compression, settings: Settings) -> Compression:
    """Remove ``prune_ratio`` of the channels of each group, those with the lowest scores of its ``criterion``.

    The number that stays is rounded up (see ``how_many``), and those that stay keep their order. All scores are of
    the original network, so a group's channels depend neither on other groups nor on the order of the operators.

    Settings: see OPERATORS. Realized per group: ``prune_ratio`` (removed / channels), ``channels`` (kept), and
    ``multiple_of`` where the number of kept channels had to be, and is, a multiple of more than 1.

    Raises:
        CompressionError: a criterion cannot judge a group, or the network is not the traced one.
    """
    removed: dict[str, list[int]] = {}
    facts: dict[str, dict[str, Value]] = {}
    for name, chosen in settings.items():
        plan, multiple = state.trace.plans[name], int(chosen["channel_multiple"])
        count = how_many(plan, float(chosen["prune_ratio"]), multiple)
        if count:
            removed[name] = least(scores(state, plan, str(chosen["criterion"])), plan, count)
        kept = plan.channels - count
        facts[name] = {"prune_ratio": count / plan.channels, "channels": kept}
        divisors = [step for step in (math.lcm(plan.multiple, multiple), plan.multiple) if kept % step == 0]
        if divisors and divisors[0] > 1:
            facts[name]["multiple_of"] = divisors[0]
    remove_channels(state.model, state.trace.plans, removed)
    gone = {name: tuple(channels) for name, channels in removed.items()}
    return replace(state.with_realized(facts), stale=state.stale or bool(removed), removed={**state.removed, **gone})


def how_many(plan: Plan, ratio: float, multiple: int = 1) -> int:
    """How many of a group's channels go.

    What stays is rounded up (see ``core.layers.kept_channels``) to a multiple of ``multiple`` and of the group's cells,
    whose layers must lose equally many each.

    Args:
        ratio: in [0, 1). multiple: at least 1.
    """
    return plan.channels - kept_channels(plan.channels, ratio, math.lcm(plan.multiple, multiple))


def least(scores: Tensor, plan: Plan, count: int) -> list[int]:
    """The ``count`` channels with the lowest scores, equally many of each cell; among equals the last go first.

    Args:
        scores: shape (channels,).
    """
    values = scores.tolist()
    each = count // plan.multiple
    return sorted(c for cell in plan.members() for c in sorted(cell, key=lambda c: (values[c], -c))[:each])
