"""Networks in the form in which they are measured, against the networks themselves on every family."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from automc.evaluation.inference import fast
from automc.operators.live import LiveLayer
from automc.operators.outputs import tensors_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "operators"))

from families import FAMILIES
from matrix import SETTINGS, original, sites

from automc.core.policy import Policy, Site
from automc.operators import ORDER
from automc.operators.base import compress

torch.set_num_threads(1)

TOLERANCE = 1e-4
"""Of the largest output: float32 summed in another order; see export/bake.py."""


def joint(family, activation_bits=32):
    """Pruned, sparse and of 4-bit weights, everywhere."""
    state = original(family)
    values = {
        Site(operator, target, setting): value
        for operator in ("prune", "sparsify", "quantize")
        for target in sites(state, operator)
        for setting, value in SETTINGS[operator].items()
    }
    values = {site: activation_bits if site.setting == "activation_bits" else value for site, value in values.items()}
    return compress(state, Policy(values), ORDER).model, state.calibration


def answers(model, inputs):
    with torch.inference_mode():
        return [tensor.clone() for tensor in tensors_of(model(inputs))]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_outputs_of_a_compressed_network_stay(family):
    model, inputs = joint(family)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        wanted = tensors_of(model(inputs))
    found = answers(fast(model, inputs), inputs)
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        assert float((ours - theirs).abs().max()) <= TOLERANCE * float(theirs.abs().max())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("family", ["resnet_a", "mobilenet"])
def test_nothing_is_left_to_recompute(family):
    model, inputs = joint(family)
    quick = fast(model, inputs)
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in quick.modules())
    live = [module for module in quick.modules() if isinstance(module, LiveLayer)]
    assert live
    assert all(layer.frozen for layer in live)
    filters = [module.weight for module in quick.modules() if isinstance(module, nn.Conv2d)]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in filters)


def test_rounded_inputs_move_by_whole_steps_at_most_rarely():
    """Folding moves a sum by its last bits; of 8-bit inputs few lie that near to the edge of a step."""
    model, _ = joint("resnet_a", activation_bits=8)
    inputs = torch.randn(200, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    (ours,), (theirs,) = answers(fast(model, inputs[:2]), inputs), answers(model, inputs)
    assert int((ours.argmax(1) != theirs.argmax(1)).sum()) <= 2
    assert float((ours - theirs).abs().median()) <= TOLERANCE * float(theirs.abs().max())


class Views(nn.Module):
    """Reads its features as if their memory were contiguous."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 64, 5)

    def forward(self, x):
        return self.head(self.conv(x).view(len(x), -1))


class Strides(Views):
    """Answers with what lies in memory, in whatever order that is."""

    def forward(self, x):
        y = self.conv(x)
        return self.head(torch.as_strided(y, (len(x), 4 * 64), (4 * 64, 1)))


@pytest.mark.parametrize("kind", [Views, Strides])
def test_a_network_that_needs_contiguous_memory_has_it(kind):
    torch.manual_seed(0)
    model, inputs = kind().eval(), torch.randn(6, 3, 8, 8)
    quick = fast(model, inputs)
    assert quick.conv.weight.is_contiguous()
    with torch.no_grad():
        assert torch.equal(answers(quick, inputs)[0], model(inputs))
