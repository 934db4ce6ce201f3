"""Mean traces of the teacher loss's Hessian, by layer: what HAWQ-V2 (Dong et al. 2020) weighs changes of weights with.

At the original's own weights the teacher loss has no slope, so that its Hessian is ``J^T A J``: J of the outputs with
respect to a layer's weights, A the loss's Hessian with respect to the outputs, which is known (tasks/teaching.py). For
random vectors r whose mean outer product is A, made of signs as Hutchinson's are, the mean of |J^T r|^2 is the trace.
One gradient a vector gives that of all layers at once, never below 0, and what lies between two layers adds no noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from automc.operators.copies import duplicate
from automc.operators.recalibrate import entered

VECTORS = 8
"""Random vectors a batch."""
BATCH = 16
"""Inputs of a batch; each has vectors of its own, so small ones give more of them at the same cost."""

Root = Callable[[Tensor, torch.Generator], Tensor]
"""Of outputs, random vectors of their shape whose mean outer product is A, for the loss as a mean over the batch."""


class Traces(NamedTuple):
    """By layer, the mean of the Hessian's diagonal: over its weights (its parameters with at least two axes), and over
    the numbers that it reads for one of the inputs.
    """

    weights: Mapping[str, float]
    inputs: Mapping[str, float]


def traces(
    model: nn.Module,
    layers: Sequence[str],
    inputs: Tensor,
    compared: Callable[[Any], Tensor],
    root: Root,
    vectors: int = VECTORS,
) -> Traces:
    """The traces of these layers. The vectors are always the same ones.

    Args:
        model: in eval mode, not changed. layers: paths. inputs: normalised, shape (n, ...). compared: what the loss
            compares of the outputs, see Task.
    """
    model = duplicate(model).requires_grad_(False)
    weights = {
        name: [own.requires_grad_(True) for own in model.get_submodule(name).parameters() if own.dim() > 1]
        for name in layers
    }
    of_weights, of_inputs = dict.fromkeys(layers, 0.0), dict.fromkeys(layers, 0.0)
    draw = torch.Generator().manual_seed(0)
    for start in range(0, len(inputs), BATCH):
        batch = inputs[start : start + BATCH]
        with torch.enable_grad(), _nudged(model, layers) as nudges:
            outputs = compared(model(batch))
        if not outputs.requires_grad:
            continue
        share = len(batch) / len(inputs) / vectors
        leaves = [*(own for owns in weights.values() for own in owns), *nudges.values()]
        for _ in range(vectors):
            slopes = iter(
                torch.autograd.grad(outputs, leaves, root(outputs.detach(), draw), True, materialize_grads=True)
            )
            for name, owns in weights.items():
                size = max(sum(own.numel() for own in owns), 1)
                of_weights[name] += share * sum(_square(next(slopes)) for _ in owns) / size
            for name, nudge in nudges.items():
                of_inputs[name] += share * _square(next(slopes)) / nudge[0].numel()
    return Traces(of_weights, of_inputs)


def _square(tensor: Tensor) -> float:
    return float(tensor.square().sum(dtype=torch.float64))


@contextmanager
def _nudged(model: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Adds to what each layer reads zeros to differentiate by; of several uses in one forward, to the first."""
    found: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[..., Any]:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            x = entered(args, kwargs)
            if name in found or not isinstance(x, Tensor) or not x.is_floating_point():
                return None
            found[name] = torch.zeros_like(x).requires_grad_(True)
            moved = x + found[name]
            return ((moved, *args[1:]), kwargs) if args else (args, {**kwargs, "input": moved})

        return hook

    with ExitStack() as hooks:
        for name in layers:
            hooks.enter_context(model.get_submodule(name).register_forward_pre_hook(watch(name), with_kwargs=True))
        yield found
