"""A quick copy is the copy that the standard library makes."""

import copy

import pytest
import torch
from families import FAMILIES
from nets import ResNet
from torch import nn

from automc.operators.copies import duplicate


def containers(model):
    """Everything that could be shared by mistake: dictionaries, sets and tensors of all modules."""
    for module in model.modules():
        yield from (value for value in module.__dict__.values() if isinstance(value, (dict, set, list)))
        yield from (t for t in (*module._parameters.values(), *module._buffers.values()) if t is not None)


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_and_nothing_shared(family):
    model, _ = FAMILIES[family]()
    ours, theirs = duplicate(model), copy.deepcopy(model)
    assert repr(ours) == repr(theirs)
    mine, wanted, original = ours.state_dict(), theirs.state_dict(), model.state_dict()
    assert mine.keys() == wanted.keys()
    assert all(torch.equal(mine[key], wanted[key]) for key in wanted)
    assert not {mine[key].data_ptr() for key in mine} & {original[key].data_ptr() for key in original}
    assert not {id(value) for value in containers(ours)} & {id(value) for value in containers(model)}
    assert [p.requires_grad for p in ours.parameters()] == [p.requires_grad for p in theirs.parameters()]


class Shared(nn.Module):
    """A layer under two names, one weight in two layers, and two buffers in one storage."""

    def __init__(self):
        super().__init__()
        self.a = self.b = nn.Linear(3, 3)
        self.c = nn.Linear(3, 3)
        self.c.weight = self.a.weight
        self.register_buffer("whole", torch.zeros(4))
        self.register_buffer("part", self.whole[:2])
        self.register_buffer("absent", None)
        self.c.weight.requires_grad_(False)


def test_what_was_shared_inside_stays_shared():
    twin = duplicate(Shared())
    assert twin.a is twin.b
    assert twin.c.weight is twin.a.weight
    assert not twin.c.weight.requires_grad
    twin.whole[0] = 7
    assert twin.part.tolist() == [7, 0]
    assert twin.absent is None


def test_hooks_are_copied_and_new_ones_are_the_copys_own():
    model = nn.Linear(2, 2)
    model.register_forward_hook(lambda module, args, output: output + 1)
    twin = duplicate(model)
    assert torch.equal(twin(torch.ones(1, 2)), model(torch.ones(1, 2)))
    twin.register_forward_hook(lambda module, args, output: output * 0)
    assert twin(torch.ones(1, 2)).abs().sum() == 0 != model(torch.ones(1, 2)).abs().sum()


def test_a_copy_trains_alone():
    model = ResNet(1, 4)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    twin = duplicate(model).train()
    twin(torch.randn(2, 3, 8, 8)).sum().backward()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter -= parameter.grad
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not all(torch.equal(value, before[key]) for key, value in twin.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
