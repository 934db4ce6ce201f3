"""Peak memory of activations, counted by hand on small networks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automc.measure.walk import walk


def peak(model: nn.Module, *shape: int) -> int:
    return walk(model, torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))).activation_bytes


class Residual(nn.Module):
    """x: 2 channels of 8x8. The shortcut lives until the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.second, self.out = nn.Conv2d(6, 2, 1), nn.Conv2d(2, 1, 8)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm(self.first(x)))
        return self.out(F.relu(self.second(inner) + x))


def test_a_residual_block() -> None:
    """While ``second`` runs: the shortcut (2), what it reads (6) and what it makes (2), times 64 places, 4 bytes each.

    The norm and the activation functions write over what they read.
    """
    assert peak(Residual(), 2, 8, 8) == (2 + 6 + 2) * 64 * 4


def test_what_is_read_again_cannot_be_written_over() -> None:
    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            half = x * 0.5  # the network's input is not written over: x and half
            root = torch.sigmoid(half)  # half is read again: half and root; x is dead
            return torch.cat([half, root], 1)  # half, root and the result of twice the size

    assert peak(Twice(), 10) == (10 + 10 + 20) * 4


def test_views_take_nothing_and_results_live_to_the_end() -> None:
    class Parts(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            first = x.reshape(2, 8)[:1].flatten() @ torch.eye(8)  # 8 numbers, kept to the end
            second = x.flatten() @ torch.ones(16, 3)  # 3 numbers, beside x and the first
            return first, second

    assert peak(Parts(), 16) == (16 + 8 + 3) * 4


def test_a_chain_in_place_keeps_one_buffer() -> None:
    model = nn.Sequential(nn.Linear(4, 9), nn.ReLU(inplace=True), nn.LayerNorm(9), nn.Hardswish(), nn.Linear(9, 2))
    assert peak(model, 4) == (4 + 9) * 4


@pytest.mark.parametrize("bits", [8, 5, 3])
def test_activations_that_every_reader_rounds_take_their_bits(bits: int) -> None:
    from automc.operators.live_kinds import live
    from automc.operators.quantizers.inputs import InputQuantizer

    model = nn.Sequential(nn.Linear(4, 30), nn.ReLU(), nn.Linear(30, 2))
    layer = live(model[2])
    layer.input_quantizer, layer.activation_bits = InputQuantizer(bits, 0.0, 4.0), bits
    assert peak(model, 4) == max(4 * 4 + (30 * bits + 7) // 8, (30 * bits + 7) // 8 + 2 * 4)


def test_a_second_reader_that_does_not_round_needs_all_of_it() -> None:
    from automc.operators.live_kinds import live
    from automc.operators.quantizers.inputs import InputQuantizer

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.rounds, self.plain = nn.Linear(4, 30), nn.Linear(30, 2), nn.Linear(30, 2)
            live(self.rounds).input_quantizer = InputQuantizer(8, 0.0, 4.0)
            self.rounds.activation_bits = 8

        def forward(self, x: Tensor) -> Tensor:
            inner = self.first(x)
            return self.rounds(inner) + self.plain(inner)

    assert peak(Both(), 4) == max(4 + 30, 30 + 2 + 2) * 4


def test_a_recurrent_layer_and_tokens() -> None:
    """Tokens are 64-bit; the series, the state and the cell state leave the LSTM together."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.rnn = nn.Embedding(20, 6), nn.LSTM(6, 5, batch_first=True)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.rnn(self.table(tokens))[0]

    found = walk(Net(), torch.zeros(1, 7, dtype=torch.int64)).activation_bytes
    assert found == max(7 * 8 + 7 * 6 * 4, (7 * 6 + 7 * 5 + 5 + 5) * 4)


def test_what_python_holds_on_to_does_not_live_longer() -> None:
    class Hoards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(6))

        def forward(self, x: Tensor) -> Tensor:
            kept = [x]
            for layer in self.layers:
                kept.append(layer(kept[-1]))
            return kept[-1]

    assert peak(Hoards(), 8) == 2 * 8 * 4
