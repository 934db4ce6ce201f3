"""Measured dependences against the Jacobian; the joint proof against single ones; ports against indexing."""

import copy
import pickle
import random
from dataclasses import replace

import pytest
import torch
from families import FAMILIES
from hypothesis import given
from hypothesis import strategies as st
from nets import make
from torch import nn
from torch.nn import functional as F

from automc.errors import CompressionError
from automc.operators.groups import ports
from automc.operators.groups.proof import Prover
from automc.operators.groups.slicing import remove_channels
from automc.operators.groups.units import Units, partition
from automc.operators.layers import trace


def mixed(x):
    """Pairs are multiplied, a slice is repeated: 8 channels become 6."""
    return torch.cat([x[..., :3] * x[..., 3:6], x[..., 6:].repeat_interleave(2, -1)[..., 1:]], -1)


def rolled(x):
    return F.relu(x.roll(3, -1)) * torch.linspace(1, 2, 8)


def heads(x):
    """Two heads of two queries, keys, values: 12 channels become 4."""
    q, k, v = x.unflatten(-1, (3, 2, 2)).permute(2, 0, 3, 1, 4)
    return ((q @ k.transpose(-1, -2)).softmax(-1) @ v).transpose(1, 2).flatten(2)


class Between(nn.Module):
    def __init__(self, between, count, after):
        super().__init__()
        self.a, self.b, self.between = nn.Linear(3, count), nn.Linear(after, 2), between

    def forward(self, x):
        return self.b(self.between(self.a(x)))


@pytest.mark.parametrize(("between", "count", "after"), [(mixed, 8, 6), (rolled, 8, 8), (heads, 12, 4)])
def test_blocks_are_the_connected_parts_of_the_jacobian(between, count, after):
    torch.manual_seed(0)
    model = Between(between, count, after).double()
    inputs = torch.randn(2, 4, 3, dtype=torch.float64)
    blocks = partition(Units(model, inputs), ("b", "in"))
    depends = torch.zeros(after, count, dtype=torch.bool)
    for _ in range(5):
        point = torch.randn(1, 4, count, dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(between, point)
        depends |= (jacobian != 0).any(0).any(0).any(1).any(1)
    parts = [{j} for j in range(after)]
    for i in range(count):
        touched = [part for part in parts if any(depends[j, i] for j in part)]
        if touched:
            parts = [part for part in parts if part not in touched] + [set().union(*touched)]
    found = {frozenset(block.nonzero().flatten().tolist()): makers for block, makers in blocks}
    assert set(found) == {frozenset(part) for part in parts}
    for block, makers in found.items():
        wanted = depends[sorted(block)].any(0)
        assert torch.equal(makers.get(("a", "out"), torch.zeros(count, dtype=torch.bool)), wanted)


def test_one_wrong_plan_among_many_is_found():
    model, inputs = make("resnet_b")
    plans = dict(trace(model, inputs).plans)
    prover = Prover(model, inputs)
    assert prover.refused(plans) == {}
    name = "layer2.0.conv1"
    cut = plans[name].cuts[-1]
    assert cut.role == "in"
    wrong = replace(cut, index=(*cut.index[1:], cut.index[0]))
    plans[name] = replace(plans[name], cuts=(*plans[name].cuts[:-1], wrong))
    refused = prover.refused(plans)
    assert set(refused) == {name}
    assert "the rest of the network changes too" in refused[name]
    others = {other: plan for other, plan in plans.items() if other != name}
    assert set(prover.refused({name: plans[name]}, others)) == {name}


def test_a_proof_leaves_no_trace():
    model, inputs = FAMILIES["vit"]()
    plans = trace(model, inputs).plans
    prover = Prover(model, inputs)
    before = copy.deepcopy(prover.model.state_dict())
    assert prover.refused(plans) == {}
    after = prover.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in prover.model.modules())


@given(st.lists(st.integers(-1, 4), min_size=1, max_size=9), st.sampled_from([1, -1, -3]))
def test_a_port_picks_channels_or_zeros(index, axis):
    x = torch.arange(5.0**4).view(5, 5, 5, 5) + 1
    module = nn.Identity()
    ports.after(module, index, axis, outermost=True)
    wanted = torch.stack([torch.zeros(5, 5, 5) if i == ports.GONE else x.select(axis, i) for i in index], axis)
    assert torch.equal(module(x), wanted)
    assert torch.equal(pickle.loads(pickle.dumps(module))(x), wanted)


@pytest.mark.parametrize("family", ["resnet_a", "vit", "lstm"])
def test_a_pruned_network_is_traced_and_pruned_again(family):
    """Ports upon ports: at both times it equals the network in which the readers' weights of the channels are zero."""
    model, inputs = FAMILIES[family]()
    params = [sum(parameter.numel() for parameter in model.parameters())]
    for turn in range(2):
        found = trace(model, inputs)
        plans = {name: plan for name, plan in found.plans.items() if not any(norm(model, cut) for cut in plan.cuts)}
        draw = random.Random(turn)
        halves = {n: [draw.sample(cell, len(cell) // 2) for cell in p.members()] for n, p in plans.items()}
        removed = {name: sorted(c for cell in cells for c in cell) for name, cells in halves.items()}
        masked = copy.deepcopy(model)
        for name, channels in removed.items():
            for cut in plans[name].cuts:
                module, gone = masked.get_submodule(cut.module), torch.tensor(cut.gone(channels))
                for tensor, axis in cut.tensors if cut.role in ("in", "recurrent") else ():
                    getattr(module, tensor).data.index_fill_(axis, gone, 0)
                if cut.role == "in" and not cut.tensors:
                    module.register_forward_pre_hook(
                        lambda _, args, gone=gone: (args[0].index_fill(1, gone, 0),), prepend=True
                    )
        remove_channels(model, plans, removed)
        with torch.no_grad():
            torch.testing.assert_close(model(inputs), masked(inputs), rtol=1e-3, atol=5e-5)  # single precision
        params.append(sum(parameter.numel() for parameter in model.parameters()))
    assert params[2] < params[1] < params[0]


def norm(model, cut):
    """It normalises along the channels, so the network that ignores some is another one."""
    return isinstance(model.get_submodule(cut.module), nn.LayerNorm)


def test_a_feed_forward_behind_code_that_no_graph_follows():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.out = nn.Linear(3, 12), nn.Linear(12, 6), nn.Linear(6, 2)

        def forward(self, x):
            x = F.gelu(self.first(x))
            q, k, v = self.second(x).unbind(-1)[:3]
            return self.out(F.gelu(self.second(x)) + (q * k * v)[..., None])

    torch.manual_seed(0)
    model, inputs = Broken(), torch.randn(4, 5, 3)
    found = trace(model, inputs)
    assert found.table.group("first").consumers == ("second",)
    removed = [0, 1, 5, 6, 7, 11]
    masked = copy.deepcopy(model)
    with torch.no_grad():
        masked.second.weight[:, removed] = 0
        remove_channels(model, found.plans, {"first": removed})
        torch.testing.assert_close(model(inputs), masked(inputs), rtol=1e-4, atol=1e-6)  # single precision


def test_losing_every_head_is_an_error():
    model, inputs = FAMILIES["vit"]()
    found = trace(model, inputs)
    with pytest.raises(CompressionError, match=r"'blocks\.0\.attn\.qkv' is pruned to nothing: all its 48 channels"):
        remove_channels(model, found.plans, {"blocks.0.attn.qkv": range(4)})
