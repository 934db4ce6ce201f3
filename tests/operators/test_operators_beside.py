"""Parameters in no layer, by the layer with whose outputs they go: what is predicted is what the network then has."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from families import FAMILIES
from torch import Tensor, nn

from automc.core.analytic import Analytic
from automc.core.rules import Rule, resolve
from automc.core.space import Choice, Real
from automc.operators import OPERATORS, ORDER
from automc.operators.base import Compression, compress
from automc.operators.canonical import canonical
from automc.operators.layers import trace

PRUNE = Rule("prune", {"prune_ratio": Real(0.0, 0.8, step=0.1)})
DROP = Rule("drop", {"dropped": Choice((False, True))})
NEARLY = {
    "shufflenet": "a consumer behind a shuffle reads parts of several groups",
}


def numbers(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def predicted_and_true(model: nn.Module, inputs: Tensor, *rules: Rule) -> np.ndarray:
    """Parameters of three random policies, shape (3, 2)."""
    model = canonical(model).eval()
    found = trace(model, inputs)
    space, analytic = resolve(rules, ORDER, found.table, OPERATORS), Analytic(found.table)
    assert analytic.original["params"] == numbers(model)
    rows = []
    for seed in range(3):
        policy = space.decode(np.random.default_rng(seed).random(len(space)).tolist())
        made = compress(Compression(model, model, found, inputs[:2]), policy, ORDER).model
        rows.append((analytic.costs(policy)["params"], numbers(made)))
    return np.array(rows)


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - NEARLY.keys()))
def test_of_a_pruned_network_every_parameter_is_predicted(family: str) -> None:
    found = predicted_and_true(*FAMILIES[family](), PRUNE)
    np.testing.assert_allclose(found[:, 0], found[:, 1], rtol=1e-9)
    assert len(set(found[:, 1])) == 3, "the policies differ"


@pytest.mark.parametrize("family", ["resnet_a", "resnet_b", "mobilenet", "vit"])
def test_norms_go_with_the_block_that_is_dropped(family: str) -> None:
    found = predicted_and_true(*FAMILIES[family](), PRUNE, DROP)
    np.testing.assert_allclose(found[:, 0], found[:, 1], rtol=1e-9)


@pytest.mark.parametrize("family", sorted(NEARLY))
def test_of_the_others_the_whole_is_known(family: str) -> None:
    model, inputs = FAMILIES[family]()
    model = canonical(model).eval()
    assert Analytic(trace(model, inputs).table).original["params"] == numbers(model)


def test_an_embedding_for_residual_blocks_is_spread_over_them() -> None:
    model, inputs = FAMILIES["bert"]()
    model = canonical(model).eval()
    table = trace(model, inputs).table
    embeddings = sum(p.numel() for name, p in model.named_parameters() if name in ("tokens.weight", "positions.weight"))
    width = next(group for group in table.groups if len(group.producers) == 4)
    norms = 2 * 16
    assert [table.layer(name).beside - norms for name in width.producers] == [embeddings / 4] * 4


class Tied(nn.Module):
    """A table of words that the last layer reads, too, and a parameter that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 8)
        self.inner = nn.Linear(8, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.words.weight
        self.unused = nn.Parameter(torch.zeros(5))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.inner(self.words(x))))


def test_a_shared_parameter_counts_once_and_an_unused_one_stays() -> None:
    model = Tied().eval()
    table = trace(model, torch.zeros(2, 4, dtype=torch.int64)).table
    assert Analytic(table).original["params"] == numbers(model)
    assert sum(layer.beside for layer in table.layers) == 5
