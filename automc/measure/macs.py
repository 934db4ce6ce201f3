"""Multiply-accumulates of torch's functions and modules: two tables of handlers, in the manner of fvcore.

One by function (every convolution, matrix product and attention that runs, whether a module or plain Python calls it)
and one by module, for those whose work happens inside one fused call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def of_function(function: Any) -> Callable[..., int] | None:
    """What counts a call of this function: ``handler(output, *args, **kwargs)``; None where nothing is multiplied."""
    return _FUNCTIONS.get(function)


def of_module(module: nn.Module) -> Callable[..., int] | None:
    """What counts a call of this module as a whole: ``handler(module, output, *args, **kwargs)``, or None."""
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
