"""Adaptive rounding: a weight goes up or down so that its layer's output changes least (AdaRound, Nagel et al. 2020).

The layer's output error on some inputs X is e G e^T a row, with e the row's rounding error and G = X^T X. So the inputs
are needed once, for G; the search over up and down is arithmetic on the weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from automc.operators.live import LiveLayer
from automc.operators.quantizers import AffineQuantizer, IncrementalQuantizer
from automc.operators.quantizers.rows import along_rows
from automc.operators.windows import windows

_ROWS = 16384
"""About how many input patches the error is measured on; where there are more, every second input counts, and so on."""
_STEPS, _RATE, _REGULAR = 200, 0.05, 5.0
_STRETCH = 1.2  # of the sigmoid, from -0.1 to 1.1, so that it reaches 0 and 1


@torch.no_grad()
def round_adaptively(layer: LiveLayer, x: Tensor) -> None:
    """Move a layer's weights to the codes that suit these inputs best, in place.

    Its quantizer is affine, alone or in an incremental one; scales stay, masked weights stay 0. A row is never worse
    on ``x`` than rounded to nearest.

    Args:
        layer: a convolution or linear layer. x: its inputs, before its own input quantizer.
    """
    way: Any = layer.ways["weight"]
    quantizer, weight = way.quantizer, getattr(layer, "weight")  # noqa: B009  (not every live layer has it)
    grid = quantizer.inner if isinstance(quantizer, IncrementalQuantizer) else quantizer
    assert isinstance(grid, AffineQuantizer)
    kept = torch.ones_like(weight, dtype=torch.bool) if way.mask is None else way.mask
    used = grid.folded(torch.where(kept, weight.detach(), 0.0))
    scale = grid.scale(used, way.mask)
    step = along_rows(scale, weight)
    nearest = grid.codes(used, step)
    exact = used / step
    other = nearest + torch.where(exact < nearest, -1.0, 1.0)
    low, high = (along_rows(torch.as_tensor(bound, dtype=weight.dtype), weight) for bound in grid.bounds())
    free = kept & (other >= low) & (other <= high) & ((exact - nearest).abs() <= 0.5)
    gram = second_moments(layer, layer.input_quantizer(x) if layer.input_quantizer is not None else x)
    flip = best_flips((nearest - exact).flatten(1), (other - nearest).flatten(1), free.flatten(1), gram)
    codes = torch.where(flip.view_as(weight), other, nearest)
    weight.copy_(torch.where(kept, codes * grid.unfolded(step), weight))
    if grid.held is None:
        grid.adopt(grid.folded(torch.where(kept, weight, 0.0)), scale)


def second_moments(layer: Any, x: Tensor) -> Tensor:
    """Mean of x x^T over the patches that the layer's rows are multiplied with, shape (groups, k, k)."""
    x = x if isinstance(layer, nn.Linear) or x.dim() == layer.weight.dim() else x[None]
    each = _patches(layer, x[:1]).shape[1]
    rows = _patches(layer, x[:: max(len(x) * each // _ROWS, 1)])
    return rows.transpose(1, 2) @ rows / rows.shape[1]


def _patches(layer: Any, x: Tensor) -> Tensor:
    """What the rows of the weight are multiplied with, shape (groups, patches, inputs of a group * kernel)."""
    if isinstance(layer, nn.Linear):
        return x.reshape(1, -1, x.shape[-1])
    dims = len(layer.kernel_size)
    x = windows(layer, x)
    x = x.view(len(x), layer.groups, -1, *x.shape[2:])  # (n, groups, inputs, places..., kernel...)
    places = range(3, 3 + dims)
    x = x.permute(1, 0, *places, 2, *range(3 + dims, 3 + 2 * dims))
    return x.flatten(2 + dims).flatten(1, 1 + dims)


def best_flips(error: Tensor, change: Tensor, free: Tensor, gram: Tensor) -> Tensor:
    """Which weights leave the nearest code for the other one, bool, shape (rows, k).

    AdaRound's relaxation by gradient descent, then single flips while they help; a row that did not gain stays as it
    was.

    Args:
        error: code - exact of the nearest codes, shape (rows, k), in codes. change: +1 or -1, to the other code.
        free: which may flip. gram: shape (groups, k, k); the rows fall into the groups in order.
    """
    grams = gram / gram.diagonal(dim1=1, dim2=2).mean().clamp_min(1e-30)
    starts = [_relaxed(error, change, free, grams), torch.zeros_like(free)]
    ends = [_descend(error, change, free, grams, start) for start in starts]
    cost = [_cost(error + change * end, grams) for end in ends]
    return torch.where((cost[0] < cost[1])[:, None], ends[0], ends[1])


def _cost(error: Tensor, gram: Tensor) -> Tensor:
    return (_times(error, gram) * error).sum(dim=1)


def _times(error: Tensor, gram: Tensor) -> Tensor:
    """Each row times its group's matrix."""
    return torch.matmul(error.view(len(gram), -1, error.shape[1]), gram).flatten(0, 1)


def _relaxed(error: Tensor, change: Tensor, free: Tensor, gram: Tensor) -> Tensor:
    """Flips by AdaRound: Adam on V with h = clamp(1.2 sigmoid(V) - 0.1, 0, 1) the share of the way to the other code.

    The regulariser 1 - |2h - 1|^beta drives h to 0 or 1 as beta falls from 20 to 2, after a fifth of the steps.
    """
    start = ((error / -change).clamp(0.0, 1.0) + 0.1) / _STRETCH
    place = torch.logit(start)
    mean, square = torch.zeros_like(place), torch.zeros_like(place)
    for step in range(_STEPS):
        sigmoid = torch.sigmoid(place)
        stretched = sigmoid * _STRETCH - 0.1
        share = torch.where(free, stretched.clamp(0, 1), 0.0)
        slope = _times(error + change * share, gram).mul_(2 * change)  # of e G e^T; cheaper than by autograd
        if step >= _STEPS // 5:
            beta = 20 - 18 * (step / _STEPS - 0.2) / 0.8
            side = 2 * share - 1
            slope -= _REGULAR * 2 * beta * side.sign() * side.abs().pow(beta - 1)
        inside = free & (stretched > 0) & (stretched < 1)
        slope = torch.where(inside, slope * sigmoid * (1 - sigmoid) * _STRETCH, 0.0)
        mean.lerp_(slope, 0.1)  # Adam, without the seconds that importing torch's optimizers takes
        square.lerp_(slope.square(), 0.001)
        place -= _RATE * mean / (1 - 0.9 ** (step + 1)) / ((square / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
    return free & (place > 0)


def _descend(error: Tensor, change: Tensor, free: Tensor, gram: Tensor, flip: Tensor) -> Tensor:
    """Flip in every row the weight that helps most, until none helps, in at most 2 k rounds."""
    rows, flip = torch.arange(len(error), device=error.device), flip.clone()
    group = rows * len(gram) // len(error)
    diagonal = gram.diagonal(dim1=1, dim2=2)[group]
    slope = _times(error + change * flip, gram)
    for _ in range(2 * error.shape[1]):
        way = torch.where(flip, -change, change)
        gain, best = torch.where(free, 2 * way * slope + diagonal, torch.inf).min(dim=1)
        helps = gain < -1e-6
        if not helps.any():
            break
        slope = slope + torch.where(helps, way[rows, best], 0.0)[:, None] * gram[group, best]
        flip[rows, best] ^= helps
    return flip
