"""Masks: counted, and compared with numpy."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from automc.operators.offers.sparsify import SPARSIFY
from automc.operators.sparsity.patterns import Blocks, NOfM, Unstructured, as_rows, from_rows, pattern_of

NAMES = SPARSIFY.settings["pattern"].legal.options
SPARSITIES = st.floats(0, 0.99)
# Few different values, so that there are ties.
SCORES = st.tuples(st.integers(1, 9), st.integers(1, 13)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0, 7.0]))
)


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 4), (2, 3, 4, 5), (2, 3, 2, 4, 5)])
def test_rows_have_the_input_channels_side_by_side(shape):
    weight = torch.arange(torch.Size(shape).numel()).view(shape)
    rows = as_rows(weight)
    assert torch.equal(from_rows(rows, shape), weight)
    for out in range(shape[0]):
        wanted = [weight[(out, slice(None), *at)].numpy() for at in np.ndindex(*shape[2:])]
        assert rows[out].tolist() == np.concatenate(wanted).tolist()


@pytest.mark.parametrize("sparsity", [0.1, 0.3, 0.5, 0.9, 0.99])
def test_the_smallest_weights_go(sparsity):
    weight = torch.randn(7, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    mask = Unstructured(sparsity)(weight.abs()).numpy()
    flat = weight.abs().numpy().ravel()
    count = int(np.floor(sparsity * flat.size))
    gone = np.argpartition(flat, count)[:count]  # no two are equal
    assert set(np.flatnonzero(~mask.ravel())) == set(gone)


@given(SCORES, SPARSITIES, SPARSITIES)
def test_unstructured_masks_have_their_count_and_are_nested(scores, one, other):
    low, high = sorted((one, other))
    less, more = (Unstructured(s).of_rows(torch.from_numpy(scores)).numpy() for s in (low, high))
    assert (~less).sum() == np.floor(low * scores.size + 1e-9) < scores.size
    assert (less | ~more).all()
    if not less.all():
        assert scores[~less].max() <= scores[less].min()


def test_of_equal_weights_the_last_go():
    assert Unstructured(0.5).of_rows(torch.ones(2, 3)).tolist() == [[True] * 3, [False] * 3]
    assert NOfM(2, 4).of_rows(torch.ones(1, 4)).tolist() == [[True, True, False, False]]
    assert Blocks(0.5, 1, 4).of_rows(torch.zeros(1, 8)).tolist() == [[True] * 4 + [False] * 4]


@given(SCORES, st.sampled_from([(2, 4), (1, 4), (1, 2), (4, 8)]))
def test_of_every_m_weights_the_n_largest_stay(scores, nm):
    n, m = nm
    mask = NOfM(n, m).of_rows(torch.from_numpy(scores)).numpy()
    for row, kept in zip(scores, mask, strict=True):
        for start in range(0, len(row), m):  # the last group may be short
            group, stay = row[start : start + m], kept[start : start + m]
            assert stay.sum() == min(n, len(group))
            assert stay.all() or group[~stay].max() <= group[stay].min()


def test_a_group_of_a_convolution_lies_at_one_position_of_the_kernel():
    weight = torch.randn(6, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    mask = NOfM(2, 4)(weight.abs())
    assert (mask.view(6, 2, 4, 3, 3).sum(dim=2) == 2).all()


@given(SCORES, SPARSITIES, st.sampled_from([(1, 4), (4, 1), (2, 3)]))
def test_blocks_stay_or_go_as_one_and_the_least_go(scores, sparsity, size):
    mask = Blocks(sparsity, *size).of_rows(torch.from_numpy(scores)).numpy()
    means, kept = [], []
    for top in range(0, scores.shape[0], size[0]):
        for left in range(0, scores.shape[1], size[1]):
            place = np.s_[top : top + size[0], left : left + size[1]]
            assert mask[place].all() or not mask[place].any()
            means.append(scores[place].astype(np.float64).mean())
            kept.append(mask[place].all())
    means, kept = np.array(means), np.array(kept)
    assert (~kept).sum() == np.floor(sparsity * len(kept) + 1e-9) < len(kept)
    # A mean of equal numbers is rounded once here and in single precision there: 1e-6 of it.
    assert kept.all() or means[~kept].max() <= means[kept].min() * (1 + 1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_every_offered_pattern_has_its_sparsity_eases_and_pickles(name):
    scores = torch.rand(16, 24, generator=torch.Generator().manual_seed(0))
    pattern = pickle.loads(pickle.dumps(pattern_of(name, 0.75)))
    assert pattern == pattern_of(name, 0.75)
    gone = (~pattern.of_rows(scores)).float().mean().item()
    assert gone == {"2:4": 0.5}.get(name, 0.75)
    shares = [(~pattern.eased(share / 8).of_rows(scores)).sum().item() for share in range(9)]
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert pattern.eased(1.0) == pattern
