"""From a layer's settings to its quantizers; what a combination means that no paper has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from automc.core.policy import Value
from automc.operators.live import UNTOUCHED, WeightQuantizer
from automc.operators.quantizers.affine import AffineQuantizer, LearnedStepQuantizer
from automc.operators.quantizers.codebook import CodebookQuantizer
from automc.operators.quantizers.fixed import BinaryQuantizer, DoReFaQuantizer, PowerOfTwoQuantizer, TernaryQuantizer
from automc.operators.quantizers.incremental import IncrementalQuantizer
from automc.operators.quantizers.inputs import InputQuantizer, LearnedClipInput, LearnedStepInput
from automc.operators.quantizers.rows import ScaledQuantizer, along_rows

AFFINE = ("symmetric", "asymmetric")
_INPUTS: Mapping[str, type[InputQuantizer]] = {"lsq": LearnedStepInput, "pact": LearnedClipInput}


@dataclass(frozen=True)
class Choice:
    """A layer's settings, as offers/quantize.py names them."""

    weight_bits: int
    activation_bits: int
    weight_format: str
    granularity: str
    weight_range: str
    activation_range: str
    rounding: str
    qat: str

    @classmethod
    def of(cls, settings: Mapping[str, Value]) -> Choice:
        """The settings of a policy."""
        texts = {name: str(settings[name]) for name in _TEXTS}
        return cls(int(settings["weight_bits"]), int(settings["activation_bits"]), **texts)

    def meant(self, kind: type[torch.nn.Module]) -> Choice:
        """What is really done on a layer of this kind: settings that do not fit are replaced by the nearest that do.

        - One bit is always binary. Ternary is two bits; at other widths it is symmetric.
        - A transposed convolution has one scale a tensor: its output channels are not its rows.
        - Adaptive rounding is for symmetric and asymmetric weights of convolutions and linear layers whose
          grid does not depend on the weights in another way (DoReFa); else it is to nearest.
        - ``dorefa`` is a grid of its own in the place of symmetric and asymmetric; ``lsq`` and ``dorefa`` leave the
          weights of other formats to ``ste``; ``pact`` is about inputs, the weights get ``ste``; ``incremental`` is
          about weights, the inputs get ``ste``. ``qat`` becomes ``ste`` where neither side takes it.
        """
        made = self
        if self.weight_bits == 1:
            made = replace(made, weight_format="binary")
        elif self.weight_format == "ternary" and self.weight_bits != 2:
            made = replace(made, weight_format="symmetric")
        transposed = issubclass(kind, torch.nn.modules.conv._ConvTransposeNd)
        if transposed:
            made = replace(made, granularity="tensor")
        weights, inputs = self.weight_bits < UNTOUCHED, self.activation_bits < UNTOUCHED
        affine = weights and made.weight_format in AFFINE
        takes = {"lsq": affine or inputs, "dorefa": affine, "pact": inputs, "incremental": weights}
        if not takes.get(self.qat, True):
            made = replace(made, qat="ste")
        plain = issubclass(kind, (torch.nn.modules.conv._ConvNd, torch.nn.Linear)) and not transposed
        if not (affine and plain) or made.qat == "dorefa":
            made = replace(made, rounding="nearest")
        return made

    def differences(self, other: Choice) -> dict[str, Value]:
        """The other's settings that are not these."""
        return {name: getattr(other, name) for name in _TEXTS if getattr(self, name) != getattr(other, name)}

    def weight_quantizer(self, weight: Tensor, mask: Tensor | None, factor: Tensor | None = None) -> WeightQuantizer:
        """A new quantizer for a weight, shape (rows, ...), 0 where the mask is False.

        Args:
            factor: what the batch norm behind the layer multiplies each row by, where that is to count as part of it.
        """
        made = self._scaled(weight if factor is None else weight * along_rows(factor, weight), mask)
        if factor is not None:
            made.factor = factor
            made.fold(factor)
        return self.wrapped(made, weight, mask)

    @property
    def inner(self) -> Choice:
        """The choice whose quantizer is wrapped by this one's; itself where nothing wraps."""
        return replace(self, qat="ste") if self.qat == "incremental" else self

    def wrapped(self, made: WeightQuantizer, weight: Tensor, mask: Tensor | None) -> WeightQuantizer:
        """A quantizer of the ``inner`` choice as this one has it."""
        if self.qat != "incremental":
            return made
        assert isinstance(made, ScaledQuantizer)
        return IncrementalQuantizer(made, weight, mask)

    def _scaled(self, weight: Tensor, mask: Tensor | None) -> ScaledQuantizer:
        bits, per_channel, rule = self.weight_bits, self.granularity == "channel", self.weight_range
        if self.weight_format == "binary":
            return BinaryQuantizer(per_channel)
        if self.weight_format == "ternary":
            return TernaryQuantizer(per_channel)
        if self.weight_format == "codebook":
            return CodebookQuantizer(weight, bits, mask, per_channel)
        if self.weight_format == "power_of_two":
            return PowerOfTwoQuantizer(weight, bits, mask, per_channel, rule)
        if self.qat == "dorefa":
            return DoReFaQuantizer(bits, per_channel)
        kind = LearnedStepQuantizer if self.qat == "lsq" else AffineQuantizer
        symmetric = self.weight_format == "symmetric"
        return kind(weight, bits, mask, symmetric=symmetric, per_channel=per_channel, rule=rule)

    def input_quantizer(self, sample: Tensor, low: float, high: float) -> InputQuantizer:
        """A new quantizer for inputs, of which a sample, the least and the greatest value were seen."""
        kind = _INPUTS.get(self.qat, InputQuantizer)
        return kind.fit(self.activation_bits, sample, low, high, self.activation_range)


_TEXTS = ("weight_format", "granularity", "weight_range", "activation_range", "rounding", "qat")
