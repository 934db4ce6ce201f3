"""Layer removal: whole residual blocks go, and their input is passed on."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from automc.core.policy import Value
from automc.operators.base import Compression, Settings


class Dropped(nn.Identity):
    """What is left of a block: its first argument is passed on, the others (masks) are not looked at."""

    def forward(self, input: Tensor, *_: Any, **__: Any) -> Tensor:
        return input


def drop(state: Compression, settings: Settings) -> Compression:
    """Take blocks out, so that only their shortcut is left (layer pruning; N2N learning, Ashok et al. 2018).

    What comes after the sum in a block, a ReLU or a norm, goes with it. The trace stays that of the original: scores
    of channels are taken there, and removing channels skips what is gone.

    Settings: see OPERATORS. Realized per block: ``dropped``; per layer in a dropped one: ``dropped``, true.
    """
    facts: dict[str, dict[str, Value]] = {}
    layers = {block.name: block.layers for block in state.trace.table.blocks}
    gone = [name for name, chosen in settings.items() if chosen["dropped"]]
    for name in settings:
        facts |= {target: {"dropped": name in gone} for target in (name, *(layers[name] if name in gone else ()))}
    for name in gone:
        state.model.set_submodule(name, _left_of(state.model.get_submodule(name)))
    return replace(state.with_realized(facts), stale=state.stale or bool(gone))


def _left_of(block: nn.Module) -> Dropped:
    """What takes the block's place; nn.TransformerEncoder asks its first layer which axis is the batch."""
    dropped = Dropped().train(block.training)
    if isinstance(block, nn.TransformerEncoderLayer):
        vars(dropped)["self_attn"] = SimpleNamespace(batch_first=getattr(block.self_attn, "batch_first", False))
    return dropped
