"""Traces of the Hessian: the estimate against Hessians that torch computes entry by entry."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import hessian
from torch.func import functional_call

from automc.evaluation.curvature import BATCH, Traces, traces
from automc.evaluation.tasks.teaching import hessian_root


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        return self.head(torch.tanh(self.conv(x)).flatten(1))


def same(outputs: Any) -> Tensor:
    assert isinstance(outputs, Tensor)
    return outputs


def distance(scores: bool, own: Tensor, wanted: Tensor) -> Tensor:
    """The teacher loss, written anew: KL divergence in nats, or the squared distance over the squared size."""
    if scores:
        return (wanted.softmax(1) * (wanted.log_softmax(1) - own.log_softmax(1))).sum(1).mean()
    return (own - wanted).square().sum() / wanted.square().sum()


def mean_diagonal(found: Tensor, size: int) -> float:
    return float(found.reshape(size, size).diagonal().mean())


def exact(model: nn.Module, inputs: Tensor, name: str, scores: bool) -> float:
    """Mean of the Hessian's diagonal for one tensor of weights."""
    own = dict(model.named_parameters())[name].detach()
    wanted = model(inputs).detach()

    def loss(value: Tensor) -> Tensor:
        return distance(scores, functional_call(model, {name: value}, inputs), wanted)

    return mean_diagonal(hessian(loss, own), own.numel())


def estimate(model: nn.Module, layers: list[str], inputs: Tensor, scores: bool = True, vectors: int = 200) -> Traces:
    return traces(model, layers, inputs, same, partial(hessian_root, scores), vectors)


@pytest.fixture(scope="module")
def inputs() -> Tensor:
    return torch.randn(BATCH, 1, 2, 2, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("scores", [True, False])
def test_weights_against_the_whole_hessian(scores: bool, inputs: Tensor) -> None:
    model = Tiny().eval()
    found = estimate(model, ["conv", "head"], inputs, scores)
    for name in ("conv", "head"):
        assert found.weights[name] == pytest.approx(exact(model, inputs, f"{name}.weight", scores), rel=0.15)


def test_inputs_against_the_hessian_of_each_input(inputs: Tensor) -> None:
    model = Tiny().eval()
    found = estimate(model, ["conv"], inputs)
    means = [
        mean_diagonal(hessian(lambda x, own=one: distance(True, model(x[None]), model(own[None]).detach()), one), 4)
        for one in inputs
    ]
    assert found.inputs["conv"] == pytest.approx(sum(means) / len(means), rel=0.1)


def test_all_batches_count_by_their_inputs(inputs: Tensor) -> None:
    model = Tiny().eval()
    more = torch.cat([inputs, 3 * inputs[:4]])
    found = estimate(model, ["head"], more)
    assert found.weights["head"] == pytest.approx(exact(model, more, "head.weight", True), rel=0.15)


def test_the_root_of_the_hessian_with_respect_to_outputs() -> None:
    """Of scores with positions too: shape (n, classes, positions)."""
    outputs = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(0)
    for scores in (True, False):
        drawn = torch.stack([hessian_root(scores, outputs, draw).flatten() for _ in range(3000)])
        wanted = hessian(lambda own, scores=scores: distance(scores, own, outputs), outputs)
        assert torch.allclose(drawn.T @ drawn / len(drawn), wanted.reshape(12, 12), atol=0.02)


def test_the_model_is_left_as_it_was_and_the_vectors_are_always_the_same(inputs: Tensor) -> None:
    model, before = Tiny().eval(), torch.get_rng_state()
    model.conv.weight.requires_grad_(False)
    first, second = (estimate(model, ["conv", "head"], inputs, vectors=2) for _ in range(2))
    assert first == second
    assert torch.get_rng_state().equal(before)
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True]
    assert not model.conv._forward_pre_hooks


def test_recurrent_layers_have_several_weights() -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.body, self.head = nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Any:
            return self.head(self.body(x)[0][:, -1])

    model, inputs = Steps().eval(), torch.randn(8, 3, 4, generator=torch.Generator().manual_seed(0))
    found = estimate(model, ["body", "head"], inputs)
    both = [exact(model, inputs, f"body.weight_{own}_l0", True) for own in ("ih", "hh")]
    assert found.weights["body"] == pytest.approx(sum(both) / 2, rel=0.15)
    assert found.inputs["head"] > 0


def test_a_layer_that_the_outputs_do_not_read_has_none() -> None:
    model = Tiny().eval()
    model.spare = nn.Linear(3, 3)
    assert estimate(model, ["spare"], torch.ones(2, 1, 2, 2), vectors=1) == Traces({"spare": 0.0}, {"spare": 0.0})
