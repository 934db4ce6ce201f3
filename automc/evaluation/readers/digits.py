"""scikit-learn's bundled scans of handwritten digits: 1,797 images of 8x8 pixels, 0..16, no download."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from automc.evaluation.splits import Facts, Split

SHARES = {"train": (0.0, 0.55), "search": (0.55, 0.75), "test": (0.75, 1.0)}
MEAN, STD = 0.305, 0.376
"""Of the train split, on pixels divided by 16."""


@dataclass(frozen=True)
class DigitsReader:
    """One fixed permutation of the rows, cut at 55% and 75%: 988 to train, 359 to search, 450 to test."""

    def read(self, split: str, limit: int | None) -> Split:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        low, high = (int(share * len(labels)) for share in SHARES[split])
        rows = np.random.RandomState(0).permutation(len(labels))[low:high][:limit]  # frozen stream, unlike default_rng
        inputs = images[rows].reshape(-1, 1, 8, 8).astype(np.uint8)
        return Split(torch.from_numpy(inputs), torch.from_numpy(labels[rows].astype(np.int64)))


def open_digits(settings: Mapping[str, Any], base: Path | None) -> tuple[Facts, DigitsReader]:
    return Facts(10, 16.0, (MEAN,), (STD,), augment="shift"), DigitsReader()  # mirrored, a digit is none
