"""What names a model and its data, so that a study can tell whether they are still the same."""

from __future__ import annotations

import torch
from torch import Tensor

from automc.evaluation.evaluator import NetworkEvaluator
from automc.evaluation.state import digest

ROWS = 256
"""Inputs of a split that are looked at, evenly spread: all of a large data set would take seconds."""

SPLITS = ("calibration", "search")
"""Those that a study opens anyhow; never the test split."""


def digests(evaluator: NetworkEvaluator) -> dict[str, str]:
    """SHA-256 of the original's weights and buffers by name (``model``), and of rows of the data with the sizes of its
    splits (``data``).
    """
    weights = sorted(evaluator.original().model.state_dict().items())
    named = [part for name, tensor in weights for part in (name, tensor)]
    rows: list[str | Tensor] = []
    for name in SPLITS:
        split = evaluator.data.split(name)
        some = torch.linspace(0, len(split) - 1, min(ROWS, len(split))).long()
        rows += [f"{name} {len(split)}", *(x[some] for x in (split.inputs, split.targets) if isinstance(x, Tensor))]
    return {"model": digest(*named), "data": digest(*rows)}
