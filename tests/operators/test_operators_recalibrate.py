"""Batch-norm statistics against torch's own and against direct sums."""

import copy

import pytest
import torch
from nets import Mlp, make
from torch import nn

from automc.operators.recalibrate import recalibrate


def test_one_batch_gives_the_exact_statistics_of_the_inputs():
    model, _ = make("conv_bn_relu")
    inputs = torch.randn(40, 3, 8, 8)
    with torch.no_grad():
        seen = model[0][0](inputs)
    recalibrate(model, inputs, batch_size=40)
    norm = model[0][1]
    torch.testing.assert_close(norm.running_mean, seen.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, seen.transpose(0, 1).flatten(1).var(dim=1))


def test_every_norm_of_a_deep_network_as_torch_estimates_it():
    model, _ = make("resnet_b")
    inputs = torch.randn(32, 3, 8, 8)
    theirs = copy.deepcopy(model).train()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics are those of the last batch
    with torch.no_grad():
        theirs(inputs)
    recalibrate(model, inputs, batch_size=32)
    for (name, ours), wanted in zip(model.named_buffers(), theirs.buffers(), strict=True):
        if "running" in name:
            torch.testing.assert_close(ours, wanted)


def test_batches_count_alike_and_are_equally_large():
    norm = nn.BatchNorm1d(3)
    inputs = torch.randn(10, 3) * 2 + 1
    recalibrate(nn.Sequential(norm), inputs, batch_size=4)
    parts = [inputs[:4], inputs[4:7], inputs[7:]]
    torch.testing.assert_close(norm.running_mean, torch.stack([p.mean(0) for p in parts]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([p.var(0) for p in parts]).mean(0))
    assert norm.num_batches_tracked == 3


def test_a_network_with_its_own_statistics_is_a_fixed_point():
    model, inputs = make("conv_bn_relu")
    recalibrate(model, inputs, batch_size=4)
    before = copy.deepcopy(model.state_dict())
    recalibrate(model, inputs, batch_size=4)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, before[key])


def test_only_the_norms_train_and_everything_is_put_back():
    norm, drop = nn.BatchNorm1d(4, momentum=0.3), nn.Dropout(0.9)
    model = nn.Sequential(nn.Linear(3, 4), norm, drop, nn.BatchNorm1d(4, track_running_stats=False))
    model.train()
    norm.eval()
    modes = []
    hooks = [m.register_forward_pre_hook(lambda m, _: modes.append((type(m), m.training))) for m in (norm, drop)]
    weights = [p.clone() for p in model.parameters()]
    recalibrate(model, torch.randn(8, 3), batch_size=8)
    for hook in hooks:
        hook.remove()
    assert modes == [(nn.BatchNorm1d, True), (nn.Dropout, False)]
    assert [m.training for m in model] == [True, False, True, True]
    assert norm.momentum == 0.3
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))


def test_modes_and_momentum_return_when_the_forward_fails():
    norm = nn.BatchNorm1d(4, momentum=0.3)
    model = nn.Sequential(norm, nn.Linear(5, 5)).train()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        recalibrate(model, torch.randn(8, 4), batch_size=8)
    assert norm.momentum == 0.3
    assert model[1].training


def test_without_norms_nothing_runs():
    model = Mlp()
    model.register_forward_pre_hook(lambda *_: pytest.fail("ran"))
    recalibrate(model, torch.randn(4, 3, 8, 8), batch_size=2)
    assert model.training


def test_norms_before_the_first_change_keep_the_statistics_of_the_original():
    original, _ = make("resnet_b")
    inputs = torch.randn(32, 3, 8, 8)
    model = copy.deepcopy(original)
    last = [path for path, module in model.named_modules() if isinstance(module, nn.Conv2d)][-3]
    with torch.no_grad():
        model.get_submodule(last).weight.mul_(0.5)
    every = copy.deepcopy(model)
    recalibrate(every, inputs)
    recalibrate(model, inputs, original=original)
    norms = [path for path, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    before = {path: original.get_submodule(path).running_var for path in norms}
    kept = [path for path in norms if torch.equal(model.get_submodule(path).running_var, before[path])]
    read = dict.fromkeys(norms, False)
    _mark_changed(original, model, inputs, read)
    assert [path for path in norms if not read[path]] == kept
    assert 0 < len(kept) < len(norms)
    assert not any(torch.equal(every.get_submodule(path).running_var, before[path]) for path in norms)


def _mark_changed(original, model, inputs, read):
    """Set for each norm whether it reads something else than in the original, with the statistics of that."""
    seen = {}
    model = copy.deepcopy(model)
    model.load_state_dict({**model.state_dict(), **{k: v for k, v in original.state_dict().items() if "running" in k}})
    for network, see in (
        (original, seen.__setitem__),
        (model, lambda p, x: read.update({p: not torch.equal(x, seen[p])})),
    ):
        hooks = [
            network.get_submodule(path).register_forward_pre_hook(lambda m, a, p=path, s=see: s(p, a[0].clone()))
            for path in read
        ]
        with torch.no_grad():
            network(inputs)
        for hook in hooks:
            hook.remove()


def test_an_unchanged_network_stays_as_it_is_and_is_put_back_into_its_mode():
    original, _ = make("resnet_b")
    model = copy.deepcopy(original).train()
    recalibrate(model, torch.randn(8, 3, 8, 8), original=original)
    assert model.training
    assert all(module.training for module in model.modules())
    for name, tensor in original.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
