"""A criterion that counts zeros: a channel that is rarely on carries little."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from automc.errors import CompressionError
from automc.operators.base import Compression
from automc.operators.criteria.channels import per_channel, watch
from automc.operators.groups.ports import channel_axis
from automc.operators.groups.slicing import Plan


def apoz(state: Compression, plan: Plan) -> Tensor:
    """One minus the average percentage of zeros of a channel (Hu et al. 2016), in [0, 1].

    Zeros are counted in what the group's consumers read, which is what comes out of the ReLU, pooled if it is pooled:
    the mean over the consumers, the channel's places in each, the positions and the calibration inputs.

    Raises:
        CompressionError: no consumer reads a single zero, so there is no ReLU before them and nothing to compare.
    """
    shares = [
        per_channel(_zeros(state)[cut.module], cut) / torch.tensor([max(len(index), 1) for index in cut.index])
        for cut in plan.consumers
    ]
    zeros = torch.stack(shares).mean(0) if shares else torch.zeros(plan.channels)
    if not bool(zeros.any()):
        raise CompressionError("what reads the channels never sees a zero (no ReLU, or averaged since); choose 'l1'")
    return 1 - zeros


def _zeros(state: Compression) -> dict[str, Tensor]:
    """For every layer that reads some group, the share of zeros in each of its input channels."""
    key = ("prune", "zeros")
    if key not in state.memory:
        counts: dict[str, Tensor] = {}
        seen: dict[str, int] = {}

        def see(path: str, module: nn.Module, x: Tensor) -> None:
            flat = x.movedim(channel_axis(module), 0).flatten(1)
            counts[path] = counts.get(path, torch.zeros(len(flat), dtype=torch.float64)) + (flat == 0).sum(1)
            seen[path] = seen.get(path, 0) + flat.shape[1]

        watch(state, [cut.module for plan in state.trace.plans.values() for cut in plan.consumers], see)
        state.memory[key] = {path: count / seen[path] for path, count in counts.items()}
    held: dict[str, Tensor] = state.memory[key]
    return held
