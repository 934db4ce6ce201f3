"""Layers whose weights stay compressed while they train: every forward takes them through a mask and a quantizer.

The dense float weight stays the parameter, so that repair moves it and the mask and the rounding follow. What a forward
uses is computed anew from it each time, in training and in eval alike, so nothing depends on which forward came last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from automc.core.stored import Stored
from automc.errors import CompressionError

UNTOUCHED = 32
"""Bits of a weight or input that is left as it is."""

Pattern = Callable[[Tensor], Tensor]
"""Chooses which weights stay: scores of the weight's shape in, a bool mask of the same shape out. It pickles."""


class WeightQuantizer(nn.Module):
    """Rounds one weight tensor. A subclass keeps what it learned when it was made (clips, steps, tables) as its own
    buffers or parameters.

    Attributes:
        bits: 1 to 8, of a stored code. per_row: names of those of its tensors that have one entry an output channel.
    """

    bits: int
    per_row: tuple[str, ...] = ()

    def forward(self, weight: Tensor, mask: Tensor | None = None) -> Tensor:
        """The rounded weight; in training with gradients for the weight, and for the quantizer's parameters if any.

        Args:
            weight: shape (rows, ...), 0 where ``mask`` (bool, the same shape) is False. What is returned there is
                not used.
        """
        raise NotImplementedError

    def stored(self, weight: Tensor, mask: Tensor | None = None) -> Stored:
        """Codes whose ``dense()`` is ``forward`` in eval mode, bit for bit, where the mask is True; no mask in it."""
        raise NotImplementedError

    def select(self, axis: int, take: Callable[[Tensor], Tensor]) -> None:
        """Follow a weight that lost channels: ``take`` does to a tensor what was done along this axis."""
        if axis == 0:
            for name in self.per_row:
                old = getattr(self, name)
                new = take(old.detach())
                setattr(self, name, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)

    def advance(self, weight: Tensor, progress: float) -> None:
        """Called before a step of the repair; ``progress`` in [0, 1) is the share of its steps that are done."""

    def fold(self, factor: Tensor) -> None:
        """From now on a batch norm multiplies row r of the weight by ``factor[r]``; for those that count it in."""


class LiveWeight(nn.Module):
    """One weight tensor's way from the parameter to the product.

    Attributes:
        mask: bool, the weight's shape, or None; False weights are 0. quantizer: or None.
        pattern: chooses the mask anew from the weights' sizes before each step of the repair, so that pruned weights
            may come back (dynamic network surgery, Guo et al. 2016); None keeps the mask as it is.
    """

    mask: Tensor | None
    quantizer: WeightQuantizer | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", None)
        self.quantizer = None
        self.pattern: Pattern | None = None

    @property
    def plain(self) -> bool:
        """Nothing happens on this way."""
        return self.mask is None and self.quantizer is None

    def forward(self, weight: Tensor) -> Tensor:
        mask = self.mask
        used = weight if mask is None else torch.where(mask, weight, 0.0)
        if self.quantizer is not None:
            used = self.quantizer(used, mask)
            used = used if mask is None else torch.where(mask, used, 0.0)
        if mask is not None and self.training and self.pattern is not None:
            used = used + torch.where(mask, 0.0, weight - weight.detach())  # no value, but a gradient for the masked
        return used

    def stored(self, weight: Tensor) -> Stored:
        """What a file holds of this weight; not for a plain way."""
        mask = None if self.mask is None else self.mask.cpu().numpy().astype(np.bool_)
        weight = weight.detach() if self.mask is None else torch.where(self.mask, weight.detach(), 0.0)
        if self.quantizer is None:
            return Stored(UNTOUCHED, values=weight.float().cpu().numpy(), mask=mask)
        stored = self.quantizer.stored(weight, self.mask)
        return Stored(stored.bits, stored.codes, stored.scale, stored.zero, stored.levels, mask, stored.values)

    def select(self, axis: int, take: Callable[[Tensor], Tensor]) -> None:
        """See WeightQuantizer.select."""
        if self.mask is not None:
            self.mask = take(self.mask)
        if self.quantizer is not None:
            self.quantizer.select(axis, take)

    def regrow(self, weight: Tensor) -> None:
        """Choose the mask anew, where there is a pattern."""
        if self.mask is not None and self.pattern is not None:
            self.mask = self.pattern(weight.detach().abs())

    def advance(self, weight: Tensor, progress: float) -> None:
        """See WeightQuantizer.advance."""
        self.regrow(weight)
        if self.quantizer is not None:
            kept = weight.detach() if self.mask is None else torch.where(self.mask, weight.detach(), 0.0)
            self.quantizer.advance(kept, progress)


