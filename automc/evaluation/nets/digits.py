"""A small residual network with a depthwise block for the 8x8 digits of scikit-learn."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from automc.evaluation.nets.mobilenet import InvertedResidual
from automc.evaluation.nets.resnet import BasicBlock

WIDTH = 32


class DigitsNet(nn.Module):
    """A stem, two basic blocks (8x8 at 32 channels, 4x4 at 64) and one inverted residual block at 64 channels.

    Its shortcuts are identities or 1x1 convolutions (option B), so the residual streams can be pruned too.
    Inputs have shape (n, 1, 8, 8).
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, WIDTH, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTH)
        self.block1 = BasicBlock(WIDTH, WIDTH, 1, "B")
        self.block2 = BasicBlock(WIDTH, 2 * WIDTH, 2, "B")
        self.block3 = InvertedResidual(2 * WIDTH, 2 * WIDTH, 1, 2)
        self.linear = nn.Linear(2 * WIDTH, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.block3(self.block2(self.block1(out)))
        return self.linear(F.adaptive_avg_pool2d(out, 1).flatten(1))  # type: ignore[no-any-return]
