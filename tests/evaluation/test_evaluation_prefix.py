"""What is kept of the original network changes no bit of an answer, and is used where it may be."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from automc.core.study import ModelSpec
from automc.errors import SpecError
from automc.evaluation.inference import fast
from automc.evaluation.kept import Kept
from automc.evaluation.prefix import Caching, Prefix
from automc.evaluation.zoo import load_model
from automc.measure.cost import layer_macs

torch.set_num_threads(1)

COUNT, SIZE = 3, 8
LATE = "layer3.2.conv2"


@pytest.fixture(scope="module")
def network():
    example = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return fast(load_model(ModelSpec("resnet20", {"shortcut": "A"})), example)


@pytest.fixture(scope="module")
def batches():
    return torch.randn(COUNT, SIZE, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def prefix_of(model, megabytes=64, example=None):
    example = torch.zeros(1, 3, 32, 32) if example is None else example
    return Prefix(model, layer_macs(model, example), Caching(megabytes))


def changed(model, *paths):
    model = copy.deepcopy(model)
    for path in paths:
        with torch.no_grad():
            model.get_submodule(path).weight.mul_(0.5)
    return model


def asked(prefix, model, batches, split="search"):
    runner = prefix.runner(model, split, len(batches))
    with torch.inference_mode():
        return [runner(number, batch).clone() for number, batch in enumerate(batches)]


def whole(model, batches):
    with torch.inference_mode():
        return [model(batch).clone() for batch in batches]


def equal(some, others):
    return len(some) == len(others) and all(map(torch.equal, some, others))


def test_later_trials_reuse_what_earlier_ones_saw_and_answer_the_same_bits(network, batches):
    prefix = prefix_of(network)
    for factor, path in enumerate([LATE, LATE, "layer3.2.conv1", "linear", LATE]):
        model = changed(network, path)
        with torch.no_grad():
            model.get_submodule(path).weight.add_(0.01 * factor)
        assert equal(asked(prefix, model, batches), whole(model, batches))
    # The frontiers of conv2, conv1 and linear are met for the first time in trials 0, 2 and 3. What conv1 reads was
    # never at a frontier before; what linear reads neither.
    assert prefix.counts["reused"] >= 2 * COUNT
    assert prefix.counts["unproved"] == 0


def test_the_beginning_is_not_computed_again(network, batches):
    prefix = prefix_of(network)
    asked(prefix, changed(network, LATE), batches)
    model, calls = changed(network, LATE), []
    ran = model.conv1._conv_forward
    model.conv1._conv_forward = lambda *args: calls.append(1) or ran(*args)
    asked(prefix, model, batches)
    assert len(calls) == 1  # the whole network for the first batch, as the proof


def test_a_change_at_the_beginning_leaves_nothing_to_keep(network, batches):
    prefix = prefix_of(network)
    model = changed(network, "conv1", LATE)
    assert equal(asked(prefix, model, batches), whole(model, batches))
    assert not prefix.counts
    assert prefix.kept.bytes == 0


def test_a_dropped_block_is_a_change_like_any(network, batches):
    prefix = prefix_of(network)
    for path in ("layer3.2", "layer3.2", "layer3.1"):
        model = copy.deepcopy(network)
        model.set_submodule(path, nn.Identity())
        assert equal(asked(prefix, model, batches), whole(model, batches))
    assert prefix.counts["reused"] >= COUNT
    assert not prefix.counts["unproved"]


def test_splits_are_kept_apart_and_nothing_travels(network, batches):
    prefix = prefix_of(network)
    model = changed(network, LATE)
    asked(prefix, model, batches)
    other = batches.flip(0)
    assert equal(asked(prefix, model, other, "test"), whole(model, other))
    assert prefix.kept.bytes > 0
    sent = pickle.dumps(prefix)
    assert len(sent) < 2 * len(pickle.dumps(network))
    there = pickle.loads(sent)
    assert there.kept.bytes == 0
    assert equal(asked(there, model, batches), whole(model, batches))


class Moody(nn.Module):
    """Does another thing with other inputs."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        y = self.first(x)
        return self.last(self.second(y) if float(y.sum()) > 0 else y)


class InPlace(Moody):
    """Writes into what an earlier layer gave, after another has read it."""

    def forward(self, x):
        y = self.first(x)
        z = self.second(y)
        y.add_(1.0)
        return self.last(F.relu_(z) + y)


class Counting(Moody):
    """Its forward depends on a number that a trace cannot see change."""

    scale = 1

    def forward(self, x):
        return self.last(self.second(self.first(x)) * type(self).scale)


@pytest.mark.parametrize("kind", [Moody, InPlace])
@pytest.mark.parametrize("path", ["second", "last"])
def test_control_flow_and_writing_in_place_keep_their_meaning(kind, path):
    torch.manual_seed(0)
    network, batches = kind().eval(), torch.randn(COUNT, SIZE, 6)
    prefix = prefix_of(network, example=torch.zeros(1, 6))
    for _ in range(3):
        model = changed(network, path)
        assert equal(asked(prefix, model, batches), whole(model, batches))
    assert kind is not Moody or not prefix.counts["reused"]


def test_a_graph_that_answers_otherwise_is_not_used():
    torch.manual_seed(0)
    network, batches = Counting().eval(), torch.randn(COUNT, SIZE, 6)
    prefix = prefix_of(network, example=torch.zeros(1, 6))
    model = changed(network, "last")
    asked(prefix, model, batches)
    Counting.scale = 2
    try:
        assert equal(asked(prefix, model, batches), whole(model, batches))
    finally:
        Counting.scale = 1
    assert prefix.counts["unproved"] == 1


def test_a_hook_inside_is_a_change(network, batches):
    prefix = prefix_of(network)
    asked(prefix, changed(network, LATE), batches)
    model = changed(network, LATE)
    model.layer2.register_forward_hook(lambda module, args, output: output * 2)
    assert equal(asked(prefix, model, batches), whole(model, batches))


def test_what_does_not_fit_is_not_kept(network, batches):
    model = changed(network, LATE)
    for megabytes in (0, 1):
        prefix = prefix_of(network, megabytes)
        for _ in range(2):
            assert equal(asked(prefix, model, torch.cat([batches] * 3)), whole(model, torch.cat([batches] * 3)))
        assert not prefix.counts["reused"]
        assert prefix.kept.bytes == 0


def test_the_least_recently_used_goes_first():
    kept = Kept(100 * 4)
    ten = torch.arange(10.0)
    for name in "abcd":
        kept.put({name: ten}, 0, 2)
        kept.put({name: ten + 1}, 1, 2)
    assert kept.bytes == 80 * 4
    kept.get("a", 0)
    kept.put({"e": torch.zeros(30)}, 0, 1)
    assert kept.get("b", 0) is None
    assert kept.bytes == 90 * 4
    assert torch.equal(kept.get("a", 1), ten + 1)
    kept.get("a", 0).zero_()
    assert torch.equal(kept.get("a", 0), ten)
    kept.put({"f": torch.zeros(51)}, 0, 2)  # two of these would not fit
    assert kept.get("f", 0) is None


def test_a_negative_size_is_refused():
    with pytest.raises(SpecError, match="cache_mb: must be at least 0, not -1"):
        Caching(-1)
