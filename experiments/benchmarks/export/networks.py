"""The networks that exports are shown on, trained here where no trained weights are at hand.

    python experiments/benchmarks/export/networks.py

Weights go to ``weights/`` beside this file (not kept in the repository) and are used again. A transformer block and an
LSTM read the 8x8 digits by rows; MobileNetV2 learns from a part of CIFAR-10 for a few epochs: what its exports show is
that they equal what was searched, not how good the network is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from automc.core.study import Part
from automc.evaluation.augment import shift
from automc.evaluation.data import Data, load_data
from automc.evaluation.nets.mobilenet import MobileNetV2

HERE = Path(__file__).resolve().parent
WEIGHTS = HERE / "weights"
BATCH = 64


class Attention(nn.Module):
    """Self-attention with separate projections, as most exporters and pruners know it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        shape = (x.shape[0], x.shape[1], self.heads, -1)
        query, key, value = (part(x).view(shape).transpose(1, 2) for part in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).flatten(2))


class TransformerNet(nn.Module):
    """One pre-norm transformer block over the eight rows of a digit."""

    def __init__(self, width: int = 64, heads: int = 4, classes: int = 10) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.place = nn.Parameter(torch.zeros(1, 8, width))
        self.before, self.between, self.after = (nn.LayerNorm(width) for _ in range(3))
        self.attention = Attention(width, heads)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.squeeze(1)) + self.place
        x = x + self.attention(self.before(x))
        x = x + self.down(F.gelu(self.up(self.between(x))))
        return self.head(self.after(x).mean(1))


class LstmNet(nn.Module):
    """An LSTM over the eight rows of a digit."""

    def __init__(self, width: int = 64, classes: int = 10) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, width, batch_first=True)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x.squeeze(1))[0][:, -1])


def transformer() -> nn.Module:
    return TransformerNet()


def lstm() -> nn.Module:
    return LstmNet()


@dataclass(frozen=True)
class Training:
    """How a network is trained here: its data, on how many inputs of the train split, how often, how fast."""

    make: Callable[[], nn.Module]
    data: Part
    inputs: int
    epochs: int
    rate: float


DIGITS = Part("digits")
SHARED = HERE.parents[3] / "shared"
CIFAR = Part(
    "parquet",
    {
        **{split: str(SHARED / "data" / "cifar10-jpeg" / f"{split}.parquet") for split in ("train", "test")},
        "search": [45000, 50000],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    },
)
TRAINED = {
    "transformer": Training(transformer, DIGITS, 1_200, 60, 3e-3),
    "lstm": Training(lstm, DIGITS, 1_200, 60, 5e-3),
    "mobilenet_v2": Training(MobileNetV2, CIFAR, 10_000, 4, 3e-3),
}


def train(model: nn.Module, by: Training) -> nn.Module:
    """A seeded run of AdamW under one cycle, pictures shifted by up to an eighth."""
    data: Data = load_data(by.data)
    split, generator = data.split("train"), torch.Generator().manual_seed(0)
    count = min(by.inputs, len(split)) // BATCH * BATCH
    optimizer = torch.optim.AdamW(model.parameters(), by.rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, by.rate, by.epochs * count // BATCH)
    model.train()
    for epoch in range(by.epochs):
        for rows in torch.split(torch.randperm(count, generator=generator), BATCH):
            pictures = shift(split.inputs[rows], max(split.inputs.shape[-1] // 8, 1), generator)
            with torch.autocast("cpu", torch.bfloat16, enabled=by.data is CIFAR):
                answers = model(data.normalise(pictures))
            loss = F.cross_entropy(answers.float(), split.targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if (epoch + 1) % max(by.epochs // 4, 1) == 0:
            print(f"  epoch {epoch + 1} of {by.epochs}: loss {loss.item():.3f}", flush=True)
    return model.eval()


def weights(name: str) -> Path:
    """The weights of one of TRAINED, trained where they are not there yet."""
    path = WEIGHTS / f"{name}.safetensors"
    if not path.exists():
        print(f"training {name}", flush=True)
        torch.manual_seed(0)
        model = train(TRAINED[name].make(), TRAINED[name])
        WEIGHTS.mkdir(exist_ok=True)
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    return path


if __name__ == "__main__":
    for each in TRAINED:
        print(weights(each))
