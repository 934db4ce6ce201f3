"""Products of kernels against numpy's SVD, tensorly's Tucker and CP, and kernels of known rank."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from automc.operators.low_rank.decompositions import basis, matrix, response_basis, tucker2, two_parts, unfold
from automc.operators.low_rank.polyadic import cp


def kernel(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense(parts):
    """The kernel that a chain stands for: each spatial axis is wide in one part only, so broadcasting composes them."""
    first, *others = (part.weight.numpy() for part in parts)
    for part, weight in zip(parts[1:], others, strict=True):
        first = weight * first if part.groups > 1 else (weight[:, :, None] * first[None]).sum(axis=1)
    return first


def tail(rows, rank):
    return (np.linalg.svd(rows, compute_uv=False)[rank:] ** 2).sum()


SHAPES = [(6, 5), (5, 6, 1, 1), (7, 4, 3), (6, 5, 3, 3), (8, 2, 3, 5), (4, 3, 2, 3, 2)]


@pytest.mark.parametrize("shape", SHAPES)
def test_svd_loses_the_tail_of_the_spectrum(shape):
    """Eckart & Young: the squared error of the best rank-r matrix is the sum of the squares left out."""
    weight, axes = kernel(*shape), len(shape) - 2
    rows = weight.numpy().reshape(shape[0], -1)
    for rank in range(1, min(rows.shape) + 1):
        vectors = basis(matrix(weight, axes)).vectors[:, :rank]
        parts = two_parts(weight, axes, vectors)
        assert [tuple(part.weight.shape) for part in parts] == [
            (rank, *shape[1:]),
            (shape[0], rank, *[1] * axes),
        ]
        # Double precision: 1e-12 of the kernel's square.
        assert ((dense(parts) - weight.numpy()) ** 2).sum() == pytest.approx(tail(rows, rank), abs=1e-12 * rows.size)


@pytest.mark.parametrize("shape", SHAPES[3:])
def test_spatial_loses_the_tail_of_the_reshaped_matrix(shape):
    weight = kernel(*shape)
    n, c, h, *rest = shape
    rows = np.moveaxis(weight.numpy().reshape(n, c, h, -1), 3, 1).reshape(n * int(np.prod(rest)), c * h)
    for rank in range(1, min(rows.shape) + 1):
        parts = two_parts(weight, 1, basis(matrix(weight, 1)).vectors[:, :rank])
        ones = [1] * len(rest)
        assert [tuple(part.weight.shape) for part in parts] == [(rank, c, h, *ones), (n, rank, 1, *rest)]
        assert ((dense(parts) - weight.numpy()) ** 2).sum() == pytest.approx(tail(rows, rank), abs=1e-12 * rows.size)


def test_the_two_factors_are_equally_large_in_every_direction():
    first, last = (part.weight for part in two_parts(kernel(6, 5), 0, basis(kernel(6, 5)).vectors[:, :3]))
    values = np.linalg.svd(kernel(6, 5).numpy(), compute_uv=False)[:3]
    np.testing.assert_allclose(first.norm(dim=1).square(), values, rtol=1e-12)
    np.testing.assert_allclose(last.norm(dim=0).square(), values, rtol=1e-12)


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_data_aware_loses_the_tail_of_the_whitened_matrix(rank):
    """Against the textbook way: a Cholesky factor of X^T X, the SVD of W L, and its inverse."""
    weight = kernel(6, 9)
    x = (kernel(200, 9, seed=1) @ kernel(9, 9, seed=2) + 1).numpy()
    outputs = x @ weight.numpy().T
    found = response_basis(torch.from_numpy(outputs.T @ outputs), 9)
    aware = dense(two_parts(weight, 0, found.vectors[:, :rank]))
    half = np.linalg.cholesky(x.T @ x)
    u, s, v = np.linalg.svd(weight.numpy() @ half, full_matrices=False)
    closed = (u[:, :rank] * s[:rank]) @ v[:rank] @ np.linalg.inv(half)
    np.testing.assert_allclose(aware, closed, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(found.squares, s**2, rtol=1e-8)
    error = ((x @ aware.T - outputs) ** 2).sum()
    plain = dense(two_parts(weight, 0, basis(weight).vectors[:, :rank]))
    assert error == pytest.approx((s[rank:] ** 2).sum(), rel=1e-8)
    assert error < ((x @ plain.T - outputs) ** 2).sum()


def test_data_that_never_varies_is_no_division_by_zero():
    weight, x = kernel(4, 5), np.outer(np.arange(9.0), np.ones(5))
    outputs = x @ weight.numpy().T
    found = response_basis(torch.from_numpy(outputs.T @ outputs), 5)
    aware = dense(two_parts(weight, 0, found.vectors[:, :1]))
    np.testing.assert_allclose(x @ aware.T, outputs, atol=1e-10)


def tucker_of(weight, out_rank, in_rank):
    outs, ins = basis(unfold(weight, 0)).vectors, basis(unfold(weight, 1)).vectors
    return tucker2(weight, outs[:, :out_rank], ins[:, :in_rank])


@pytest.mark.parametrize("shape", [(6, 5, 3, 3), (5, 7, 3), (4, 3, 2, 3, 2)])
def test_tucker_at_full_rank_is_exact(shape):
    weight = kernel(*shape)
    parts = tucker_of(weight, *shape[:2])
    np.testing.assert_allclose(dense(parts), weight.numpy(), atol=1e-12)


@pytest.mark.parametrize(("out_rank", "in_rank"), [(2, 2), (4, 3), (7, 2), (1, 1)])
def test_tucker_is_as_good_as_tensorly(out_rank, in_rank):
    tucker = pytest.importorskip("tensorly.decomposition").partial_tucker
    weight = kernel(8, 6, 3, 3)
    (core, (outs, ins)), _ = tucker(weight.numpy(), rank=[out_rank, in_rank], modes=[0, 1], n_iter_max=100, tol=1e-9)
    theirs = np.einsum("rshw,nr,cs->nchw", core, outs, ins)
    error = np.linalg.norm(dense(tucker_of(weight, out_rank, in_rank)) - weight.numpy())
    # Ours stops after a few sweeps; measured within 1 % even on noise, which has no structure to find.
    assert error <= 1.02 * np.linalg.norm(theirs - weight.numpy())


def test_tucker_finds_a_planted_core():
    weight = torch.einsum("rshw,nr,cs->nchw", kernel(3, 2, 3, 3), kernel(9, 3, seed=1), kernel(7, 2, seed=2))
    np.testing.assert_allclose(dense(tucker_of(weight, 3, 2)), weight.numpy(), atol=1e-11)


def planted(shape, rank, seed=0):
    factors = [kernel(size, rank, seed=seed + axis).numpy() for axis, size in enumerate(shape)]
    letters = "abcde"[: len(shape)]
    return torch.from_numpy(np.einsum(",".join(f"{letter}r" for letter in letters) + "->" + letters, *factors))


@pytest.mark.parametrize(("shape", "rank"), [((8, 7, 3, 3), 1), ((8, 7, 3, 3), 3), ((9, 6, 5), 4), ((6, 5, 3, 1), 2)])
def test_cp_reproduces_a_kernel_of_that_rank(shape, rank):
    weight = planted(shape, rank)
    parts = cp(weight, rank)
    wide = [size for size in shape[2:] if size > 1]
    assert len(parts) == 2 + len(wide)
    assert all(part.weight.shape[1] == 1 and part.groups == rank for part in parts[1:-1])
    # Alternating least squares ends when a sweep gains next to nothing; 1 % of the norm is far below any kept noise.
    assert np.linalg.norm(dense(parts) - weight.numpy()) < 0.01 * weight.norm()


@pytest.mark.parametrize("rank", [2, 6, 12])
def test_cp_is_as_good_as_tensorly(rank):
    parafac = pytest.importorskip("tensorly.decomposition").parafac
    weight = planted((8, 6, 3, 3), 6) + 0.5 * kernel(8, 6, 3, 3, seed=9)
    found = parafac(weight.numpy(), rank, n_iter_max=100, init="random", random_state=0, tol=1e-8)
    theirs = np.einsum("r,ar,br,cr,dr->abcd", found.weights, *found.factors)
    error = np.linalg.norm(dense(cp(weight, rank)) - weight.numpy())
    # Both end in a local minimum that depends on the start.
    assert error <= 1.1 * np.linalg.norm(theirs - weight.numpy())


def test_cp_beyond_the_rank_and_of_nothing_stays_finite():
    weight = planted((4, 4, 3, 3), 1)
    assert np.linalg.norm(dense(cp(weight, 9)) - weight.numpy()) < 0.01 * weight.norm()
    assert (dense(cp(torch.zeros(4, 4, 3, 3, dtype=torch.float64), 3)) == 0).all()


def test_cp_draws_nothing_from_the_global_generator_and_repeats_itself():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, second = (cp(kernel(4, 5, 3, 3), 7) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(first, second, strict=True))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3), st.integers(1, 3), st.integers(1, 8))
def test_any_shape_and_rank_gives_finite_parts_of_that_rank(n, c, h, w, rank):
    assume(h * w > 1)
    weight = kernel(n, c, h, w)
    parts = cp(weight, rank)
    assert parts[0].weight.shape[:2] == (rank, c)
    assert parts[-1].weight.shape[:2] == (n, rank)
    assert np.isfinite(dense(parts)).all()
    # Least squares never ends above the kernel itself.
    assert np.linalg.norm(dense(parts) - weight.numpy()) <= 1.000001 * weight.norm()
