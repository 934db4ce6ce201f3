"""size_bytes of random joint policies is the length of the file that export writes, to the byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from automc.core.layers import LayerTable
from automc.core.metrics import Objective
from automc.core.policy import Policy, Site, Value
from automc.core.study import ModelSpec, Part, StudySpec
from automc.evaluation.evaluator import NetworkEvaluator, prepare
from automc.export import packed
from automc.export.formats import PACKED, Source
from automc.operators import ORDER

FORMATS = (
    ("symmetric", 4),
    ("asymmetric", 5),
    ("codebook", 3),
    ("ternary", 2),
    ("power_of_two", 4),
    ("symmetric", 1),
    ("symmetric", 32),
)


@pytest.fixture(scope="module")
def evaluator() -> NetworkEvaluator:
    data = Part("digits", {"search_limit": 40, "calibration": 64})
    return prepare(StudySpec("s", ModelSpec("digits_net"), data, (), ORDER, (Objective("top1"),)))


def drawn(table: LayerTable, seed: int) -> Policy:
    """Every operator somewhere, with every format of weights in turn."""
    rng = np.random.default_rng(seed)
    values: dict[Site, Value] = {
        Site("prune", group.name, "prune_ratio"): float(rng.uniform(0, 0.7)) for group in table.groups
    }
    for block in table.blocks:
        values[Site("drop", block.name, "dropped")] = bool(rng.random() < 0.2)
    for i, layer in enumerate(table.layers):
        if rng.random() < 0.3 and layer.kind in ("conv", "linear"):
            values[Site("factorize", layer.name, "rank_ratio")] = float(rng.uniform(0.2, 0.8))
            continue
        if rng.random() < 0.6:
            values[Site("sparsify", layer.name, "sparsity")] = float(rng.uniform(0.2, 0.9))
            values[Site("sparsify", layer.name, "pattern")] = str(rng.choice(["unstructured", "block_1x4", "2:4"]))
        form, bits = FORMATS[(i + seed) % len(FORMATS)]
        values[Site("quantize", layer.name, "weight_format")] = form
        values[Site("quantize", layer.name, "weight_bits")] = bits
        values[Site("quantize", layer.name, "granularity")] = str(rng.choice(["channel", "tensor"]))
        values[Site("quantize", layer.name, "activation_bits")] = int(rng.choice([32, 8, 4]))
    return Policy(values)


@pytest.mark.parametrize("seed", range(10))
def test_promised_and_written_bytes_are_equal(evaluator: NetworkEvaluator, seed: int, tmp_path: Path) -> None:
    """The file is written from a network built anew; its own header accounts for every byte of it."""
    policy = drawn(evaluator.table, seed)
    promised = evaluator.evaluate(policy, 0, lambda step, value: True).metrics
    packed.write(tmp_path, Source(evaluator.build(policy, 0), evaluator.example))
    written = (tmp_path / PACKED).read_bytes()
    assert promised["size_bytes"] == len(written)
    arrays = safetensors.numpy.load(written)
    assert sum(array.nbytes for array in arrays.values()) + 8 + int.from_bytes(written[:8], "little") == len(written)
