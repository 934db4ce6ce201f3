"""Criteria that estimate how much the loss rises without a channel, from gradients of the original network.

One pass with one input at a time measures both of them for all groups: the square of a mean gradient would vanish at a
minimum, the mean of squares does not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automc.errors import CompressionError
from automc.operators.base import Compression
from automc.operators.copies import duplicate
from automc.operators.criteria.channels import calibration, parameters, per_channel, rows
from automc.operators.groups.slicing import Cut, Plan
from automc.operators.outputs import tensors_of

INPUTS = 256
"""So many of the calibration inputs, the first ones, are enough; each costs a forward and a backward pass."""


def taylor(state: Compression, plan: Plan) -> Tensor:
    """First-order Taylor importance (Molchanov et al. 2019, eq. 8), jointly for all weights that read a channel.

    ``mean_n (sum_s dL_n/dw_s * w_s)^2`` over the inputs n, with s over the weights by which the group's consumers (and
    a recurrent layer itself) multiply the channel: the squared first-order change of the loss when nobody reads it,
    which is what pruning does. The sum over s equals ``sum(activation * gradient)`` of what is read.
    """
    return _measured(state)[plan.name][0]


def fisher(state: Compression, plan: Plan) -> Tensor:
    """Optimal brain damage (LeCun et al. 1990) with the diagonal of the empirical Fisher information as the Hessian.

    ``sum_s 1/2 * w_s^2 * mean_n (dL_n/dw_s)^2``, with s as in ``taylor``.
    """
    return _measured(state)[plan.name][1]


def loss(output: Any, target: Tensor | None) -> Tensor:
    """What the gradients are of, a scalar.

    Cross-entropy where the output is one tensor of shape (n, classes, ...), to integer labels of shape (n, ...) where
    these are given, and else, for shape (n, classes), to the class that the network itself prefers. For every other
    output half the squared norm of all its floating-point tensors: it needs no labels, and its gradient is the output.
    """
    if isinstance(output, Tensor) and output.dim() >= 2 and output.shape[1] > 1:
        fits = target is not None and target.shape == output.shape[:1] + output.shape[2:]
        if fits and target is not None and not target.is_floating_point():
            return F.cross_entropy(output, target.long())
        if output.dim() == 2:
            return F.cross_entropy(output, output.detach().argmax(1))
    return torch.stack([tensor.square().sum() / 2 for tensor in tensors_of(output) if tensor.is_floating_point()]).sum()


def _measured(state: Compression) -> dict[str, tuple[Tensor, Tensor]]:
    """By group: Taylor and Fisher scores."""
    key = ("prune", "gradients")
    if key not in state.memory:
        state.memory[key] = _measure(state)
    held: dict[str, tuple[Tensor, Tensor]] = state.memory[key]
    return held


def _measure(state: Compression) -> dict[str, tuple[Tensor, Tensor]]:
    inputs = calibration(state)[:INPUTS]
    model = duplicate(state.teacher).eval().requires_grad_(False)
    plans = state.trace.plans
    parts = {name: _read(model, plan) for name, plan in plans.items()}
    wanted = list(dict.fromkeys(weight for part in parts.values() for _, weight, _ in part))
    sums = {name: torch.zeros(2, plan.channels, dtype=torch.float64) for name, plan in plans.items()}
    for number, one in enumerate(torch.split(inputs, 1)):
        target = None if state.targets is None else state.targets[number : number + 1]
        gradients = _gradients(model, one, target, wanted)
        for name, part in parts.items():
            damage = [per_channel(_moments(weight * gradients[weight], axis, cut), cut) for cut, weight, axis in part]
            first, second = torch.stack(damage).sum(0).unbind(1)
            sums[name] += torch.stack([first.square(), second / 2])
    return {name: (total[0] / len(inputs), total[1] / len(inputs)) for name, total in sums.items()}


def _read(model: nn.Module, plan: Plan) -> list[tuple[Cut, nn.Parameter, int]]:
    """The weights that multiply the group's channels, with the axis that these lie on; they ask for gradients now."""
    found = []
    for cut in plan.cuts:
        for weight, axis in parameters(model.get_submodule(cut.module), cut) if cut.role in ("in", "recurrent") else ():
            weight.requires_grad_(True)
            found.append((cut, weight, axis))
    return found


def _gradients(
    model: nn.Module, one: Tensor, target: Tensor | None, wanted: list[nn.Parameter]
) -> dict[nn.Parameter, Tensor]:
    with torch.enable_grad():
        found = loss(model(one), target)
        if not found.requires_grad:
            raise CompressionError("the network's outputs have no gradient; choose 'l1' or 'apoz'")
        gradients = torch.autograd.grad(found, wanted, materialize_grads=True)
    return dict(zip(wanted, gradients, strict=True))


def _moments(product: Tensor, axis: int, cut: Cut) -> Tensor:
    """Shape (length, 2): the sum of weight times gradient along the axis, and the sum of their squares."""
    lines = rows(product, axis, cut.blocks)
    return torch.stack([lines.sum(1), lines.square().sum(1)], dim=1)
