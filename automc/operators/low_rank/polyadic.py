"""The CP decomposition of a kernel, by alternating least squares. Pure functions of float64 tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from automc.operators.low_rank.decompositions import Part, balanced, basis, unfold

_SWEEPS = 100
_SEED = 0
_STILL = 3e-5
"""Least fall of the squared error in a sweep, as a share of it."""
_NOTHING = 1e-14
"""A squared error of so little, as a share of the kernel's square, is rounding."""
_RIDGE = 1e-12
"""Share of the trace added to the diagonal, so that collinear columns leave no singular system."""


def cp(kernel: Tensor, rank: int) -> list[Part]:
    """CP (Lebedev et al. 2015): 1 x 1, depthwise along each spatial axis in turn, 1 x 1.

    Alternating least squares from the leading singular vectors, seeded random ones where an axis has fewer. Axes on
    which the kernel is 1 wide have no part.

    Args:
        kernel: wider than 1 on some spatial axis. rank: at least 1.
    """
    outputs, inputs, *k = kernel.shape
    wide = [axis for axis, size in enumerate(k) if size > 1]
    narrow = tuple(axis for axis in range(len(k)) if axis not in wide)
    out_factor, in_factor, *along = balanced(_factors(kernel.reshape(outputs, inputs, *[k[a] for a in wide]), rank))
    ones = [1] * len(k)
    parts = [Part(in_factor.T.reshape(rank, inputs, *ones).contiguous(), narrow)]
    for axis, factor in zip(wide, along, strict=True):
        shape = [size if axis == other else 1 for other, size in enumerate(k)]
        parts.append(Part(factor.T.reshape(rank, 1, *shape).contiguous(), (axis,), rank))
    return [*parts, Part(out_factor.reshape(outputs, rank, *ones))]


def _factors(tensor: Tensor, rank: int) -> list[Tensor]:
    """One factor an axis, each of shape (size, rank): alternating least squares until the error stands still.

    The tensor meets the factors in two halves, channels and spatial axes: most of the work is then done once for all
    axes of a half.
    """
    factors = _start(tensor, rank)
    grams = [factor.T @ factor for factor in factors]
    halves = ((0, 1), tuple(range(2, tensor.dim())))
    flat, square = tensor.flatten(0, 1).flatten(1), tensor.square().sum()
    before = square
    for _ in range(_SWEEPS):
        for half, other, rows in (halves[0], halves[1], flat), (halves[1], halves[0], flat.T):
            seen = (rows @ _khatri_rao([factors[axis] for axis in other])).reshape(*(tensor.shape[a] for a in half), -1)
            for axis in half:
                products = _contract(seen, {own: factors[own] for own in half}, axis)
                factors[axis] = _solve([gram for own, gram in enumerate(grams) if own != axis], products)
                grams[axis] = factors[axis].T @ factors[axis]
        error = square - 2 * (products * factors[-1]).sum() + torch.stack(grams).prod(dim=0).sum()
        if before - error <= _STILL * before or error <= _NOTHING * square:
            break
        before = error
    return factors


def _contract(seen: Tensor, factors: Mapping[int, Tensor], axis: int) -> Tensor:
    """Column by column the product with all factors but that of ``axis``: shape (its size, rank).

    Args:
        seen: shape (sizes of the factors in order, rank).
    """
    column = max(factors) + 1
    others = [part for own, factor in factors.items() if own != axis for part in (factor, [own, column])]
    found: Tensor = torch.einsum(seen, [*factors, column], *others, [axis, column])
    return found


def _solve(grams: Sequence[Tensor], products: Tensor) -> Tensor:
    """The factor of least squared error, given the others' Gram matrices and the tensor's products with them."""
    system = torch.stack(list(grams)).prod(dim=0)
    system.diagonal().add_((_RIDGE * system.trace()).clamp_min(torch.finfo(system.dtype).tiny))
    factor: Tensor = torch.linalg.solve(system, products.T).T
    return factor


def _khatri_rao(factors: Sequence[Tensor]) -> Tensor:
    """Column by column the outer product of the factors, flat: shape (product of sizes, rank)."""
    product = factors[0]
    for factor in factors[1:]:
        product = (product[:, None, :] * factor[None, :, :]).flatten(0, 1)
    return product


def _start(tensor: Tensor, rank: int) -> list[Tensor]:
    """The leading singular vectors of each unfolding; random columns where an axis has fewer."""
    generator = torch.Generator().manual_seed(_SEED)
    factors = []
    for axis, size in enumerate(tensor.shape):
        vectors = basis(unfold(tensor, axis)).vectors[:, :rank]
        more = torch.randn(size, rank - vectors.shape[1], generator=generator, dtype=tensor.dtype) / size**0.5
        factors.append(torch.cat([vectors, more.to(tensor.device)], dim=1))
    return factors