class LiveLayer(nn.Module):
    """A convolution, linear or recurrent layer with compressed weights, rounded inputs or both; ``live`` makes one.

    Attributes:
        ways: by weight tensor: ``weight``, or ``weight_ih_l0`` and so on of a recurrent layer.
        weight_bits, activation_bits: 1 to 8, or 32 for untouched. input_quantizer: rounds the input, or None.
        frozen: the weights are used as they are (see ``freeze``).
        norm: path of the batch norm that counts as part of the weights (see ``refold``), or "".
    """

    ways: nn.ModuleDict
    weight_bits: int
    activation_bits: int
    input_quantizer: nn.Module | None
    frozen: bool
    norm: str

    def used(self, name: str) -> Tensor:
        """A tensor as the forward uses it."""
        tensor: Tensor = getattr(self, name)
        if self.frozen or name not in self.ways:
            return tensor
        used: Tensor = self.ways[name](tensor)
        return used

    def stored(self) -> dict[str, Stored]:
        """By tensor name, what a file holds of each weight that is not plain; ``dense()`` of it is what is used.

        Raises:
            CompressionError: the weights are frozen.
        """
        if self.frozen:
            raise CompressionError(f"this {type(self).__name__} has no codes: its weights are frozen")
        return {name: way.stored(getattr(self, name)) for name, way in self._ways() if not way.plain}

    def freeze(self, tensors: Mapping[str, Tensor | None]) -> None:
        """From now on use the weights as they are, these ones in the place of the old; the input is still rounded.

        Args:
            tensors: by name (``weight``, ``bias``, ...), of the old shapes, a bias may be new.
        """
        for name, tensor in tensors.items():
            new = None if tensor is None else nn.Parameter(tensor.detach().clone(), requires_grad=False)
            setattr(self, name, new)
        self.frozen = True

    def select(self, name: str, axis: int, take: Callable[[Tensor], Tensor]) -> None:
        """Follow a tensor that lost channels along an axis."""
        if name in self.ways:
            self.ways[name].select(axis, take)  # type: ignore[operator]

    def advance(self, progress: float) -> None:
        """See WeightQuantizer.advance."""
        for name, way in self._ways():
            way.advance(getattr(self, name), progress)

    def regrow(self) -> None:
        """See LiveWeight.regrow."""
        for name, way in self._ways():
            way.regrow(getattr(self, name))

    def _ways(self) -> Iterator[tuple[str, LiveWeight]]:
        for name, way in self.ways.items():
            assert isinstance(way, LiveWeight)
            yield name, way

    def _rounded(self, x: Tensor) -> Tensor:
        return x if self.input_quantizer is None else self.input_quantizer(x)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, weight_bits={self.weight_bits}, activation_bits={self.activation_bits}"


def advance(model: nn.Module, progress: float) -> None:
    """Tell every live layer how far the repair is; called before each of its steps.

    Args:
        progress: share of the steps that are done, in [0, 1).
    """
    refold(model)
    for module in model.modules():
        if isinstance(module, LiveLayer):
            module.advance(progress)


def refold(model: nn.Module) -> bool:
    """Tell the weights that count a batch norm as part of them what it multiplies their rows by, as it is by now.

    Returns:
        Whether there are any.
    """
    folding = [module for module in model.modules() if isinstance(module, LiveLayer) and module.norm]
    for layer in folding:
        factor = row_factor(model, layer.norm)
        for _, way in layer._ways():
            if factor is not None and way.quantizer is not None:
                way.quantizer.fold(factor)
    return bool(folding)


def row_factor(model: nn.Module, path: str) -> Tensor | None:
    """What a batch norm multiplies each channel by, ``gamma / sqrt(variance + eps)``; None if it is gone by now."""
    norm = model.get_submodule(path)
    if not isinstance(norm, _BatchNorm) or norm.running_var is None:
        return None
    spread = torch.sqrt(norm.running_var.double() + norm.eps)
    gamma = torch.ones_like(spread) if norm.weight is None else norm.weight.detach().double()
    return (gamma / spread).float()


def regrow(model: nn.Module) -> None:
    """Choose the masks of all live layers anew for the weights as they are; those without a pattern stay."""
    for module in model.modules():
        if isinstance(module, LiveLayer):
            module.regrow()
