"""Networks for the tests of export: stand-ins for quantized layers, and a small network fitted to the digits."""

from __future__ import annotations

import functools

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn


class Rounding(nn.Module):
    """Affine rounding of inputs to 2**bits levels."""

    def __init__(self, bits: int, low: float, high: float) -> None:
        super().__init__()
        self.top = 2**bits - 1
        self.register_buffer("scale", torch.tensor((high - low) / self.top))
        self.register_buffer("zero", torch.tensor(round(-low / (high - low) * self.top) * 1.0))

    def forward(self, x: Tensor) -> Tensor:
        return (torch.clamp(torch.round(x / self.scale) + self.zero, 0, self.top) - self.zero) * self.scale


class _Quantized:
    weight_bits = 32
    activation_bits = 32
    frozen = False

    def weight_codes(self) -> tuple[Tensor, Tensor]:
        flat = self.weight.detach().flatten(1)
        if self.weight_bits == 1:
            codes, scale = torch.where(flat < 0, -1, 1), flat.abs().mean(1)
        else:
            top = 2 ** (self.weight_bits - 1) - 1
            scale = flat.abs().amax(1).clamp_min(1e-12) / top
            codes = torch.round(flat / scale[:, None]).clamp(-top, top)
        return codes.view_as(self.weight).to(torch.int8), scale

    def freeze(self, weight: Tensor, bias: Tensor | None) -> None:
        self.frozen = True
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x if self.input_quantizer is None else self.input_quantizer(x)
        if self.frozen or self.weight_bits == 32:
            return x, self.weight
        codes, scale = self.weight_codes()
        return x, codes.float() * scale.view(-1, *[1] * (codes.dim() - 1))


class QuantConv(_Quantized, nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        x, weight = self.parts(x)
        return self._conv_forward(x, weight, self.bias)


class QuantLinear(_Quantized, nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        x, weight = self.parts(x)
        return F.linear(x, weight, self.bias)


def quantized(
    layer: nn.Module, weight_bits: int, rounding: Rounding | None = None, activation_bits: int = 8
) -> nn.Module:
    """A conv or linear layer turned into its quantized stand-in, in place."""
    layer.__class__ = QuantConv if isinstance(layer, nn.Conv2d) else QuantLinear
    layer.weight_bits = weight_bits
    layer.input_quantizer, layer.activation_bits = rounding, activation_bits if rounding else 32
    return layer


def shake_norms(model: nn.Module, seed: int) -> nn.Module:
    """Give every batch norm random statistics and factors, about half of them negative."""
    generator = torch.Generator().manual_seed(seed)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor, low, high in (
                (norm.weight, -2.0, 2.0),
                (norm.bias, -1.0, 1.0),
                (norm.running_mean, -1.0, 1.0),
                (norm.running_var, 0.1, 3.0),
            ):
                if tensor is not None:
                    tensor.data.uniform_(low, high, generator=generator)
    return model


class DigitsStandIn(nn.Module):
    """Random convolutions (one depthwise) with batch norms, a shortcut kept in a lambda, and a linear layer."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 2 * width, 1)
        self.bn3 = nn.BatchNorm2d(2 * width)
        self.shortcut = lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, width // 2, width // 2))
        self.linear = nn.Linear(2 * width * 16, 10)

    def features(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = x + F.relu(self.bn2(self.conv2(x)))
        return F.relu(F.max_pool2d(self.bn3(self.conv3(x)), 2) + self.shortcut(x)).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.features(x))


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Raw inputs 0..16 float32 (n, 1, 8, 8) and targets (n,)."""
    data = load_digits()
    return data.images.astype(np.float32)[:, None], data.target.astype(np.int64)


MEAN, STD, SCALE = (0.3,), (0.37,), 16.0


def normalise(raw: np.ndarray) -> Tensor:
    return (torch.from_numpy(raw) / SCALE - MEAN[0]) / STD[0]


def fitted(width: int, seed: int = 0) -> DigitsStandIn:
    """The stand-in with its linear layer fitted by ridge regression on the first 1,200 digits."""
    raw, targets = digits()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = DigitsStandIn(width)
    shake_norms(model, seed).eval()
    refit(model, normalise(raw[:1200]), torch.from_numpy(targets[:1200]))
    return model


def refit(model: DigitsStandIn, inputs: Tensor, targets: Tensor) -> None:
    with torch.no_grad():
        x = torch.cat([model.features(inputs), torch.ones(len(inputs), 1)], 1).double()
        gram = x.T @ x + 10.0 * torch.eye(x.shape[1], dtype=torch.float64)
        solved = torch.linalg.solve(gram, x.T @ F.one_hot(targets, 10).double()).float()
        model.linear.weight.copy_(solved[:-1].T)
        model.linear.bias.copy_(solved[-1])


def compressed(model: DigitsStandIn, bits: int = 4) -> DigitsStandIn:
    """The model with all layers quantized in place and its linear layer fitted again."""
    raw, targets = digits()
    for layer in (model.conv1, model.conv2, model.conv3):
        quantized(layer, bits)
    model.conv2.input_quantizer, model.conv2.activation_bits = Rounding(8, 0.0, 12.0), 8
    refit(model, normalise(raw[:1200]), torch.from_numpy(targets[:1200]))
    quantized(model.linear, 8, Rounding(8, 0.0, 20.0))
    return model
