"""Multi-head attention as four linear layers, which every operator knows how to treat.

torch's nn.MultiheadAttention keeps its projections in one bare parameter and computes everything in one fused call, so
no operator can reach a part of it. This is the same function (Vaswani et al. 2017), written out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automc.errors import CompressionError


class Attention(nn.Module):
    """Takes the place of an nn.MultiheadAttention, with its call and its results.

    The number of heads is the width of the projections over ``head_dim``: it follows when whole heads are pruned.

    Args:
        source: without ``add_bias_kv`` and ``add_zero_attn``; its parameters are copied.

    Attributes:
        query, key, value, out: the projections. batch_first, dropout: as in torch.
    """

    in_proj_weight = in_proj_bias = None
    """What TransformerEncoderLayer looks at before it takes the fused path that would pass these layers by."""
    _qkv_same_embed_dim = False

    def __init__(self, source: nn.MultiheadAttention) -> None:
        super().__init__()
        weights: Sequence[Tensor] = (source.q_proj_weight, source.k_proj_weight, source.v_proj_weight)
        if source._qkv_same_embed_dim:
            weights = source.in_proj_weight.chunk(3)
        biases = (None,) * 3 if source.in_proj_bias is None else source.in_proj_bias.chunk(3)
        layers = [_linear(weight, bias) for weight, bias in zip(weights, biases, strict=True)]
        self.query, self.key, self.value = layers
        self.out = _linear(source.out_proj.weight, source.out_proj.bias)
        self.head_dim, self.dropout, self.batch_first = source.head_dim, source.dropout, source.batch_first
        self.train(source.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """See nn.MultiheadAttention.forward.

        Args:
            query: shape (batch, targets, width), or (targets, batch, width) where not ``batch_first``, or without a
                batch. key, value: the same with sources.
            key_padding_mask: shape (batch, sources). attn_mask: (targets, sources) or (batch * heads, targets,
                sources). Bool, True is left out; or numbers to add.
            is_causal: a hint that ``attn_mask`` is causal; not needed.

        Returns:
            The result, and the weights, averaged over the heads if asked so, or None.

        Raises:
            CompressionError: ``is_causal`` without a mask.
        """
        if is_causal and attn_mask is None:
            raise CompressionError("attention: is_causal is a hint about attn_mask, and attn_mask is None; give both")
        single, swapped = query.dim() == 2, not self.batch_first and query.dim() == 3
        if single or swapped:
            query, key, value = (x.unsqueeze(0) if single else x.transpose(0, 1) for x in (query, key, value))
        if single and key_padding_mask is not None:
            key_padding_mask = key_padding_mask.unsqueeze(0)
        q, k, v = self._heads(self.query(query)), self._heads(self.key(key)), self._heads(self.value(value))
        mask = self._mask(q, key_padding_mask, attn_mask)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) / math.sqrt(self.head_dim)
            weights = F.dropout((scores if mask is None else scores + mask).softmax(-1), dropout, self.training)
            mixed = weights @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        output = self.out(mixed.transpose(1, 2).flatten(2))
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if single:
            return output.squeeze(0), None if weights is None else weights.squeeze(0)
        return output.transpose(0, 1) if swapped else output, weights

    def _heads(self, x: Tensor) -> Tensor:
        """Shape (batch, steps, width) to (batch, heads, steps, head_dim)."""
        return x.reshape(x.shape[0], x.shape[1], -1, self.head_dim).transpose(1, 2)

    def _mask(self, q: Tensor, padding: Tensor | None, mask: Tensor | None) -> Tensor | None:
        """Both masks as numbers to add to the scores, shape (batch or 1, heads or 1, targets or 1, sources)."""
        parts = []
        if padding is not None:
            parts.append(_added(padding, q.dtype)[:, None, None])
        if mask is not None:
            added = _added(mask, q.dtype)
            parts.append(added[None, None] if mask.dim() == 2 else added.view(*q.shape[:2], *mask.shape[1:]))
        return sum(parts[1:], parts[0]) if parts else None


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    # Made without memory, so that no random number is drawn for weights that are replaced at once.
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight.detach().clone(), weight.requires_grad)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), bias.requires_grad)
    return layer


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(mask, -math.inf)
