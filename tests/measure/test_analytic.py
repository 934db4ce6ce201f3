"""Costs predicted from the layer table against the network that the operators make and the file that export writes."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from automc.core.analytic import Analytic
from automc.core.rules import Rule, resolve
from automc.core.space import Choice, Real
from automc.core.study import ModelSpec
from automc.evaluation.zoo import load_model
from automc.export import packed
from automc.measure.cost import costs
from automc.operators import OPERATORS, ORDER
from automc.operators.base import Compression, compress
from automc.operators.layers import trace

NETS = [("digits_net", {}, (1, 8, 8)), ("resnet20", {"shortcut": "B"}, (3, 32, 32)), ("vgg16_bn", {}, (3, 32, 32))]
CHANNELS = Rule("prune", {"prune_ratio": Real(0, 0.8, step=0.1), "channel_multiple": Choice((1, 4))})
BITS = Rule("quantize", {"weight_bits": Choice((2, 3, 4, 6, 8)), "activation_bits": Choice((4, 8, 32))})
BLOCKS = Rule("drop", {"dropped": Choice((False, True))})
MORE = (Rule("sparsify", {"sparsity": Real(0, 0.8)}), Rule("factorize", {"rank_ratio": Real(0.2, 1.0)}))


class Series(nn.Module):
    """A recurrent layer between two linear ones."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.before = nn.Linear(6, layer.input_size)
        self.layer = layer
        self.after = nn.Linear(layer.hidden_size * (1 + layer.bidirectional), 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.layer(torch.relu(self.before(x)))[0][:, -1])


def compared(name: str, settings, shape, rules, count: int) -> np.ndarray:
    """Predicted over true, shape (policies, 4)."""
    return told_and_true(load_model(ModelSpec(name, settings)).eval(), shape, rules, count)


def told_and_true(model: nn.Module, shape, rules, count: int) -> np.ndarray:
    """The same of any network."""
    inputs = torch.zeros(2, *shape)
    found = trace(model, inputs)
    space, analytic = resolve(rules, ORDER, found.table, OPERATORS), Analytic(found.table)
    draw, rows = np.random.default_rng(0), []
    original = costs(model, inputs[:1])
    for _ in range(count):
        policy = space.decode(draw.random(len(space)).tolist())
        calibration = torch.rand(4, *shape, generator=torch.Generator().manual_seed(0))
        made = compress(Compression(model, model, found, calibration), policy, ORDER).model
        true, guess = costs(made, inputs[:1]), analytic.costs(policy)
        ratios = [guess[f"{key}_ratio"] / (true[key] / original[key]) for key in ("macs", "bops", "params")]
        rows.append([*ratios, guess["size_bytes"] / len(packed.dumps(made, inputs[:1]))])
    return np.array(rows)


@pytest.mark.parametrize(("name", "settings", "shape"), NETS)
def test_channels_and_bits_are_counted_exactly(name, settings, shape):
    found = compared(name, settings, shape, [CHANNELS, BITS], 3)
    np.testing.assert_allclose(found[:, :3], 1.0, rtol=1e-9)  # MACs, BOPs and parameters
    # Codes are counted by the entropy of trained weights; those of a network that was never trained are spread evenly.
    np.testing.assert_allclose(found[:, 3], 1.0, atol=0.06 if name == "digits_net" else 0.1)


@pytest.mark.parametrize(
    "layer",
    [
        nn.LSTM(8, 16, batch_first=True),
        nn.GRU(8, 12, batch_first=True, bias=False),
        nn.LSTM(8, 16, num_layers=3, bidirectional=True, batch_first=True),
    ],
)
def test_recurrent_layers_are_counted_exactly(layer):
    """What they read of their own hidden units falls with the square of what is kept, and is not rounded."""
    found = told_and_true(Series(layer).eval(), (7, 6), [CHANNELS, BITS], 4)
    np.testing.assert_allclose(found[:, :3], 1.0, rtol=1e-9)


def test_dropped_blocks_cost_nothing():
    found = compared(*NETS[1], [BLOCKS, CHANNELS], 3)
    np.testing.assert_allclose(found[:, [0, 2]], 1.0, rtol=1e-9)  # MACs and parameters


def test_sparse_and_factorized_layers_are_near():
    found = compared(*NETS[0], [CHANNELS, BITS, *MORE], 4)
    np.testing.assert_allclose(found, 1.0, atol=0.2)  # a strided layer has its stride in one of two parts


def test_the_original_costs_itself():
    model = load_model(ModelSpec("digits_net")).eval()
    analytic = Analytic(trace(model, torch.zeros(2, 1, 8, 8)).table)
    true = costs(model, torch.zeros(1, 1, 8, 8))
    assert analytic.original["macs"] == true["macs"]
    assert analytic.original["bops"] == true["bops"]
    assert analytic.original["params"] == true["params"]
    assert analytic.original["size_bytes"] == pytest.approx(len(packed.dumps(model, torch.zeros(1, 1, 8, 8))), rel=0.01)
