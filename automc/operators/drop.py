"""Layer removal: whole residual blocks go, and their input is passed on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from automc.core.policy import Value
from automc.operators.base import Compression, Settings
from automc.operators.groups.slicing import Plan
from automc.operators.layers import Trace


class Dropped(nn.Identity):
    """What is left of a block: its first argument is passed on, the others (masks) are not looked at."""

    def forward(self, input: Tensor, *_: Any, **__: Any) -> Tensor:
        return input


def drop(state: Compression, settings: Settings) -> Compression:
    """Take blocks out, so that only their shortcut is left (layer pruning; N2N learning, Ashok et al. 2018).

    Operators that come later do not know the block any more: the plans of ``state.trace`` lose their cuts in it. What
    comes after the sum in a block, a ReLU or a norm, goes with it.

    Settings: see OPERATORS. Realized per block: ``dropped``; per layer in a dropped one: ``dropped``, true.
    """
    facts: dict[str, dict[str, Value]] = {}
    layers = {block.name: block.layers for block in state.trace.table.blocks}
    gone = [name for name, chosen in settings.items() if chosen["dropped"]]
    for name in settings:
        facts |= {target: {"dropped": name in gone} for target in (name, *(layers[name] if name in gone else ()))}
    for name in gone:
        state.model.set_submodule(name, _left_of(state.model.get_submodule(name)))
    trace = Trace(state.trace.table, _without(state.trace.plans, gone))
    return replace(state.with_realized(facts), trace=trace, stale=state.stale or bool(gone))


def _left_of(block: nn.Module) -> Dropped:
    """What takes the block's place; nn.TransformerEncoder asks its first layer which axis is the batch."""
    dropped = Dropped().train(block.training)
    if isinstance(block, nn.TransformerEncoderLayer):
        vars(dropped)["self_attn"] = SimpleNamespace(batch_first=getattr(block.self_attn, "batch_first", False))
    return dropped


def _without(plans: Mapping[str, Plan], gone: list[str]) -> dict[str, Plan]:
    """The plans as they are where these blocks do not exist."""
    inside = tuple(f"{name}." for name in gone)
    return {
        name: replace(plan, cuts=tuple(cut for cut in plan.cuts if not f"{cut.module}.".startswith(inside)))
        for name, plan in plans.items()
    }
