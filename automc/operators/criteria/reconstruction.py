"""Criteria that keep the channels from which the next layer's output can be rebuilt.

Without its bias, a consumer's output is a sum over the channels it reads: ``y = sum_c z_c``, where z_c is what channel
c contributes to all outputs, positions and inputs. Both criteria need only ``A[c, d] = <z_c, z_d>``. With the
consumer's unfolded inputs X (one row a position, one column an input channel and place in the kernel) and its weight W,
A sums the entries of ``(X^T X) * (W^T W)`` that belong to c and d, so no z is ever made.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from automc.errors import CompressionError
from automc.operators.base import Compression
from automc.operators.criteria.channels import parameters, per_channel, watch
from automc.operators.groups.slicing import Cut, Plan
from automc.operators.windows import spread, unfolded, windows

POSITIONS = 64
"""At most so many positions of an input count, drawn anew for every batch (ThiNet draws 10 an input)."""


def thinet(state: Compression, plan: Plan) -> Tensor:
    """The turn in which ThiNet removes a channel (Luo et al. 2017), from 0.

    Greedy: next goes the channel with which the squared norm of all that was removed, ``|sum_{c removed} z_c|^2``,
    stays smallest.
    """
    products = _products(state, plan)
    cost, turn = np.diag(products).copy(), np.zeros(plan.channels)
    left = np.ones(plan.channels, dtype=bool)
    for number in range(plan.channels):
        # Among equals the last one, as everywhere in pruning.
        goes = plan.channels - 1 - int(np.argmin(np.where(left, cost, np.inf)[::-1]))
        left[goes], turn[goes] = False, number
        cost += 2 * products[goes]
    return torch.from_numpy(turn)


def lasso(state: Compression, plan: Plan) -> Tensor:
    """The largest penalty at which LASSO still gives the channel a coefficient (He et al. 2017).

    ``min_b 1/2 |y - sum_c b_c z_c|^2 + penalty * |b|_1``, over the whole path of penalties by LARS (scikit-learn). The
    channel selection alone: the weights are not rescaled by b. Channels that contribute nothing score 0.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import lars_path_gram

    products = _products(state, plan)
    live = np.flatnonzero(np.diag(products) > 0)
    scores = np.zeros(plan.channels)
    with warnings.catch_warnings():
        # LARS ends early where the channels left are combinations of those it has; these keep score 0.
        warnings.simplefilter("ignore", ConvergenceWarning)
        penalties, _, path = lars_path_gram(
            products[live].sum(1), products[np.ix_(live, live)], n_samples=1, method="lasso", max_iter=10 * len(live)
        )
    for channel, coefficients in zip(live, path, strict=True):
        used = np.flatnonzero(coefficients)
        scores[channel] = penalties[max(used[0] - 1, 0)] if len(used) else 0.0
    return torch.from_numpy(scores)


def _products(state: Compression, plan: Plan) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """A of the group, shape (channels, channels); each consumer's is divided by its trace, so all have an equal say.

    Raises:
        CompressionError: no convolution, linear or recurrent layer reads the channels, or they contribute nothing.
    """
    key = ("prune", "products")
    if key not in state.memory:
        state.memory[key] = _measure(state)
    total = torch.zeros(plan.channels, plan.channels, dtype=torch.float64)
    for products in state.memory[key].get(plan.name, {}).values():
        total += products / products.trace().clamp_min(torch.finfo(torch.float64).tiny)
    if not bool(total.any()):
        raise CompressionError("the channels contribute nothing to what reads them on the calibration inputs")
    return total.numpy()


def _measure(state: Compression) -> dict[str, dict[str, Tensor]]:
    """A by group and consumer, all in one pass over the calibration inputs."""
    cuts: dict[str, list[tuple[str, Cut]]] = {}
    for plan in state.trace.plans.values():
        for cut in plan.consumers:
            cuts.setdefault(cut.module, []).append((plan.name, cut))
    generator = torch.Generator().manual_seed(0)
    found: dict[str, dict[str, Tensor]] = {}

    def see(path: str, module: nn.Module, x: Tensor) -> None:
        weights = [weight.detach() for weight, _ in parameters(module, cuts[path][0][1])]
        between = _between_inputs(module, x, weights, generator)
        for group, cut in cuts[path]:
            products = per_channel(per_channel(between, cut).T, cut)
            mine = found.setdefault(group, {})
            mine[path] = mine.get(path, torch.zeros_like(products)) + products

    watch(state, cuts, see)
    return found


def _between_inputs(module: nn.Module, x: Tensor, weights: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    """A between the module's input channels, shape (inputs, inputs)."""
    if not isinstance(module, _ConvNd):
        features = _drawn(x.reshape(-1, x.shape[-1]), POSITIONS * len(x), generator)
        return _gram(features) * torch.stack([_gram(weight) for weight in weights]).sum(0)
    weight = weights[0]
    if isinstance(module, _ConvTransposeNd):
        weight = weight.flip(list(range(2, weight.dim()))).transpose(0, 1)
    patches = _patches(module, x, generator).chunk(module.groups, dim=1)
    total = x.new_zeros(module.in_channels, module.in_channels)
    first = 0
    for block, filters in zip(patches, weight.chunk(module.groups), strict=True):
        inputs, size = block.shape[1:]
        entries = _gram(block.flatten(1)) * _gram(filters.flatten(1))
        own = slice(first, first + inputs)
        total[own, own] = entries.view(inputs, size, inputs, size).sum((1, 3))
        first += inputs
    return total


def _gram(matrix: Tensor) -> Tensor:
    return matrix.T @ matrix


def _drawn(of: Tensor, most: int, generator: torch.Generator) -> Tensor:
    return of if len(of) <= most else of[torch.randperm(len(of), generator=generator)[:most]]


def _patches(module: _ConvNd, x: Tensor, generator: torch.Generator) -> Tensor:
    """What the kernel sees at some positions of every input: shape (n * positions, in_channels, kernel size)."""
    if isinstance(module, _ConvTransposeNd):
        ones = (1,) * len(module.kernel_size)
        x = unfolded(spread(module, x), module.kernel_size, ones, module.dilation)
    else:
        x = windows(module, x)
    spatial = x.shape[2 : 2 + len(module.kernel_size)]
    chosen = _drawn(torch.arange(prod(spatial)), POSITIONS, generator)
    places: tuple[Any, ...] = (slice(None), slice(None), *torch.unravel_index(chosen, spatial))
    return x[places].transpose(1, 2).flatten(0, 1).flatten(2)
