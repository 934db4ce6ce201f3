"""Second-order removal: closed forms, exhaustive search, and the sums of the layers' inputs."""

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

from automc.operators.moments import InputMoments
from automc.operators.sparsity.patterns import NOfM, Unstructured, as_rows, pattern_of
from automc.operators.sparsity.second_order import obs


def problem(seed, rows=2, length=8, groups=1, samples=64):
    """A weight, correlated inputs of shape (groups, samples, length), and their sums."""
    draw = np.random.default_rng(seed)
    mix = draw.normal(size=(groups, length, length)) + np.eye(length)
    inputs = draw.normal(size=(groups, samples, length)) @ mix
    weight = torch.from_numpy(draw.normal(size=(rows, length)))
    return weight, inputs, torch.from_numpy(inputs.swapaxes(1, 2) @ inputs)


def damped(hessian):
    return hessian + 0.01 * np.diag(hessian).mean() * np.eye(len(hessian))


def output_error(new, old, inputs):
    """Squared change of the outputs; rows are split among the groups."""
    change = (new - old).numpy().reshape(len(inputs), -1, inputs.shape[2])
    return (np.einsum("gsl,grl->gsr", inputs, change) ** 2).sum()


@pytest.mark.parametrize("seed", range(5))
def test_removing_one_weight_is_the_surgeons_closed_form(seed):
    weight, _, sums = problem(seed)
    new, mask = obs(weight, sums, Unstructured(1 / 16))
    inverse = np.linalg.inv(damped(sums[0].numpy()))
    costs = weight.numpy() ** 2 / np.diag(inverse)
    row, q = np.unravel_index(costs.argmin(), costs.shape)
    wanted = weight.numpy().copy()
    wanted[row] -= wanted[row, q] / inverse[q, q] * inverse[:, q]
    assert np.argwhere(~mask.numpy()).tolist() == [[row, q]]
    # Conjugate gradients end after at most as many steps as there are weights in a row: only rounding is left.
    np.testing.assert_allclose(new.numpy(), wanted, rtol=1e-7, atol=1e-9)
    assert new[row, q] == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_what_stays_solves_the_least_squares_problem(seed):
    weight, _, sums = problem(seed, rows=6, length=10, groups=2)
    new, mask = obs(weight, sums, Unstructured(0.6))
    for row in range(6):
        hessian, kept = damped(sums[row // 3].numpy()), mask[row].numpy()
        wanted = np.linalg.solve(hessian[np.ix_(kept, kept)], hessian[kept] @ weight[row].numpy())
        np.testing.assert_allclose(new[row, mask[row]].numpy(), wanted, rtol=1e-6, atol=1e-8)
    assert (new[~mask] == 0).all()
    assert (~mask).sum() == 36


def best_of_all(weight, sums, masks):
    """Least damped error over the masks, each with its least-squares weights."""
    hessian, old = damped(sums[0].numpy()), weight.numpy().ravel()
    whole = np.kron(np.eye(len(weight)), hessian)
    least = np.inf
    for kept in masks:
        gone = np.setdiff1d(np.arange(old.size), kept)
        # The error of the best refit is the Schur complement at the removed weights.
        inner = whole[np.ix_(kept, gone)]
        schur = whole[np.ix_(gone, gone)] - inner.T @ np.linalg.solve(whole[np.ix_(kept, kept)], inner)
        least = min(least, old[gone] @ schur @ old[gone])
    return least


def damped_error(new, old, sums):
    change = (new - old).numpy()
    return ((change @ damped(sums[0].numpy())) * change).sum()


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
def test_near_the_best_of_all_masks(pattern):
    ratios, by_size = [], []
    for seed in range(10):
        weight, _, sums = problem(seed, rows=1, length=12)
        if pattern == "2:4":
            groups = [[(a + 4 * g, b + 4 * g) for a, b in combinations(range(4), 2)] for g in range(3)]
            masks = [[*x, *y, *z] for x in groups[0] for y in groups[1] for z in groups[2]]
        else:
            masks = [list(kept) for kept in combinations(range(12), 6)]
        least = best_of_all(weight, sums, masks)
        new, mask = obs(weight, sums, pattern_of(pattern, 0.5))
        assert mask.sum() == 6
        ratios.append(damped_error(new, weight, sums) / least)
        largest = pattern_of(pattern, 0.5).of_rows(weight.abs())[0].nonzero().flatten().tolist()
        by_size.append(best_of_all(weight, sums, [largest]) / least)
    assert min(ratios) > 1 - 1e-9  # nothing is better than the best
    # The inputs are strongly correlated. Greedy removal is not the best (1.43 times its error with 2:4), but nearer
    # than the best refit of the largest weights (1.78 times).
    assert geometric(ratios) < 1.5
    assert geometric(ratios) < 0.85 * geometric(by_size)


def geometric(values):
    return np.exp(np.mean(np.log(values)))


@pytest.mark.parametrize("name", ["unstructured", "block_1x4", "block_4x1", "2:4", "1:4"])
def test_outputs_change_less_than_by_magnitude_alone(name):
    for seed in range(10):
        weight, inputs, sums = problem(seed, rows=8, length=16, groups=2)
        pattern = pattern_of(name, 0.5)
        new, mask = obs(weight, sums, pattern)
        plain = pattern.of_rows(weight.abs())
        assert mask.sum() == plain.sum()
        by_size = output_error(torch.where(plain, weight, 0.0), weight, inputs)
        assert output_error(new, weight, inputs) < 0.7 * by_size


def test_n_of_m_holds_after_the_exchange():
    weight, _, sums = problem(0, rows=16, length=20)
    _, mask = obs(weight, sums, NOfM(1, 4))
    assert (mask.view(16, 5, 4).sum(dim=2) == 1).all()


def test_inputs_that_are_always_zero_leave_the_choice_to_the_sizes():
    weight = torch.tensor([[3.0, -1.0, 2.0, 0.5]])
    new, mask = obs(weight, torch.zeros(1, 4, 4, dtype=torch.float64), Unstructured(0.5))
    assert mask.tolist() == [[True, False, True, False]]
    assert new.tolist() == [[3.0, 0.0, 2.0, 0.0]]


LAYERS = {
    "linear": (nn.Linear(6, 5), (7, 6)),
    "linear on tokens": (nn.Linear(6, 5), (3, 4, 6)),
    "conv1d": (nn.Conv1d(4, 6, 3, padding=2, dilation=2), (3, 4, 9)),
    "conv2d": (nn.Conv2d(3, 4, (3, 2), stride=2, padding=1), (3, 3, 7, 8)),
    "grouped": (nn.Conv2d(6, 4, 3, groups=2, padding=1), (2, 6, 5, 5)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4, stride=(1, 2)), (2, 4, 6, 6)),
    "same, circular": (nn.Conv2d(2, 3, (3, 4), padding="same", padding_mode="circular"), (2, 2, 5, 6)),
    "reflect": (nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 2, 5, 6)),
    "conv3d": (nn.Conv3d(2, 3, 2, padding=(1, 0, 1)), (2, 2, 4, 3, 4)),
    "no batch axis": (nn.Conv2d(2, 3, 2), (2, 4, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_sums_are_those_of_the_layer_as_a_product(name):
    """For w of any output channel, w^T H w is the sum of its squared outputs, whatever the layer."""
    made, shape = LAYERS[name]
    generator = torch.Generator().manual_seed(0)
    layer = made.double()
    nn.init.zeros_(layer.bias)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    moments = InputMoments(layer, len(x))
    for part in (x,) if name == "no batch axis" else (x[:1], x[1:]):
        moments.add(part)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
        squares = layer(x).square()
    axis = -1 if isinstance(layer, nn.Linear) else 0 if name == "no batch axis" else 1
    wanted = squares.movedim(axis, 0).flatten(1).sum(dim=1)
    rows = as_rows(layer.weight.detach()).view(len(moments.sums), -1, moments.sums.shape[1])
    found = torch.einsum("grl,glk,grk->gr", rows, moments.sums, rows).flatten()
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    diagonal = InputMoments(layer, len(x), diagonal=True)
    diagonal.add(x)
    torch.testing.assert_close(diagonal.sums, moments.sums.diagonal(dim1=1, dim2=2))


def test_large_maps_are_sampled_without_touching_the_global_generator():
    layer, before = nn.Conv2d(1, 1, 1), torch.get_rng_state()
    moments = InputMoments(layer, inputs=32)
    for _ in range(2):
        moments.add(torch.ones(16, 1, 64, 64))
    assert moments.sums.item() == 16384  # one for each row of X
    assert torch.equal(torch.get_rng_state(), before)
