"""Rounding of a layer's input: one affine grid a tensor, its step fixed, learned (LSQ) or of a learned clip (PACT)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from automc.operators.quantizers.ranges import kl_threshold, percentile
from automc.operators.quantizers.rows import positive, straight_through

_CLIPS = torch.logspace(-1.3, 0.0, 40)
_STRIDE = 3
_MSE_SAMPLE = 4096


class InputQuantizer(nn.Module):
    """Rounds a tensor to ``(clamp(round(x / scale) + zero, 0, 2^bits - 1) - zero) * scale``.

    In eval mode these are the only operations, so that an exported graph does the same. Zero is one of the values,
    so padding stays exact. In training the gradient passes where x is in range and is 0 elsewhere.

    Attributes:
        scale: above 0, shape (); a parameter where it is learned, else a buffer.
        zero: a buffer: a whole number in [0, 2^bits - 1], shape ().
    """

    scale: Tensor
    zero: Tensor
    learned = False

    def __init__(self, bits: int, low: float, high: float) -> None:
        """Cover [low, high]; low <= 0 <= high. A range too small for single precision gets scale 1."""
        super().__init__()
        self.bits = bits
        self.top = float(2**bits - 1)
        step = (high - low) / self.top
        scale = torch.tensor(step if step >= torch.finfo(torch.float32).tiny else 1.0)
        self.scale = nn.Parameter(scale) if self.learned else nn.Buffer(scale)
        self.register_buffer("zero", torch.round(-low / scale).clamp(0, self.top))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.step()
        if (
            torch.is_inference_mode_enabled()
        ):  # the same steps in one new tensor: elsewhere they cost as much as a layer
            return (x / scale).round_().add_(self.zero).clamp_(0.0, self.top).sub_(self.zero).mul_(scale)
        codes = torch.clamp(torch.round(x / scale) + self.zero, 0.0, self.top)
        rounded = (codes - self.zero) * scale
        return self.passed(rounded, x, scale) if self.training else rounded

    def step(self) -> Tensor:
        """The scale in use, above 0."""
        return self.scale

    def passed(self, rounded: Tensor, x: Tensor, scale: Tensor) -> Tensor:
        """The rounded input with its gradient."""
        low, high = -self.zero * scale, (self.top - self.zero) * scale
        return straight_through(rounded, torch.clamp(x, low, high))

    @classmethod
    def fit(cls, bits: int, sample: Tensor, low: float, high: float, rule: str = "mse") -> InputQuantizer:
        """The quantizer for what was seen at an input.

        Args:
            sample: shape (m,), some of the values. low, high: the least and greatest value seen.
            rule: ``mse``: the least squared error over 40 shares of [low, high], on about 4,096 of the values;
                ``minmax``: all of it; ``percentile``: 99.9 % of the sample at each end; ``kl``: see
                ranges.kl_threshold, on sizes.
        """
        low, high = min(low, 0.0), max(high, 0.0)
        if rule == "mse":
            share = _best_share(bits, sample[:: max(len(sample) // _MSE_SAMPLE, 1)], low, high)
            return cls(bits, share * low, share * high)
        if rule == "percentile":
            below, above = percentile(torch.stack([-sample, sample]), None).tolist()
            return cls(bits, max(low, -below), min(high, above))
        if rule == "kl":
            levels = 2**bits if low == 0 or high == 0 else 2 ** (bits - 1)
            threshold = float(kl_threshold(sample.abs()[None], None, max(levels, 2)))
            return cls(bits, max(low, -threshold), min(high, threshold))
        return cls(bits, low, high)

    def extra_repr(self) -> str:
        return f"bits={self.bits}, scale={self.scale.item():.4g}, zero={self.zero.item():g}"


def _best_share(bits: int, sample: Tensor, low: float, high: float) -> float:
    """The share of [low, high] with the least squared error on a sample: the best of every third of the 40, then of
    those around it."""
    top = float(2**bits - 1)
    if high - low < top * torch.finfo(torch.float32).tiny:
        return 1.0
    zero = float(round(-low * top / (high - low)))

    def best(shares: Tensor) -> int:
        steps = shares.to(sample) * ((high - low) / top)
        exact = sample * steps.reciprocal()[:, None]
        off = torch.round(exact).clamp_(-zero, top - zero).sub_(exact)
        return int((torch.linalg.vector_norm(off, dim=1) * steps).argmin())

    middle = _STRIDE * best(_CLIPS[::_STRIDE])
    near = _CLIPS[max(middle - _STRIDE + 1, 0) : middle + _STRIDE]
    return float(near[best(near)])


class LearnedStepInput(InputQuantizer):
    """The step is learned (LSQ, Esser et al. 2020): its gradient is round(v) - v inside the range, v = x / scale, and
    the end's code outside, times 1 / sqrt(n * largest code), n the numbers of one input."""

    learned = True

    def step(self) -> Tensor:
        """Its size while it trains, whatever sign the optimizer gave it; see ``train``."""
        return positive(self.scale.abs()) if self.training else self.scale

    def passed(self, rounded: Tensor, x: Tensor, scale: Tensor) -> Tensor:
        share = (x[0].numel() * self.top) ** -0.5
        step = straight_through(scale, scale * share)
        exact = torch.clamp(x / step, -self.zero, self.top - self.zero)
        code = torch.clamp(torch.round(x / scale) + self.zero, 0.0, self.top) - self.zero
        return straight_through(code, exact) * step

    def train(self, mode: bool = True) -> LearnedStepInput:
        """Also makes the parameter what the training used, so that eval mode has no more operations than any other."""
        with torch.no_grad():
            self.scale.copy_(positive(self.scale.abs()))
        super().train(mode)
        return self


class LearnedClipInput(LearnedStepInput):
    """The clip is learned (PACT, Choi et al. 2018): its gradient is 1 where x is beyond it, else 0.

    The parameter is the step, ``clip / largest code``; its gradient is so scaled that a step of gradient descent moves
    the clip as if it were the parameter. An input of both signs has a clip at either end, moving in proportion. The
    paper's decay of the clip is left out.
    """

    def passed(self, rounded: Tensor, x: Tensor, scale: Tensor) -> Tensor:
        reach = self.top - self.zero if self.zero * 2 <= self.top else self.zero
        step = straight_through(scale, scale / reach**2)
        return straight_through(rounded, torch.clamp(x, -self.zero * step, (self.top - self.zero) * step))
