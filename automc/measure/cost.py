"""Analytic cost: parameters, multiply-accumulates and bit operations of a network.

Two tables, in the manner of fvcore: one by function (every convolution, matrix product and attention that runs, whether
a module or plain Python calls it) and one by module, for those whose work happens inside one fused call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from automc.errors import ModelError

UNTOUCHED = 32
"""Bits of a weight or input that nothing rounds."""


def costs(model: nn.Module, example: Tensor) -> dict[str, float]:
    """What one input costs.

    ``params``: all parameters of the network, a shared one counted once; masked ones count (a file stores fewer, see
    ``size_bytes``), and numbers that only a live layer's training form or input rounding needs (learned steps) do not.
    ``macs``: multiply-accumulates of convolutions, linear layers, matrix products, attention and recurrent layers;
    norms, activations and sums count nothing, zeros of a mask count as any number. ``bops``: MACs times weight bits
    times activation bits, as the module says they are (``weight_bits``, ``activation_bits``), 32 each where it says
    nothing. A recurrent layer rounds what it is given, not its own state: products with the state, and all of its
    higher layers, count 32 activation bits.

    Args:
        model: not changed; it runs in eval mode. example: shape (n, ...), n >= 1; the cost is divided by n.

    Raises:
        ModelError: the forward fails.
    """
    macs = layer_macs(model, example)
    bops = sum(_bit_operations(model.get_submodule(name), count) for name, count in macs.items())
    helpers = {id(parameter) for part in _helpers(model) for parameter in part.parameters()}
    params = sum(parameter.numel() for parameter in model.parameters() if id(parameter) not in helpers)
    return {"params": float(params), "macs": float(sum(macs.values())), "bops": float(bops)}


def layer_macs(model: nn.Module, example: Tensor) -> dict[str, int]:
    """Multiply-accumulates of one input by the innermost module that causes them, in order of execution.

    A module that runs several times has the sum. Work outside every submodule is under ``""``. Modules that cause none
    are left out.

    Args:
        model: not changed. example: shape (n, ...), n >= 1.

    Raises:
        ModelError: the forward fails.
    """
    counter = _Counter()
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), _watched(model, counter), counter:
            model(example)
    except Exception as error:
        lines = str(error).splitlines() or [""]
        raise ModelError(
            f"model: the forward fails on inputs {tuple(example.shape)} ({type(error).__name__}: {lines[0]})"
        ) from error
    finally:
        for module, mode in training.items():
            module.training = mode
    return {name: round(count / len(example)) for name, count in counter.macs.items()}


def _bit_operations(module: nn.Module, macs: int) -> float:
    weight_bits = getattr(module, "weight_bits", UNTOUCHED)
    activation_bits = getattr(module, "activation_bits", UNTOUCHED)
    rounded = float(macs)
    if isinstance(module, nn.RNNBase):
        sizes = {name: p.numel() for name, p in module.named_parameters(recurse=False) if name.startswith("weight")}
        rounded *= sum(n for name, n in sizes.items() if name.startswith("weight_ih_l0")) / sum(sizes.values())
    return weight_bits * (rounded * activation_bits + (macs - rounded) * UNTOUCHED)


def _helpers(model: nn.Module) -> Iterator[nn.Module]:
    """Parts of live layers that are no part of the network: what a weight takes on its way, and input rounding."""
    for module in model.modules():
        if hasattr(module, "stored") and hasattr(module, "freeze"):
            yield from (p for p in (getattr(module, "ways", None), module.input_quantizer) if isinstance(p, nn.Module))


class _Counter(TorchFunctionMode):
    """Counts the MACs of every function of the table that runs, under the module that is running."""

    def __init__(self) -> None:
        super().__init__()
        self.macs: dict[str, int] = {}
        self.stack: list[str] = [""]
        self.fused = 0

    def add(self, count: int) -> None:
        self.macs[self.stack[-1]] = self.macs.get(self.stack[-1], 0) + count

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        handler = _FUNCTIONS.get(func)
        if handler is not None and not self.fused:
            self.add(handler(output, *args, **kwargs))
        return output


@contextmanager
def _watched(model: nn.Module, counter: _Counter) -> Iterator[None]:
    """Tells the counter which module runs, and counts modules of the module table as a whole."""
    hooks = []

    def enter(name: str, fused: bool) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            counter.stack.append(name)
            counter.fused += fused

        return hook

    def mute(step: int) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            counter.fused += step

        return hook

    def leave(fused: bool) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            counter.fused -= fused
            if fused and not counter.fused:
                counter.add(_fused(module)(module, output, *args, **kwargs))  # type: ignore[misc]
            counter.stack.pop()

        return hook

    helpers = {part for helper in _helpers(model) for part in helper.modules()}
    for name, module in model.named_modules():
        if module in helpers:  # what it computes is part of the form, not of the network
            hooks.append(module.register_forward_pre_hook(mute(1)))
            hooks.append(module.register_forward_hook(mute(-1)))
            continue
        fused = _fused(module) is not None
        hooks.append(module.register_forward_pre_hook(enter(name, fused)))
        hooks.append(module.register_forward_hook(leave(fused), with_kwargs=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _fused(module: nn.Module) -> Callable[..., int] | None:
    return next((handler for kind, handler in _MODULES.items() if isinstance(module, kind)), None)


def _convolution(output: Tensor, input: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> int:
    return output.numel() * prod(weight.shape[1:])


def _transposed(output: Tensor, input: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> int:
    return input.numel() * prod(weight.shape[1:])


def _linear(output: Tensor, input: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> int:
    return output.numel() * weight.shape[-1]


def _product(output: Tensor, a: Tensor, b: Tensor, *args: Any, **kwargs: Any) -> int:
    return output.numel() * a.shape[-1]


def _product_from_right(output: Tensor, b: Tensor, a: Tensor, *args: Any, **kwargs: Any) -> int:
    return output.numel() * a.shape[-1]


def _added_product(output: Tensor, bias: Tensor, a: Tensor, b: Tensor, *args: Any, **kwargs: Any) -> int:
    return output.numel() * a.shape[-1]


def _einsum(output: Tensor, equation: Any, *operands: Any, **kwargs: Any) -> int:
    """Product of all index lengths, for two operands written with letters; other forms count nothing."""
    tensors = operands[0] if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else operands
    if not isinstance(equation, str) or "." in equation or len(tensors) != 2:
        return 0
    terms = equation.replace(" ", "").split("->")[0].split(",")
    lengths = {
        letter: n for term, t in zip(terms, tensors, strict=True) for letter, n in zip(term, t.shape, strict=True)
    }
    return prod(lengths.values())


def _attention(output: Tensor, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> int:
    """QK^T and its product with V; a causal mask does not make it cheaper."""
    scores = prod(query.shape[:-1]) * key.shape[-2]
    return scores * (query.shape[-1] + value.shape[-1])


def _multihead(
    module: nn.MultiheadAttention, output: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
) -> int:
    """Projections of queries, keys, values and result, QK^T, and its product with V."""
    batch_axis = 0 if module.batch_first else 1
    batch = query.shape[batch_axis] if query.dim() == 3 else 1
    targets, sources, width = query.numel() // module.embed_dim, key.numel() // module.kdim, module.embed_dim
    projections = targets * width * 2 * width + sources * width * (module.kdim + module.vdim)
    return int(projections + 2 * targets * (sources // batch) * width)


def _recurrent(module: nn.RNNBase, output: Any, input: Any, *args: Any, **kwargs: Any) -> int:
    """Every weight matrix once a time step (biases and gates count nothing)."""
    steps = input.data.shape[0] if isinstance(input, nn.utils.rnn.PackedSequence) else prod(input.shape[:-1])
    return steps * sum(p.numel() for name, p in module.named_parameters(recurse=False) if name.startswith("weight"))


_MODULES: Mapping[type[nn.Module], Callable[..., int]] = {
    nn.MultiheadAttention: _multihead,
    nn.RNNBase: _recurrent,
}

_FUNCTIONS: Mapping[Any, Callable[..., int]] = {
    **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d), _convolution),
    **dict.fromkeys((torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d), _transposed),
    F.linear: _linear,
    **dict.fromkeys((torch.matmul, torch.mm, torch.bmm, torch.mv), _product),
    **dict.fromkeys((Tensor.matmul, Tensor.mm, Tensor.bmm, Tensor.mv, Tensor.__matmul__), _product),
    Tensor.__rmatmul__: _product_from_right,
    **dict.fromkeys((torch.addmm, torch.baddbmm, Tensor.addmm, Tensor.baddbmm), _added_product),
    torch.einsum: _einsum,
    F.scaled_dot_product_attention: _attention,
}
