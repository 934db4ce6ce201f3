"""The ridge regression that refits one layer on what it reads."""

from __future__ import annotations

import torch
from torch import Tensor

from automc.operators.moments import damped
from automc.operators.positions import Plain, filters, read, set_filters
from automc.operators.recalibrate import check_finite


def refit(layer: Plain, x: Tensor, rows: Tensor, wanted: Tensor, ridge: float, offset: bool = False) -> None:
    """Change the weights, in place, so that what the layer gives comes close to what is wanted.

    For the rows X that its filters stand on and its filters W (one row an output), they become W + D with

        D = argmin |wanted - X (W + D)^T|^2 + ridge * mean(diag(X^T X)) * |D|^2

    so that what the inputs do not tell stays as it was. With a bias, X and wanted are centred and the bias takes the
    difference of the means.

    Args:
        x: the layer's input. rows: which places of its output (see ``positions.drawn``).
        wanted: shape (rows, channels). ridge: above 0; raised tenfold until X^T X is definite.
        offset: whoever reads the output takes its mean away, so that only what is around the mean is fitted.

    Raises:
        CompressionError: a number in x or wanted is NaN or infinite.
    """
    weight, bias = filters(layer), layer.bias
    sums = _Sums(weight, wanted if bias is None else wanted - bias)
    for part, numbers in read(layer, x, rows):
        sums.add(part, numbers)
    change, mean = sums.solved(ridge, offset or bias is not None)
    set_filters(layer, weight + change.to(weight.dtype))
    if bias is not None:
        bias += mean.flatten().to(bias.dtype)


class _Sums:
    """X^T X and X^T R, with the sums of their columns, for the rest R = wanted - X W^T; float64, by group."""

    def __init__(self, weight: Tensor, wanted: Tensor) -> None:
        groups, outputs, length = weight.shape
        self._weight, self._wanted = weight, torch.unflatten(wanted, 1, (groups, -1)).movedim(1, 0)
        self._squares = torch.zeros(groups, length, length, dtype=torch.float64, device=weight.device)
        self._products = self._squares.new_zeros(groups, length, outputs)
        self._reads, self._rests = self._squares.new_zeros(groups, length), self._squares.new_zeros(groups, outputs)

    def add(self, part: slice, numbers: Tensor) -> None:
        rest = self._wanted[:, part] - numbers @ self._weight.mT
        self._squares += numbers.mT @ numbers
        self._products += numbers.mT @ rest
        self._reads += numbers.sum(1)
        self._rests += rest.sum(1)

    def solved(self, ridge: float, centred: bool) -> tuple[Tensor, Tensor]:
        """D, shape (groups, outputs, length), and the mean of what is left of R, (groups, outputs)."""
        count = self._wanted.shape[1]
        squares, products = self._squares, self._products
        if centred:
            squares = squares - self._reads.unsqueeze(2) * self._reads.unsqueeze(1) / count
            products = products - self._reads.unsqueeze(2) * self._rests.unsqueeze(1) / count
        check_finite("reconstruct: sequential", torch.stack([squares.sum(), products.sum()]))
        factor, failed = torch.linalg.cholesky_ex(damped(squares, ridge))
        while bool(failed.any()):  # sums in single precision, and a ridge below their rounding
            ridge = 10 * ridge
            factor, failed = torch.linalg.cholesky_ex(damped(squares, ridge))
        change = torch.cholesky_solve(products, factor).mT
        return change, (self._rests - (change @ self._reads.unsqueeze(2)).squeeze(2)) / count
