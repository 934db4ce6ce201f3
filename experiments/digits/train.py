"""Train digits_net on the train split of the digits data and write its bundled weights.

    python experiments/digits/train.py

Seeded and single-threaded: the same figures on the same torch build. The weights are an average over the last
quarter of the run (stochastic weight averaging, Izmailov et al. 2018); the search split picks between a few seeds;
the test split is read once, at the end, for the figure that is printed.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from automc.core.study import Part
from automc.evaluation import nets
from automc.evaluation.augment import shift
from automc.evaluation.data import Data, Split, load_data
from automc.evaluation.nets.digits import DigitsNet

BATCH, LEARNING_RATE, WEIGHT_DECAY, SMOOTHING = 64, 0.1, 5e-4, 0.1
BUNDLED = Path(nets.__file__).parents[1] / "weights" / "digits_net.safetensors"


def train(data: Data, seed: int, epochs: int) -> nn.Module:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    split, model = data.split("train"), DigitsNet()
    average = AveragedModel(model)
    optimizer = torch.optim.SGD(
        model.parameters(), LEARNING_RATE, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, epochs * (len(split) // BATCH), pct_start=0.2, final_div_factor=100
    )
    for epoch in range(epochs):
        order = torch.randperm(len(split), generator=generator)
        for rows in torch.split(order[: len(split) // BATCH * BATCH], BATCH):
            inputs = data.normalise(shift(split.inputs[rows], 1, generator))
            loss = F.cross_entropy(model(inputs), split.targets[rows], label_smoothing=SMOOTHING)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        if epoch >= epochs * 3 // 4:
            average.update_parameters(model)
    inputs = data.normalise(split.inputs)
    update_bn(torch.split(inputs, BATCH), average)
    return average.module.eval()


def top1(model: nn.Module, data: Data, split: Split) -> float:
    with torch.inference_mode():
        return float((model(data.normalise(split.inputs)).argmax(1) == split.targets).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=BUNDLED)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    data, start = load_data(Part("digits")), time.monotonic()
    tried = []
    for seed in range(options.seeds):
        model = train(data, seed, options.epochs)
        with torch.inference_mode():
            search = data.split("search")
            loss = F.cross_entropy(model(data.normalise(search.inputs)), search.targets).item()
        tried.append((top1(model, data, search), -loss, seed, model))
        print(f"seed {seed}: search top1 {tried[-1][0]:.4f}, search loss {loss:.4f}, {time.monotonic() - start:.0f} s")
    found, _, seed, model = max(tried, key=lambda row: row[:2])
    save_file(model.state_dict(), options.output)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"kept seed {seed}: {parameters} parameters, search top1 {found:.4f}")
    print(f"test top1 {top1(model, data, data.split('test')):.4f}")


if __name__ == "__main__":
    main()
