"""A trained ResNet-20 on real pictures: what compression without training costs, and what recalibration gives back."""

import io
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nets import ResNet

from automc.core.policy import Policy, Site
from automc.operators import ORDER
from automc.operators.base import Compression, compress
from automc.operators.layers import trace
from automc.operators.recalibrate import recalibrate

SHARED = Path(os.environ.get("AUTOMC_SHARED") or Path(__file__).resolve().parents[2].parent / "shared")
WEIGHTS = SHARED / "models" / "cifar10_resnet20.safetensors"
PICTURES = SHARED / "data" / "cifar10-jpeg" / "train.parquet"
pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not (WEIGHTS.exists() and PICTURES.exists()), reason="no shared weights and pictures here"),
]
COUNT = 500  # of the search split; one standard error of the accuracies below is at most 0.022


def pictures(first, count):
    parquet, image = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("PIL.Image")
    rows = parquet.read_table(PICTURES).slice(first, count).to_pylist()
    raw = np.stack([np.asarray(image.open(io.BytesIO(row["img"]["bytes"])).convert("RGB")) for row in rows])
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    inputs = (torch.from_numpy(raw).permute(0, 3, 1, 2).float() / 255 - mean) / std
    return inputs, torch.tensor([row["label"] for row in rows])


@pytest.fixture(scope="module")
def search():
    return pictures(45_000, COUNT)


@pytest.fixture(scope="module")
def state():
    load = pytest.importorskip("safetensors.torch").load_file
    model = ResNet()
    missing = model.load_state_dict(load(WEIGHTS), strict=False)
    assert all(key.endswith("num_batches_tracked") for key in missing.missing_keys)
    assert not missing.unexpected_keys
    model.eval()
    inputs, _ = pictures(0, 256)
    return Compression(model, model, trace(model, inputs), inputs)


def top1(model, search):
    inputs, targets = search
    with torch.no_grad():
        right = [model(x).argmax(1) == y for x, y in zip(inputs.split(100), targets.split(100), strict=True)]
    return torch.cat(right).float().mean().item()


def halves(state):
    groups = [group.name for group in state.trace.table.groups if group.name.endswith(".conv1")]
    return {Site("prune", name, "prune_ratio"): 0.5 for name in groups}


def bits(state, weights, inputs):
    names = [layer.name for layer in state.trace.table.layers]
    return {
        Site("quantize", n, s): v for n in names for s, v in (("weight_bits", weights), ("activation_bits", inputs))
    }


def test_half_of_the_inner_channels_and_what_recalibration_gives_back(state, search):
    after = compress(state, Policy(halves(state)), ORDER)
    assert after.stale
    raw = top1(after.model, search)
    recalibrate(after.model, state.calibration)
    assert raw < 0.3
    assert top1(after.model, search) > 0.5


@pytest.mark.parametrize(("weights", "inputs", "loss"), [(8, 8, 0.01), (6, 8, 0.015), (4, 8, 0.03), (4, 4, 0.08)])
def test_few_bits_without_training(state, search, weights, inputs, loss):
    after = compress(state, Policy(bits(state, weights, inputs)), ORDER)
    assert top1(after.model, search) > top1(state.model, search) - loss


@pytest.mark.parametrize("ranges", ["observed", "original"])
def test_pruning_and_eight_bits_cost_no_more_than_pruning(state, search, ranges):
    """The input ranges are those of the pruned network after recalibration, or of the original's channels that stay:
    rounding adds next to nothing."""
    pruned = compress(state, Policy(halves(state)), ORDER)
    recalibrate(pruned.model, state.calibration)
    joint = compress(replace(state, ranges=ranges), Policy({**halves(state), **bits(state, 8, 8)}), ORDER)
    assert joint.stale is (ranges == "original")  # the pass that observes ranges recalibrates, too
    if joint.stale:
        recalibrate(joint.model, state.calibration)
    assert top1(joint.model, search) > top1(pruned.model, search) - 0.02


@pytest.mark.parametrize(("weights", "loss"), [(8, 0.02), (4, 0.05)])
def test_one_scale_for_a_whole_folded_weight(state, search, weights, loss):
    """Rows that are rounded to nothing have no variance any more; re-estimating batch norm must survive them."""
    names = [layer.name for layer in state.trace.table.layers]
    chosen = {Site("quantize", n, "weight_bits"): weights for n in names}
    chosen |= {Site("quantize", n, "granularity"): "tensor" for n in names}
    after = compress(state, Policy(chosen), ORDER)
    recalibrate(after.model, state.calibration)
    assert top1(after.model, search) > top1(state.model, search) - loss
